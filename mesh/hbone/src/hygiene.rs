//! How much of each kind of frame a peer may send: what no use of a tunnel explains ends the peer's connection.
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
    budgets: [Bucket; Budget::COUNT],
    /// Bytes we sent that have not earned the peer a window update yet.
    unrewarded_bytes: u32,
}

/// A peer sent more of something than any use of the tunnel explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flood {
    /// More than once in a while.
    #[error("peer sent too many {budget}: more than {burst} at once and {per_second} a second", burst = budget.allowance().burst, per_second = budget.allowance().per_second)]
    TooMany {
        /// Of what.
        budget: Budget,
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
    /// CONTINUATION: header blocks of a tunnel fit into one frame.
    Continuation,
    /// PRIORITY, GOAWAY and frames of unknown type.
    Other,
    /// Requests that are no CONNECT. Counted by the server, which sees requests, not by [`Hygiene`].
    WrongRequest,
}

impl Hygiene {
    /// Full budgets.
    #[must_use]
    pub fn new() -> Self {
        Self { budgets: Budget::ALL.map(|budget| Bucket::full(budget.allowance())), unrewarded_bytes: 0 }
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
        let enough = self.bucket(budget).is_some_and(|bucket| bucket.take(budget.allowance(), now));
        if enough { Ok(()) } else { Err(Flood::TooMany { budget }) }
    }

    /// We sent so many bytes: the peer owes credit for them.
    pub fn sent(&mut self, bytes: usize) {
        let total = self.unrewarded_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.unrewarded_bytes = total % BYTES_PER_UPDATE;
        let budget = Budget::WindowUpdate;
        if let Some(bucket) = self.bucket(budget) {
            bucket.put(budget.allowance(), total / BYTES_PER_UPDATE);
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

    /// How many there may be. Well-behaved peers stay below a tenth of each.
    #[must_use]
    pub const fn allowance(self) -> Allowance {
        let (burst, per_second) = match self {
            // Keep-alive needs one in ten seconds; implementations that measure the link send one a round trip.
            Self::Ping => (1_000, 100),
            // One at the start and one acknowledgement; a change of windows now and then.
            Self::Settings => (100, 10),
            // A peer that answers each small write with an update, while much data is under way.
            Self::WindowUpdate => (8_192, 1_000),
            Self::EmptyData => (1_000, 100),
            // Applications that give up: at most as many as they open.
            Self::Reset => (2_000, 500),
            Self::Continuation => (200, 20),
            Self::Other => (1_000, 100),
            // A mistaken client finds out with the first; each costs us an answer and a line in the log.
            Self::WrongRequest => (100, 10),
        };
        Allowance { burst, per_second }
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

/// Bytes that we send for each window update that we take without counting it.
const BYTES_PER_UPDATE: u32 = 512;

#[cfg(test)]
mod tests;
