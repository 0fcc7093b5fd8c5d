//! Small indexes: the answer to "who refers to this" without looking at everything.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::Labels;

/// Many values a key; no key without values.
#[derive(Clone, Debug)]
pub(super) struct MultiMap<K, V>(HashMap<K, BTreeSet<V>>);

impl<K, V> Default for MultiMap<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Ord> MultiMap<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.0.entry(key).or_default().insert(value);
    }

    pub(super) fn remove(&mut self, key: &K, value: &V) {
        if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Values of a key, in order.
    pub(super) fn of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> impl Iterator<Item = &V> + use<'_, K, V, Q>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key).into_iter().flatten()
    }

    /// Number of values of a key.
    pub(super) fn count(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }

    /// The first value of a key that is not less than `start`.
    pub(super) fn first_from(&self, key: &K, start: &V) -> Option<&V> {
        self.0.get(key)?.range(start..).next()
    }

    /// Every key, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

/// Names of objects by namespace and the first entry of their selector: a workload looks up each of its labels.
#[derive(Clone, Debug, Default)]
pub(super) struct SelectorIndex(MultiMap<SelectorEntry, Arc<str>>);

type SelectorEntry = (Arc<str>, Arc<str>, Arc<str>);

impl SelectorIndex {
    /// An object without selector, or with an empty one, selects nobody.
    pub(super) fn insert(&mut self, key: &NamespacedName, selector: Option<&Labels>) {
        if let Some(entry) = first_entry(key, selector) {
            self.0.insert(entry, key.name.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &NamespacedName, selector: Option<&Labels>) {
        if let Some(entry) = first_entry(key, selector) {
            self.0.remove(&entry, &key.name);
        }
    }

    /// Objects of a namespace whose selector may take these labels, each once.
    pub(super) fn candidates<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = NamespacedName> + 'a {
        let entries = labels.iter().map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        let names = entries.flat_map(|entry| self.0.of(&entry));
        names.map(|name| NamespacedName::new(namespace.clone(), name.clone()))
    }
}

fn first_entry(key: &NamespacedName, selector: Option<&Labels>) -> Option<SelectorEntry> {
    let (label, value) = selector?.iter().next()?;
    Some((key.namespace.clone(), label.clone(), value.clone()))
}
