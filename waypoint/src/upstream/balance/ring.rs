//! Consistent hashing on a ring.
//!
//! # Source
//! Ketama: each member has points on the ring in proportion to its weight; a key belongs to the next point.

use twox_hash::XxHash64;

use super::Member;

/// Points in order of their hashes.
#[derive(Debug)]
pub(crate) struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring of at least `size_min` points, as far as [`RING_POINTS_MAX`] allows; members without weight have none.
    pub(crate) fn new(members: &[Member], size_min: u64) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let least = members.iter().map(|member| member.weight).filter(|weight| *weight > 0).min();
        let (Some(least), true) = (least, total > 0) else {
            return Self { points: Vec::new() };
        };
        let size = size(size_min, f64::from(least) / total as f64);
        let mut points = Vec::new();
        let mut wanted = 0.0;
        for (position, member) in (0_u32..).zip(members) {
            wanted += size * f64::from(member.weight) / total as f64;
            let mut number = 0;
            // One part in a million absorbs the rounding of the sum.
            while (points.len() as f64) + 1e-6 < wanted {
                let text = format!("{}_{number}", member.key);
                points.push((XxHash64::oneshot(0, text.as_bytes()), position));
                number += 1;
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// Clockwise from `hash`, the first usable position.
    pub(crate) fn find(&self, hash: u64, usable: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.points.split_at_checked(start)?;
        after.iter().chain(before).map(|(_, position)| *position).find(|position| usable(*position))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }
}

/// Points of a ring whose lightest member has this share.
///
/// That member has a whole number of points, so that equal weights have equal shares; and a number that does not depend
/// on how many others there are as far as that can be had, so that keys do not move between members that stay.
fn size(size_min: u64, least_share: f64) -> f64 {
    let needed = (least_share * size_min as f64).ceil();
    let steady = (needed as u64).next_power_of_two().max(MEMBER_POINTS_MIN) as f64;
    let points = if steady / least_share <= STEADY_POINTS_MAX.max(size_min) as f64 { steady } else { needed };
    (points / least_share).min(RING_POINTS_MAX as f64)
}

/// Points of the lightest member, as long as the ring stays small.
const MEMBER_POINTS_MIN: u64 = 512;
/// A ring stays small up to here, unless a larger one is asked for.
const STEADY_POINTS_MAX: u64 = 256 << 10;
/// Upper bound of a ring, whatever is configured: 16 bytes each.
const RING_POINTS_MAX: u64 = 8 << 20;
