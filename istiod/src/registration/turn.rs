//! Who comes next, where there are more than one round has room for. Pure.

use std::collections::BTreeMap;

/// Goes round: each round begins behind whoever came last in the one before, so that everybody comes.
#[derive(Debug)]
pub(super) struct Turn<K> {
    /// Who came last.
    last: Option<K>,
}

impl<K> Default for Turn<K> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<K: Ord + Clone> Turn<K> {
    /// Those of this round, at most so many.
    pub(super) fn next<V>(&mut self, mut all: BTreeMap<K, V>, max: usize) -> Vec<(K, V)> {
        let mut behind = BTreeMap::new();
        if let Some(last) = &self.last {
            behind = all.split_off(last);
            // Who came last comes after everybody else.
            all.extend(behind.remove_entry(last));
        }
        let round: Vec<_> = behind.into_iter().chain(all).take(max).collect();
        if let Some((last, _)) = round.last() {
            self.last = Some(last.clone());
        }
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(turn: &mut Turn<u32>, all: &[u32], max: usize) -> Vec<u32> {
        let all = all.iter().map(|one| (*one, ())).collect();
        turn.next(all, max).into_iter().map(|(one, ())| one).collect()
    }

    #[test]
    fn everybody_comes_also_where_some_stay_for_ever() {
        let mut turn = Turn::default();
        assert_eq!(round(&mut turn, &[1, 2, 3, 4, 5], 2), [1, 2]);
        assert_eq!(round(&mut turn, &[1, 2, 3, 4, 5], 2), [3, 4]);
        assert_eq!(round(&mut turn, &[1, 2, 3, 4, 5], 2), [5, 1]);
        assert_eq!(round(&mut turn, &[2, 3], 2), [2, 3], "who came last is gone");
        assert_eq!(round(&mut turn, &[], 2), [0; 0]);
        assert_eq!(round(&mut turn, &[1, 2, 3], 5), [1, 2, 3], "nobody comes twice");
    }
}
