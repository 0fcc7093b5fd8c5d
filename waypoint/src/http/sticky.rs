//! Session persistence: a client comes back to the endpoint, and to the backend of a split, that served it before.

use std::fmt::Write as _;
use std::time::SystemTime;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_route::{SessionKind, SessionPersistence};

use super::response::Dress;
use crate::upstream::{Picked, Session};

/// What a client has brought back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sticky {
    /// Of the backend among the rule's.
    pub(crate) position: usize,
    pub(crate) session: Session,
}

impl Sticky {
    /// `None`: no session, or one that is over.
    pub(crate) fn read(rule: &SessionPersistence, headers: &HeaderMap) -> Option<Self> {
        let value = match rule.kind {
            SessionKind::Header => headers.get(&rule.name)?.to_str().ok()?,
            SessionKind::Cookie => cookie(headers, &rule.name)?,
        };
        let (position, value) = value.split_once('.')?;
        let limit = rule.absolute_timeout.or(rule.lifetime);
        let session = Session::read(value, limit, rule.idle_timeout, SystemTime::now())?;
        Some(Self { position: position.parse().ok()?, session })
    }

    /// Tells the client how to come back, unless it knows.
    pub(crate) fn write(
        before: Option<&Self>,
        rule: &SessionPersistence,
        position: usize,
        picked: &Picked,
        dress: &mut Dress<'_>,
    ) {
        let same = before.is_some_and(|before| before.position == position && before.session.is_for(picked));
        if same && rule.idle_timeout.is_none() {
            return;
        }
        let value = Session::write(picked, before.map(|before| &before.session), SystemTime::now());
        let value = format!("{position}.{value}");
        match rule.kind {
            SessionKind::Header => {
                let name = HeaderName::try_from(rule.name.as_str());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                    dress.session = Some((name, value));
                }
            }
            SessionKind::Cookie => {
                let path = if rule.path.is_empty() { "/" } else { &rule.path };
                let mut text = format!("{}={value}; Path={path}; HttpOnly", rule.name);
                if let Some(lifetime) = rule.lifetime {
                    // Writing to a text does not fail.
                    let _ = write!(text, "; Max-Age={}", lifetime.as_secs());
                }
                dress.cookies.extend(HeaderValue::try_from(text));
            }
        }
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn a_session_ends_at_its_time_whatever_the_client_keeps() {
        let rule = |absolute: u64| SessionPersistence {
            kind: SessionKind::Cookie,
            name: "sid".to_owned(),
            path: String::new(),
            lifetime: None,
            idle_timeout: None,
            absolute_timeout: Some(Duration::from_secs(absolute)),
        };
        let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 100;
        let times = u32::try_from(made).unwrap().to_be_bytes();
        let session = [&[7; 8][..], &times, &times].concat();
        let value = format!("sid=1.{}", BASE64_URL_SAFE_NO_PAD.encode(session));
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(value).unwrap());
        assert_eq!(Sticky::read(&rule(200), &headers).unwrap().position, 1);
        assert!(Sticky::read(&rule(50), &headers).is_none());
    }
}
