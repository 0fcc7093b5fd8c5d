//! Consistent hashing with a table.
//!
//! # Source
//! "Maglev: a fast and reliable software network load balancer", section 3.4; weights by how often members take turns.

use twox_hash::XxHash64;

use super::Member;

/// Which position each slot belongs to.
#[derive(Debug)]
pub(crate) struct Maglev {
    slots: Vec<u32>,
}

struct Filler {
    position: u32,
    weight: u64,
    /// Takes its next turn when the round's weight reaches this.
    due: u64,
    slot: usize,
    skip: usize,
}

impl Maglev {
    /// A table of `size` slots, which must be prime.
    pub(crate) fn new(members: &[Member], size: usize) -> Self {
        let mut fillers: Vec<_> = (0_u32..)
            .zip(members)
            .filter(|(_, member)| member.weight > 0)
            .map(|(position, member)| Filler::new(position, member, size))
            .collect();
        if fillers.is_empty() {
            return Self { slots: Vec::new() };
        }
        // Independent of the order in which members come.
        fillers.sort_by_key(|filler| (filler.slot, filler.skip));
        let heaviest = fillers.iter().map(|filler| filler.weight).max().unwrap_or(1);
        let mut slots = vec![FREE; size];
        let mut filled = 0;
        let mut round = 0;
        while filled < size {
            round += 1;
            for filler in &mut fillers {
                if filled == size {
                    break;
                }
                if round * filler.weight < filler.due {
                    continue;
                }
                filler.due += heaviest;
                filler.take_free_slot(&mut slots);
                filled += 1;
            }
        }
        Self { slots }
    }

    /// From the slot of `hash` on, the first usable position.
    pub(crate) fn find(&self, hash: u64, usable: impl Fn(u32) -> bool) -> Option<u32> {
        let size = u64::try_from(self.slots.len()).ok().filter(|size| *size > 0)?;
        let start = usize::try_from(hash % size).ok()?;
        let (before, after) = self.slots.split_at_checked(start)?;
        after.iter().chain(before).copied().find(|position| usable(*position))
    }
}

impl Filler {
    fn new(position: u32, member: &Member, size: usize) -> Self {
        let within = |seed: u64, size: usize| {
            let hash = XxHash64::oneshot(seed, member.key.as_bytes());
            usize::try_from(hash % (size as u64)).unwrap_or(0)
        };
        let skip = within(1, size.saturating_sub(1).max(1)) + 1;
        Self { position, weight: u64::from(member.weight), due: 0, slot: within(0, size.max(1)), skip }
    }

    /// There is one: the size is prime, so that the steps come by every slot.
    fn take_free_slot(&mut self, slots: &mut [u32]) {
        for _ in 0..slots.len() {
            let at = self.slot;
            self.slot = (self.slot + self.skip) % slots.len();
            if let Some(slot) = slots.get_mut(at).filter(|slot| **slot == FREE) {
                *slot = self.position;
                return;
            }
        }
    }
}

/// Whether a table may have this many slots.
pub(crate) fn is_prime(number: u64) -> bool {
    let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.into_iter().all(|divisor| !number.is_multiple_of(divisor))
}

const FREE: u32 = u32::MAX;
