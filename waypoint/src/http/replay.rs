//! What is kept of the body of a request, so that another attempt can send it again: as much as one request may have, and
//! no more than all requests of a worker may have together.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::limits::{REPLAY_BYTES_MAX, WORKER_REPLAY_BYTES_MAX};

/// What the requests of one worker keep, in bytes.
#[derive(Debug, Default)]
pub(crate) struct ReplayBudget(Cell<usize>);

/// What is kept of one request.
#[derive(Debug)]
pub(super) struct Replay {
    pieces: Vec<Bytes>,
    /// Short pieces, put together: each by itself would hold on to the whole buffer that it was read into.
    short: BytesMut,
    cost: usize,
    budget: Rc<ReplayBudget>,
}

/// There is no room for more.
#[derive(Debug)]
pub(super) struct Full;

impl Replay {
    pub(super) fn new(budget: Rc<ReplayBudget>) -> Self {
        Self { pieces: Vec::new(), short: BytesMut::new(), cost: 0, budget }
    }

    /// Keeps a piece, too.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn push(&mut self, data: &Bytes) -> Result<(), Full> {
        if data.is_empty() {
            return Ok(());
        }
        let is_short = data.len() < SHORT_BYTES;
        self.pay(if is_short { data.len() } else { data.len() + PIECE_COST })?;
        if is_short {
            self.short.extend_from_slice(data);
            if self.short.len() >= JOINED_BYTES {
                self.join();
            }
            return Ok(());
        }
        self.join();
        self.pieces.push(data.clone());
        Ok(())
    }

    /// Pieces that are whole; call [`Replay::join`] to have all.
    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Makes one piece of the short ones.
    pub(super) fn join(&mut self) {
        if !self.short.is_empty() {
            self.pieces.push(std::mem::take(&mut self.short).freeze());
        }
    }

    fn pay(&mut self, bytes: usize) -> Result<(), Full> {
        let (own, all) = (self.cost + bytes, self.budget.0.get() + bytes);
        if own > REPLAY_BYTES_MAX + PIECE_COST || all > WORKER_REPLAY_BYTES_MAX {
            return Err(Full);
        }
        self.cost = own;
        self.budget.0.set(all);
        Ok(())
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get().saturating_sub(self.cost));
    }
}

/// Shorter pieces are copied.
const SHORT_BYTES: usize = 1 << 10;
/// So many bytes of them make a piece.
const JOINED_BYTES: usize = 16 << 10;
/// What a piece costs beyond its bytes.
const PIECE_COST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pieces_come_out_as_they_went_in_but_fewer() {
        let budget = Rc::<ReplayBudget>::default();
        let mut replay = Replay::new(budget.clone());
        let mut expected = Vec::new();
        for n in 0..20_000_u32 {
            let piece = Bytes::from(vec![n as u8; 1 + n as usize % 3]);
            expected.extend_from_slice(&piece);
            replay.push(&piece).unwrap();
        }
        replay.push(&Bytes::from(vec![7; 5_000])).unwrap();
        expected.extend_from_slice(&[7; 5_000]);
        replay.push(&Bytes::from_static(b"end")).unwrap();
        expected.extend_from_slice(b"end");
        replay.join();
        assert!(replay.pieces().concat() == expected);
        assert!(replay.pieces().len() < 10, "{}", replay.pieces().len());
        drop(replay);
        assert_eq!(budget.0.get(), 0);
    }

    #[test]
    fn requests_share_the_bound_of_their_worker() {
        let budget = Rc::<ReplayBudget>::default();
        let big = Bytes::from(vec![0; REPLAY_BYTES_MAX]);
        let mut kept = Vec::new();
        let full = loop {
            let mut replay = Replay::new(budget.clone());
            match replay.push(&big) {
                Ok(()) => kept.push(replay),
                Err(Full) => break replay,
            }
            assert!(kept.len() <= 1_000, "there is no bound");
        };
        assert_eq!(kept.len(), WORKER_REPLAY_BYTES_MAX / (REPLAY_BYTES_MAX + PIECE_COST));
        drop(full);
        kept.pop();
        Replay::new(budget).push(&big).unwrap();
    }

    #[test]
    fn one_request_has_a_bound_however_it_is_cut() {
        for size in [1, 500, 2_000] {
            let mut replay = Replay::new(Rc::default());
            let piece = Bytes::from(vec![0; size]);
            let mut bytes = 0;
            while replay.push(&piece).is_ok() {
                bytes += size;
            }
            assert!(bytes <= REPLAY_BYTES_MAX + PIECE_COST && bytes > REPLAY_BYTES_MAX / 10 * 9, "{size}: {bytes}");
        }
    }
}
