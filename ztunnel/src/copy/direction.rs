//! One direction of a connection.
//!
//! ```text
//!  Copying --end of data or read failed--> Draining --all written--> Closing --writer closed--> Ended
//!     |                                       |                        ^
//!     +--write failed-------------------------+------------------------+
//! ```

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::side::{FRAMES_PER_UNIT, SMALL_BYTES, Side, poll_pay, push};
use crate::limits::PENDING_BYTES_MAX;

/// State of one direction; the two sides belong to the relay.
#[derive(Default)]
pub(super) struct Direction {
    stage: Stage,
    /// Read and not yet written.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    written: u64,
    failure: Option<io::Error>,
    source_lost: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Copying,
    /// The source has ended; what is pending is still to be written.
    Draining,
    Closing,
    Ended,
}

impl Direction {
    /// Moves bytes until neither side can go on, or the direction has ended. It is the `last` one if the other has
    /// ended well.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Side,
        to: &mut impl Side,
        last: bool,
    ) -> Poll<()> {
        loop {
            match self.stage {
                Stage::Copying => match ready!(self.poll_copy(cx, from, to)) {
                    Ok(()) => self.stage = Stage::Draining,
                    Err(error) => self.fail(error),
                },
                Stage::Draining => match ready!(self.poll_drain(cx, from, to)) {
                    Ok(()) => self.stage = Stage::Closing,
                    Err(error) => self.fail(error),
                },
                Stage::Closing => {
                    if let Err(error) = ready!(to.poll_finish(cx, last)) {
                        self.failure.get_or_insert(error);
                    }
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(()),
            }
        }
    }

    /// Counts what was written before the relay began.
    pub(super) fn begin_at(&mut self, written: u64) {
        self.written = written;
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether it has ended, with all that the source had to say.
    pub(super) fn ended_well(&self) -> bool {
        self.stage == Stage::Ended && self.failure.is_none()
    }

    /// The source failed rather than ended: it takes no bytes any more, either.
    pub(super) fn source_lost(&self) -> bool {
        self.source_lost
    }

    /// Whether either of its ends has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Gives up what is pending: the writer is known to be gone.
    pub(super) fn abandon(&mut self) {
        if matches!(self.stage, Stage::Copying | Stage::Draining) {
            self.fail(io::ErrorKind::ConnectionReset.into());
        }
    }

    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Ready when the source has no more.
    fn poll_copy(&mut self, cx: &mut Context<'_>, from: &mut impl Side, to: &mut impl Side) -> Poll<io::Result<()>> {
        let mut small = 0;
        loop {
            let read = match self.pending_bytes < PENDING_BYTES_MAX {
                true => from.poll_read(cx),
                false => Poll::Pending,
            };
            let read = match read {
                Poll::Ready(Err(error)) => {
                    // What came before the loss is still passed on, as a kernel would hand it to a reader.
                    self.source_lost = true;
                    self.failure = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(bytes)) => Poll::Ready(bytes),
                Poll::Pending => Poll::Pending,
            };
            match read {
                Poll::Ready(Some(bytes)) => {
                    small += usize::from(bytes.len() < SMALL_BYTES);
                    self.pending_bytes += bytes.len();
                    push(&mut self.pending, bytes);
                    // More may be there already: one large write is cheaper than several small ones.
                    let more = self.pending_bytes < PENDING_BYTES_MAX && self.pending.len() < GATHER_MAX;
                    let may = small < FRAMES_PER_UNIT || poll_pay(cx).is_ready();
                    small %= FRAMES_PER_UNIT;
                    if more && may {
                        continue;
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if self.pending.is_empty() => {
                    // Idle: keep no memory. The writer's end may be found out without writing.
                    self.pending = VecDeque::new();
                    return to.poll_refused(cx).map(Err);
                }
                Poll::Pending => {}
            }
            if self.poll_drain(cx, from, to)?.is_pending() {
                self.pending_bytes += from.poll_hoard(cx, &mut self.pending);
                return Poll::Pending;
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, from: &mut impl Side, to: &mut impl Side) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(to.poll_write(cx, &mut self.pending))?;
            self.pending_bytes = self.pending_bytes.saturating_sub(written);
            self.written += written as u64;
            from.passed_on(written);
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, error: io::Error) {
        self.failure = Some(error);
        self.pending = VecDeque::new();
        self.pending_bytes = 0;
        self.stage = Stage::Closing;
    }
}

/// Reads gathered for one write.
const GATHER_MAX: usize = 32;
