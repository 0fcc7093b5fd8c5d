//! Balancing algorithms over the positions of a list. Pure: weights, loads and random numbers come in as values.

mod edf;
mod maglev;
mod ring;

use super::random::Random;

pub(super) use edf::Edf;
pub(super) use maglev::{Maglev, is_prime};
pub(super) use ring::Ring;

/// Two different positions are drawn, and the one with less to do is taken; the first of equals.
pub(super) fn less_busy_of_two(count: u32, random: &Random, active: impl Fn(u32) -> u32) -> Option<u32> {
    if count < 2 {
        return (count == 1).then_some(0);
    }
    let first = random.below(count);
    let second = (first + 1 + random.below(count - 1)) % count;
    Some(if active(second) < active(first) { second } else { first })
}

/// A table that maps hashes to positions; positions that cannot be used are passed over.
#[derive(Debug)]
pub(super) enum HashTable {
    /// Points on a ring.
    Ring(Ring),
    /// Slots of a table.
    Maglev(Maglev),
}

impl HashTable {
    /// The first usable position for `hash`.
    pub(super) fn find(&self, hash: u64, usable: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Self::Ring(ring) => ring.find(hash, usable),
            Self::Maglev(maglev) => maglev.find(hash, usable),
        }
    }
}

/// One candidate of a hash table.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// What its points are made of: `address:port`.
    pub(super) key: String,
    /// Its share.
    pub(super) weight: u32,
}

#[cfg(test)]
mod tests;
