//! Turning a random number into a choice, without bias.

use std::time::Duration;

/// Whether `random`, drawn evenly from all 64-bit numbers, falls into the first `share` millionths.
#[must_use]
pub fn per_million(random: u64, share: u32) -> bool {
    below(random, 1_000_000) < u64::from(share)
}

/// A share in millionths, for people: `12.5%`.
#[must_use]
pub fn percent(share: u32) -> String {
    format!("{}%", f64::from(share) / 10_000.0)
}

/// A number evenly below `end`; zero when `end` is.
pub(crate) fn below(random: u64, end: u64) -> u64 {
    let scaled = (u128::from(random) * u128::from(end)) >> 64;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// A duration evenly in `[from, to]`.
pub(crate) fn between(random: u64, from: Duration, to: Duration) -> Duration {
    let span = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
    from.saturating_add(Duration::from_nanos(below(random, span)))
}

/// A second number from the first, for a decision that has nothing to do with the first one (the finaliser of
/// SplitMix64, a permutation of all 64-bit numbers).
pub(crate) fn next(random: u64) -> u64 {
    let mut mixed = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
