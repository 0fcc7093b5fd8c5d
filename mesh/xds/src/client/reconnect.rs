//! When to open the next stream.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

/// How a stream ended.
#[derive(Debug)]
pub enum StreamEnd {
    /// No connection.
    Unreachable(String),
    /// The server ended it with a status.
    Status(Status),
    /// Something of ours failed before connecting, such as reading the root certificate.
    Local(String),
    /// The server closed it without a status.
    Clean,
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "control plane cannot be reached: {reason}"),
            Self::Status(status) => {
                write!(f, "control plane ended the stream: {:?}: {}", status.code(), status.message())
            }
            Self::Local(reason) => f.write_str(reason),
            Self::Clean => f.write_str("control plane closed the stream"),
        }
    }
}

impl StreamEnd {
    /// Label of the metric that counts terminations.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Local(_) => "ConnectionError",
            Self::Status(status) if is_rotation(status) => "Reconnect",
            Self::Status(_) => "Error",
            Self::Clean => "Complete",
        }
    }
}

/// The delay between streams: doubles while the server cannot be reached or refuses, starts over
/// after a stream that ended as servers end them.
#[derive(Debug)]
pub struct Reconnect {
    delay: Duration,
}

/// First delay.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(10);
/// Largest delay.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(15);

impl Default for Reconnect {
    fn default() -> Self {
        Self { delay: DELAY_MIN }
    }
}

impl Reconnect {
    /// How long to sleep after a stream that ended so.
    ///
    /// A local failure waits like an unreachable server: without that, a missing root file would
    /// be read in a tight loop.
    pub fn after(&mut self, end: &StreamEnd) -> Duration {
        match end {
            StreamEnd::Status(status) if is_rotation(status) => {
                self.delay = DELAY_MIN;
                DELAY_MIN
            }
            StreamEnd::Clean => {
                self.delay = DELAY_MIN;
                Duration::ZERO
            }
            StreamEnd::Unreachable(_) | StreamEnd::Status(_) | StreamEnd::Local(_) => {
                self.delay = (self.delay * 2).min(DELAY_MAX);
                self.delay
            }
        }
    }
}

/// Whether the server ended the stream in the ordinary course of things: age limit, shutdown.
fn is_rotation(status: &Status) -> bool {
    match status.code() {
        Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
        Code::Unavailable => {
            let message = status.message();
            message.contains("transport is closing") || message.contains("GOAWAY") || message.contains("goaway")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_server_is_asked_ever_less_often() {
        let mut reconnect = Reconnect::default();
        let end = StreamEnd::Unreachable("refused".into());
        let delays: Vec<_> = (0..12).map(|_| reconnect.after(&end).as_millis()).collect();
        assert_eq!(delays, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
    }

    #[test]
    fn rotation_is_quick_and_starts_over() {
        let mut reconnect = Reconnect::default();
        reconnect.after(&StreamEnd::Status(Status::permission_denied("no")));
        for status in [
            Status::unknown("h2"),
            Status::cancelled(""),
            Status::deadline_exceeded(""),
            Status::unavailable("transport is closing"),
            Status::unavailable("closing transport due to: connection error, received prior GOAWAY"),
        ] {
            assert_eq!(reconnect.after(&StreamEnd::Status(status)), DELAY_MIN);
        }
        assert_eq!(reconnect.after(&StreamEnd::Unreachable(String::new())), DELAY_MIN * 2);
        assert_eq!(reconnect.after(&StreamEnd::Clean), Duration::ZERO);
        assert_eq!(reconnect.after(&StreamEnd::Status(Status::unauthenticated(""))), DELAY_MIN * 2);
        assert_eq!(reconnect.after(&StreamEnd::Status(Status::unavailable("busy"))), DELAY_MIN * 4);
    }
}
