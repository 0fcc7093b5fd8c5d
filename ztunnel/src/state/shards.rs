//! A persistent hash map: a clone shares everything, a change copies one shard.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// A map that is cheap to clone and cheap to change a little after that.
#[derive(Clone, Debug)]
pub(crate) struct Shards<K, V> {
    shards: Box<[Arc<HashMap<K, V>>]>,
    hasher: RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashMap::new());
        Self { shards: std::iter::repeat_n(empty, SHARDS).collect(), hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards.get(self.index(key))?.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.shard(&key).insert(key, value)
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // Looked up first: removing what is not there must not copy the shard.
        self.get(key)?;
        let shard = self.shard(key);
        let removed = shard.remove(key);
        if shard.is_empty() {
            // Keys come and go in other shards each time: in the end each would keep a table for nobody.
            shard.shrink_to_fit();
        }
        removed
    }

    /// The value of `key`, made when there is none, to be changed in place.
    pub(crate) fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.shard(&key).entry(key).or_default()
    }

    /// The value of `key`, to be changed in place.
    pub(crate) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key)?;
        self.shard(key).get_mut(key)
    }

    /// In no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    fn shard<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut HashMap<K, V> {
        let index = self.index(key);
        let shard = self.shards.get_mut(index).expect("an index below the number of shards");
        Arc::make_mut(shard)
    }

    fn index<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The remainder is below SHARDS, so that neither conversion loses anything.
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default()
    }
}

/// Pieces of a map: with 10,000 workloads an update copies about 80 pointers, and a snapshot of
/// all maps takes a thousand reference counts.
const SHARDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_shard_that_is_empty_keeps_no_table() {
        let mut shards = Shards::default();
        for key in 0..1000 {
            shards.insert(key, key);
            shards.remove(&key);
        }
        assert!(shards.shards.iter().all(|shard| shard.capacity() == 0));
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_and_leaves_clones_alone(ops in proptest::collection::vec((0_u16..50, any::<Option<u8>>()), 0..200)) {
            let (mut shards, mut model) = (Shards::default(), HashMap::new());
            let mut old = Vec::new();
            for (key, value) in ops {
                old.push((shards.clone(), model.clone()));
                match value {
                    Some(value) => prop_assert_eq!(shards.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(shards.remove(&key), model.remove(&key)),
                }
            }
            old.push((shards, model));
            for (shards, model) in old {
                prop_assert_eq!(shards.len(), model.len());
                let all: HashMap<u16, u8> = shards.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(all, model);
            }
        }
    }
}
