//! Values in numbered places that are used again. Gives memory back when many of them are gone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Places are filled from the lowest, so that a table that has shrunk is short again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    /// Some of them may lie beyond the end of `places` by now.
    free: BinaryHeap<Reverse<usize>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: BinaryHeap::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> usize {
        while let Some(Reverse(index)) = self.free.pop() {
            if let Some(place) = self.places.get_mut(index) {
                *place = Some(value);
                return index;
            }
        }
        self.places.push(Some(value));
        self.places.len() - 1
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.places.get_mut(index)?.as_mut()
    }

    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let removed = self.places.get_mut(index)?.take()?;
        self.free.push(Reverse(index));
        while self.places.last().is_some_and(Option::is_none) {
            self.places.pop();
        }
        if self.places.is_empty() {
            self.free.clear();
        }
        if self.places.capacity() > KEPT && self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to(self.places.len() * 2);
            self.free.shrink_to_fit();
        }
        Some(removed)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// Up to `max` places from `from` on, and where to go on; `None` at the end.
    pub(crate) fn from(&self, from: usize, max: usize) -> (impl Iterator<Item = &T>, Option<usize>) {
        let to = from.saturating_add(max).min(self.places.len());
        let piece = self.places.get(from..to).unwrap_or_default();
        (piece.iter().flatten(), (to < self.places.len()).then_some(to))
    }
}

/// Room that is kept, in places.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_map_of_what_was_inserted(ops in proptest::collection::vec(any::<Option<prop::sample::Index>>(), 0..400)) {
            let (mut slab, mut model) = (Slab::default(), std::collections::BTreeMap::new());
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Some(index) if !model.is_empty() => {
                        let at = *index.get(&model.keys().copied().collect::<Vec<_>>());
                        prop_assert_eq!(slab.remove(at), model.remove(&at));
                        prop_assert_eq!(slab.remove(at), None);
                    }
                    _ => {
                        let at = slab.insert(n);
                        prop_assert!(model.insert(at, n).is_none(), "place {} was taken", at);
                    }
                }
                prop_assert_eq!(slab.iter().collect::<Vec<_>>(), model.values().collect::<Vec<_>>());
            }
            let (mut walked, mut next) = (Vec::new(), Some(0));
            while let Some(from) = next {
                let (piece, more) = slab.from(from, 7);
                walked.extend(piece.copied());
                next = more;
            }
            prop_assert_eq!(walked, model.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut slab = Slab::default();
        let all: Vec<_> = (0..10_000).map(|n| slab.insert(n)).collect();
        for index in all {
            slab.remove(index);
        }
        assert!(slab.places.capacity() <= KEPT && slab.free.is_empty(), "{}", slab.places.capacity());
    }
}
