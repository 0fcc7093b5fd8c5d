//! What is done before memory runs out: less is promised, then nothing new is taken, then who holds most loses it.
//!
//! ```text
//! of the limit
//!   75 %  new connections get the smallest windows
//!   90 %  nothing is accepted; free memory is returned; streams and connections that hold back most are cut
//!   95 %  requests are answered with 503 (OM); the address with most connections loses some
//! ```
//!
//! # Source
//! Resilience specification, overload protection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

mod hoards;
mod watcher;

pub(crate) use hoards::{Hoard, Hoards};
pub(crate) use watcher::keep_watch;

use crate::limits::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_STREAM_WINDOW_BYTES, TUNNEL_STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES,
    TUNNEL_WINDOW_MANY_BYTES, TUNNELS_FEW, TUNNELS_MANY,
};

/// How much of the memory that the process may use it does use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is enough.
    Calm,
    /// Promise less.
    Tight,
    /// Take nothing new.
    Full,
    /// Give up some of what there is.
    Over,
}

/// The level of now. One per process.
#[derive(Debug)]
pub struct Overload {
    /// Bytes; none is known of where the process is not limited.
    limit: Option<u64>,
    level: AtomicU8,
    changes: watch::Sender<Level>,
}

impl Overload {
    /// Calm, until [`keep_watch`] finds otherwise.
    #[must_use]
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { limit, level: AtomicU8::new(0), changes: watch::Sender::new(Level::Calm) })
    }

    /// The level of now.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Calm,
            1 => Level::Tight,
            2 => Level::Full,
            _ => Level::Over,
        }
    }

    /// Waits until new connections may be accepted.
    pub(crate) async fn may_accept(&self) {
        if self.level() >= Level::Full {
            // The sender is here.
            let _ = self.changes.subscribe().wait_for(|level| *level < Level::Full).await;
        }
    }

    /// What the other end of a tunnel may send before we have read it, when its address has so many, this one included.
    pub(crate) fn tunnel_window(&self, of_source: usize) -> u32 {
        if self.level() >= Level::Tight {
            return TUNNEL_STREAM_WINDOW_BYTES;
        }
        // A few are never more than an eighth of what there is.
        let most = self.limit.map_or(u64::MAX, |limit| limit / 32);
        let fair = match of_source {
            few if few <= TUNNELS_FEW => TUNNEL_WINDOW_BYTES,
            many if many <= TUNNELS_MANY => TUNNEL_WINDOW_MANY_BYTES,
            _ => TUNNEL_STREAM_WINDOW_BYTES,
        };
        fair.min(u32::try_from(most).unwrap_or(u32::MAX)).max(TUNNEL_STREAM_WINDOW_BYTES)
    }

    /// What a client of HTTP/2 may send before we have read it, when others on this worker may send `promised`: each gets
    /// a sixteenth of what is left of half the memory, so that all together never get much more than that.
    pub(crate) fn http2_window(&self, promised: u64, workers: usize) -> u32 {
        let Some(limit) = self.limit else { return HTTP2_CONNECTION_WINDOW_BYTES };
        let own = limit / 2 / workers.max(1) as u64;
        let fair = match self.level() {
            Level::Calm => own.saturating_sub(promised) / 16,
            _ => 0,
        };
        let fair = u32::try_from(fair).unwrap_or(u32::MAX);
        fair.clamp(HTTP2_STREAM_WINDOW_BYTES, HTTP2_CONNECTION_WINDOW_BYTES)
    }

    pub(crate) fn set(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
        self.changes.send_replace(level);
    }
}

impl Level {
    /// Entered at its bound, left five per cent below.
    fn of(used: u64, limit: u64, before: Self) -> Self {
        let percent = used.saturating_mul(100) / limit.max(1);
        let at = |level: Self, bound: u64| percent >= if before >= level { bound - 5 } else { bound };
        if at(Self::Over, 95) {
            Self::Over
        } else if at(Self::Full, 90) {
            Self::Full
        } else if at(Self::Tight, 75) {
            Self::Tight
        } else {
            Self::Calm
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_left_a_little_below_where_it_is_entered() {
        use Level::{Calm, Full, Over, Tight};
        for (used, before, expected) in [
            (74, Calm, Calm),
            (75, Calm, Tight),
            (70, Tight, Tight),
            (69, Tight, Calm),
            (90, Tight, Full),
            (85, Full, Full),
            (84, Full, Tight),
            (95, Calm, Over),
            (90, Over, Over),
            (89, Over, Full),
            (200, Calm, Over),
        ] {
            assert_eq!(Level::of(used, 100, before), expected, "{used} after {before:?}");
        }
    }

    #[test]
    fn who_has_many_tunnels_gets_less_for_each() {
        let unlimited = Overload::new(None);
        let windows = [1, 4, 5, 64, 65].map(|count| unlimited.tunnel_window(count));
        assert_eq!(windows, [32 << 20, 32 << 20, 1 << 20, 1 << 20, 320 << 10]);
        let small = Overload::new(Some(256 << 20));
        assert_eq!([1, 5].map(|count| small.tunnel_window(count)), [8 << 20, 1 << 20]);
        small.set(Level::Tight);
        assert_eq!(small.tunnel_window(1), TUNNEL_STREAM_WINDOW_BYTES);
    }

    #[test]
    fn what_clients_of_http2_are_promised_is_bounded_by_the_memory() {
        let limit = 1 << 30;
        let overload = Overload::new(Some(limit));
        let mut promised = 0;
        for _ in 0..500 {
            promised += u64::from(overload.http2_window(promised, 2));
        }
        let least = 500 * u64::from(HTTP2_STREAM_WINDOW_BYTES);
        assert!(promised < limit / 4 + least, "{promised}");
        assert_eq!(Overload::new(None).http2_window(promised, 2), HTTP2_CONNECTION_WINDOW_BYTES);
    }
}
