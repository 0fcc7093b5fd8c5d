//! How traffic is spread over priority levels by their health. Pure.

/// Health of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelHealth {
    pub(super) healthy: u32,
    pub(super) total: u32,
}

/// What a level gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelShare {
    /// Of 100; all shares sum to 100 or to 0.
    pub(super) percent: u32,
    /// Too few are healthy: all of its endpoints are used.
    pub(super) panic: bool,
}

/// Shares of the levels, the preferred one first. `panic_below` is a percentage of healthy endpoints; zero: no panic.
pub(super) fn shares(levels: &[LevelHealth], panic_below: u32) -> Vec<LevelShare> {
    let availability: Vec<_> = levels.iter().map(availability).collect();
    let sum: u32 = availability.iter().sum();
    // Several levels that can carry everything between them need no panic.
    let may_panic = panic_below > 0 && (sum < 100 || levels.len() == 1);
    let panics = |level: &LevelHealth| may_panic && level.total > 0 && level.healthy * 100 < panic_below * level.total;
    let percents = match sum {
        0 => by_size(levels, panics),
        1..100 => normalised(&availability, sum),
        _ => spill_over(&availability),
    };
    let share = |(level, percent): (&LevelHealth, u32)| LevelShare { percent, panic: panics(level) };
    levels.iter().zip(percents).map(share).collect()
}

/// More than needed: seven in ten healthy endpoints carry all of a level's traffic.
fn availability(level: &LevelHealth) -> u32 {
    let percent = (OVERPROVISIONING_PERCENT * level.healthy).checked_div(level.total);
    percent.map_or(0, |percent| percent.min(100))
}

fn spill_over(availability: &[u32]) -> Vec<u32> {
    let mut left = 100;
    let mut take = |percent: &u32| {
        let taken = left.min(*percent);
        left -= taken;
        taken
    };
    availability.iter().map(&mut take).collect()
}

fn normalised(availability: &[u32], sum: u32) -> Vec<u32> {
    let mut percents: Vec<_> = availability.iter().map(|percent| percent * 100 / sum).collect();
    let missing = 100 - percents.iter().sum::<u32>();
    if let Some(first) = percents.iter_mut().find(|percent| **percent > 0) {
        *first += missing;
    }
    percents
}

/// Nobody is healthy: those in panic share by their number.
fn by_size(levels: &[LevelHealth], panics: impl Fn(&LevelHealth) -> bool) -> Vec<u32> {
    let sizes: Vec<_> = levels.iter().map(|level| if panics(level) { level.total } else { 0 }).collect();
    let sum: u32 = sizes.iter().sum();
    if sum == 0 {
        return vec![0; levels.len()];
    }
    normalised(&sizes, sum)
}

/// Factor 1.4.
const OVERPROVISIONING_PERCENT: u32 = 140;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percents(levels: &[(u32, u32)], panic_below: u32) -> Vec<(u32, bool)> {
        let levels: Vec<_> =
            levels.iter().map(|(healthy, total)| LevelHealth { healthy: *healthy, total: *total }).collect();
        shares(&levels, panic_below).into_iter().map(|share| (share.percent, share.panic)).collect()
    }

    #[test]
    fn resilience_row_5_four_of_ten_local_endpoints_keep_56_percent() {
        assert_eq!(percents(&[(4, 10), (10, 10)], 0), [(56, false), (44, false)]);
    }

    #[test]
    fn resilience_row_16_without_healthy_endpoints_there_is_no_share_and_no_panic() {
        assert_eq!(percents(&[(0, 10)], 0), [(0, false)]);
        assert_eq!(percents(&[(0, 10), (0, 2)], 0), [(0, false), (0, false)]);
        assert_eq!(percents(&[], 0), []);
    }

    #[test]
    fn health_spills_over() {
        assert_eq!(percents(&[(10, 10), (10, 10)], 0), [(100, false), (0, false)]);
        assert_eq!(percents(&[(8, 10), (10, 10)], 0), [(100, false), (0, false)], "overprovisioned");
        assert_eq!(percents(&[(5, 10), (10, 10)], 0), [(70, false), (30, false)]);
        assert_eq!(percents(&[(2, 10), (2, 10)], 0), [(50, false), (50, false)], "normalised");
        assert_eq!(percents(&[(0, 10), (1, 10)], 0), [(0, false), (100, false)]);
        assert_eq!(percents(&[(0, 0), (1, 10)], 0), [(0, false), (100, false)]);
    }

    #[test]
    fn panic_uses_everybody_of_a_level() {
        assert_eq!(percents(&[(4, 10)], 50), [(100, true)]);
        assert_eq!(percents(&[(5, 10)], 50), [(100, false)]);
        assert_eq!(percents(&[(0, 10)], 50), [(100, true)]);
        assert_eq!(percents(&[(0, 3), (0, 1)], 50), [(75, true), (25, true)]);
        assert_eq!(percents(&[(4, 10), (10, 10)], 50), [(56, false), (44, false)], "others carry the rest");
    }

    proptest! {
        #[test]
        fn shares_sum_to_all_or_nothing(levels in prop::collection::vec((0_u32..20, 0_u32..20), 0..6), panic in 0_u32..101) {
            let levels: Vec<_> = levels.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let shares = percents(&levels, panic);
            let sum: u32 = shares.iter().map(|(percent, _)| percent).sum();
            let anybody = levels.iter().any(|(healthy, _)| *healthy > 0) || shares.iter().any(|(_, panic)| *panic);
            prop_assert_eq!(sum, if anybody { 100 } else { 0 });
            for ((healthy, _), (percent, panic)) in levels.iter().zip(&shares) {
                prop_assert!(*percent == 0 || *healthy > 0 || *panic);
            }
        }
    }
}
