//! Session persistence: a client comes back to the endpoint that it was sent to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::pick::Picked;

/// What a session's cookie or header tells. Clients may make one up: it only chooses among endpoints that they may reach
/// anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Which endpoint.
    pub(super) tag: u64,
    /// Seconds since 1970.
    issued: u32,
    seen: u32,
}

impl Session {
    /// Reads the value of a cookie or header. `None` if it is not one of ours, or is too old: `lifetime` counts from
    /// when it was first made, `idle` from when it was last; none: no limit.
    #[must_use]
    pub fn read(value: &str, lifetime: Option<Duration>, idle: Option<Duration>, now: SystemTime) -> Option<Self> {
        let bytes: [u8; 16] = BASE64_URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?;
        let (tag, times) = bytes.split_first_chunk::<8>()?;
        let (issued, seen) = times.split_first_chunk::<4>()?;
        let session = Self {
            tag: u64::from_be_bytes(*tag),
            issued: u32::from_be_bytes(*issued),
            seen: u32::from_be_bytes(seen.try_into().ok()?),
        };
        let age = |since: u32| Duration::from_secs(u64::from(seconds(now).saturating_sub(since)));
        let fresh = lifetime.is_none_or(|limit| age(session.issued) < limit);
        (fresh && idle.is_none_or(|limit| age(session.seen) < limit)).then_some(session)
    }

    /// The value that brings the client back to `picked`. `before` is what the request came with.
    #[must_use]
    pub fn write(picked: &Picked, before: Option<&Self>, now: SystemTime) -> String {
        let tag = picked.tag();
        let seen = seconds(now);
        let issued = before.filter(|before| before.tag == tag).map_or(seen, |before| before.issued);
        let mut bytes = [0; 16];
        for (to, from) in
            bytes.iter_mut().zip(tag.to_be_bytes().into_iter().chain(issued.to_be_bytes()).chain(seen.to_be_bytes()))
        {
            *to = from;
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether `picked` is the endpoint that was asked for.
    #[must_use]
    pub fn is_for(&self, picked: &Picked) -> bool {
        self.tag == picked.tag()
    }
}

fn seconds(now: SystemTime) -> u32 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(since).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::host::testing::picked;

    #[test]
    fn a_value_leads_back_to_its_endpoint_until_it_is_too_old() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (one, other) = (picked("10.0.0.1:80"), picked("10.0.0.2:80"));
        let value = Session::write(&one, None, at(1000));
        assert_eq!(value.len(), 22);
        let session = Session::read(&value, None, None, at(9_000)).unwrap();
        assert!(session.is_for(&one) && !session.is_for(&other));
        let limit = |seconds| Some(Duration::from_secs(seconds));
        assert!(Session::read(&value, limit(100), None, at(1099)).is_some());
        assert_eq!(Session::read(&value, limit(100), None, at(1100)), None);
        // Used again, it lives on, but not for longer than its whole life.
        let again = Session::write(&one, Some(&session), at(1050));
        assert!(Session::read(&again, limit(1000), limit(60), at(1109)).is_some());
        assert_eq!(Session::read(&again, limit(1000), limit(60), at(1110)), None);
        assert_eq!(Session::read(&again, limit(100), limit(600), at(1100)), None);
        let moved = Session::write(&other, Some(&session), at(1050));
        assert!(Session::read(&moved, limit(100), None, at(1100)).is_some(), "another endpoint, another life");
    }

    #[test]
    fn nonsense_is_no_session() {
        for value in ["", "x", "AAAA", "10.0.0.1:80", &"A".repeat(23), "AAAAAAAAAAAAAAAAAAAAA="] {
            assert_eq!(Session::read(value, None, None, UNIX_EPOCH), None, "{value}");
        }
    }
}
