//! How much of each kind of frame a peer may send: what no use of a connection explains ends it.
//!
//! The HTTP/2 library bounds what costs memory: header bytes, CONTINUATION frames of one block, streams, resets before a
//! stream was seen, small DATA that nobody reads. What costs only time is counted here.

use std::fmt;
use std::time::Duration;

use mesh_core::bucket::{Allowance, Bucket};

use crate::frames::{Frame, Kind};
use crate::settings::SERVER_MAX_HEADER_BYTES;

/// Counts the frames of one connection. Pure: time comes in as a value, since the connection began.
#[derive(Debug, Clone)]
pub struct Hygiene {
    speaker: Speaker,
    budgets: [Bucket; Budget::COUNT],
    /// Bytes we sent that have not earned the peer anything yet.
    unrewarded_bytes: u32,
}

/// Who is at the other end. What is normal for one is a flood from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A proxy, with a tunnel: few frames besides those of data.
    Tunnel,
    /// An application. Its library may measure the link with a PING for every answer, grant window with every frame,
    /// reset each stream that it has had enough of, and have long headers; all in proportion to the answers it gets.
    Application,
}

/// A peer sent more of something than any use of the tunnel explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flood {
    /// More than once in a while.
    #[error("peer sent too many {budget}: more than {burst} at once and {per_second} a second", burst = allowance.burst, per_second = allowance.per_second)]
    TooMany {
        /// Of what.
        budget: Budget,
        /// So many there may be.
        allowance: Allowance,
    },
    /// No request that we would take has as many header bytes in a frame; reading them would keep others waiting.
    #[error("peer sent {bytes} header bytes in one frame: more than {SERVER_MAX_HEADER_BYTES}")]
    LongHeaders {
        /// So many.
        bytes: u32,
    },
}

/// Frames that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// PING, answers included.
    Ping,
    /// SETTINGS, acknowledgements included.
    Settings,
    /// WINDOW_UPDATE beyond what the bytes that we send explain.
    WindowUpdate,
    /// DATA with neither content nor the end of its stream.
    EmptyData,
    /// RST_STREAM.
    Reset,
    /// CONTINUATION: header blocks of a tunnel fit into one frame. The library bounds those of one block.
    Continuation,
    /// PRIORITY, GOAWAY and frames of unknown type.
    Other,
    /// Requests that are no CONNECT. Counted by the server, which sees requests, not by [`Hygiene`].
    WrongRequest,
}

impl Hygiene {
    /// Full budgets of a tunnel.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Speaker::Tunnel)
    }

    /// Full budgets.
    #[must_use]
    pub fn of(speaker: Speaker) -> Self {
        let budgets = Budget::ALL.map(|budget| Bucket::full(budget.allowance(speaker)));
        Self { speaker, budgets, unrewarded_bytes: 0 }
    }

    /// Counts a frame of the peer.
    ///
    /// # Errors
    /// [`Flood`]: the connection should end.
    pub fn received(&mut self, frame: Frame, now: impl FnOnce() -> Duration) -> Result<(), Flood> {
        if frame.is_header_block() && frame.bytes > SERVER_MAX_HEADER_BYTES {
            return Err(Flood::LongHeaders { bytes: frame.bytes });
        }
        let Some(budget) = Budget::of(frame) else {
            return Ok(());
        };
        let allowance = budget.allowance(self.speaker);
        let enough = self.bucket(budget).is_some_and(|bucket| bucket.take(allowance, now));
        if enough { Ok(()) } else { Err(Flood::TooMany { budget, allowance }) }
    }

    /// We sent so many bytes: the peer owes credit for them, and an application may have more to say about them.
    pub fn sent(&mut self, bytes: usize) {
        let speaker = self.speaker;
        let (unit, earned) = speaker.rewards();
        let total = self.unrewarded_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.unrewarded_bytes = total % unit;
        let units = total / unit;
        if units > 0 {
            for (budget, each) in earned {
                if let Some(bucket) = self.bucket(*budget) {
                    bucket.put(budget.allowance(speaker), units.saturating_mul(*each));
                }
            }
        }
    }

    fn bucket(&mut self, budget: Budget) -> Option<&mut Bucket> {
        self.budgets.get_mut(budget as usize)
    }
}

impl Default for Hygiene {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    const ALL: [Self; 7] =
        [Self::Ping, Self::Settings, Self::WindowUpdate, Self::EmptyData, Self::Reset, Self::Continuation, Self::Other];
    const COUNT: usize = Self::ALL.len();

    /// Requests are bounded by the number of open streams, and bytes by flow control.
    fn of(frame: Frame) -> Option<Self> {
        Some(match frame.kind {
            Kind::Data if frame.is_idle_talk() => Self::EmptyData,
            Kind::Data | Kind::Headers => return None,
            Kind::Ping => Self::Ping,
            Kind::Settings => Self::Settings,
            Kind::WindowUpdate => Self::WindowUpdate,
            Kind::Reset => Self::Reset,
            Kind::Continuation => Self::Continuation,
            Kind::Priority | Kind::GoAway | Kind::PushPromise | Kind::Other(_) => Self::Other,
        })
    }

    /// How many there may be, beyond those that are earned. Well-behaved peers stay below a tenth of each.
    #[must_use]
    pub const fn allowance(self, speaker: Speaker) -> Allowance {
        let (burst, per_second) = match (self, speaker) {
            // Keep-alive needs one in ten seconds; implementations that measure the link send one a round trip.
            (Self::Ping, Speaker::Tunnel) => (1_000, 100),
            (Self::Ping, Speaker::Application) => (10_000, 1_000),
            // One at the start and one acknowledgement; a change of windows now and then.
            (Self::Settings, _) => (100, 10),
            // A peer that answers each small write with an update, while much data is under way.
            (Self::WindowUpdate, Speaker::Tunnel) => (8_192, 1_000),
            (Self::WindowUpdate, Speaker::Application) => (65_536, 1_000),
            (Self::EmptyData, _) => (1_000, 100),
            // Applications that give up: at most as many as they open.
            (Self::Reset, _) => (2_000, 500),
            (Self::Continuation, Speaker::Tunnel) => (200, 20),
            // A few for each request with long headers.
            (Self::Continuation, Speaker::Application) => (10_000, 5_000),
            (Self::Other, _) => (1_000, 100),
            // A mistaken client finds out with the first; each costs us an answer and a line in the log.
            (Self::WrongRequest, _) => (20, 5),
        };
        Allowance { burst, per_second }
    }
}

impl Speaker {
    /// For so many bytes that we send, the peer may send so many frames more.
    const fn rewards(self) -> (u32, &'static [(Budget, u32)]) {
        match self {
            Self::Tunnel => (512, &[(Budget::WindowUpdate, 1)]),
            // The shortest answer has some 40 bytes, so that each earns at least one. The answer to a PING has 17: what
            // that earns is never enough for the next. A frame of data has ten at least, and may be followed by two
            // updates, one of its stream and one of the connection.
            Self::Application => {
                (32, &[(Budget::Ping, 1), (Budget::WindowUpdate, 8), (Budget::Reset, 1), (Budget::Other, 1)])
            }
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ping => "PING frames",
            Self::Settings => "SETTINGS frames",
            Self::WindowUpdate => "WINDOW_UPDATE frames",
            Self::EmptyData => "empty DATA frames",
            Self::Reset => "RST_STREAM frames",
            Self::Continuation => "CONTINUATION frames",
            Self::Other => "frames without use",
            Self::WrongRequest => "requests that are no CONNECT",
        })
    }
}

#[cfg(test)]
mod tests;
