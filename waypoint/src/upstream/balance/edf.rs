//! Weighted round robin: whose turn comes first, goes first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule in which each position comes up in proportion to its weight, as evenly spread as can be.
#[derive(Debug, Default)]
pub(crate) struct Edf {
    turns: BinaryHeap<Turn>,
    now: f64,
    order: u64,
}

#[derive(Debug)]
struct Turn {
    at: f64,
    order: u64,
    position: u32,
}

impl Edf {
    /// A schedule over `weights`, which start at a place that `phase` (0 to 1 for each) tells.
    pub(crate) fn new(weights: impl Iterator<Item = f64>, mut phase: impl FnMut() -> f64) -> Self {
        let mut edf = Self::default();
        for (position, weight) in (0..).zip(weights) {
            edf.push(position, phase() / weight.max(WEIGHT_MIN));
        }
        edf
    }

    /// The position whose turn it is. `weight` tells what it weighs from now on.
    pub(crate) fn pick(&mut self, weight: impl Fn(u32) -> f64) -> Option<u32> {
        let turn = self.turns.pop()?;
        self.now = turn.at;
        self.push(turn.position, turn.at + 1.0 / weight(turn.position).max(WEIGHT_MIN));
        Some(turn.position)
    }

    fn push(&mut self, position: u32, at: f64) {
        self.order += 1;
        self.turns.push(Turn { at, order: self.order, position });
    }
}

impl Ord for Turn {
    /// The heap gives the greatest: the earliest turn, and of equals the one that waits longest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

/// No weight is zero: that would be a turn that never comes.
const WEIGHT_MIN: f64 = 1e-6;
