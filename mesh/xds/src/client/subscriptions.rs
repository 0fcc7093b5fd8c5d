//! Which resources are followed by name, where not all of a type are wanted. The set may change while streams come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Names that are followed, by type. Cheap to clone; clones share the names.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    wanted: Mutex<BTreeMap<String, Wanted>>,
    changed: Notify,
}

/// What is wanted of one type.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Names of resources, aliases or groups.
    pub(super) names: BTreeSet<Arc<str>>,
    /// Resources that came because of other names and are no longer wanted.
    pub(super) released: BTreeSet<Arc<str>>,
    dirty: bool,
}

impl Subscriptions {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows exactly these names of a type from now on. Those that are new are answered, absent ones as removed; those
    /// that are left out are no longer followed, which is not answered.
    pub fn set(&self, type_url: &str, names: BTreeSet<Arc<str>>) {
        let mut all = self.lock();
        let wanted = all.entry(type_url.to_owned()).or_default();
        if wanted.names != names {
            wanted.names = names;
            wanted.dirty = true;
            self.inner.changed.notify_one();
        }
    }

    /// Resources that nobody needs any more, although they were sent: members of groups that are no longer followed, or
    /// what was asked for once. They are not claimed to be known when the next stream begins.
    pub fn release(&self, type_url: &str, names: impl IntoIterator<Item = Arc<str>>) {
        let mut all = self.lock();
        let wanted = all.entry(type_url.to_owned()).or_default();
        let before = wanted.released.len();
        wanted.released.extend(names);
        if wanted.released.len() != before {
            wanted.dirty = true;
            self.inner.changed.notify_one();
        }
    }

    /// Waits until [`Subscriptions::take`] has something.
    pub(super) async fn changed(&self) {
        loop {
            // Made before the look, so that a change in between is not missed.
            let notified = self.inner.changed.notified();
            if self.lock().values().any(|wanted| wanted.dirty) {
                return;
            }
            notified.await;
        }
    }

    /// What changed since the last time, by type.
    pub(super) fn take(&self) -> Vec<(String, Wanted)> {
        let mut all = self.lock();
        let dirty = all.iter_mut().filter(|(_, wanted)| wanted.dirty);
        let taken = dirty.map(|(type_url, wanted)| {
            wanted.dirty = false;
            let released = std::mem::take(&mut wanted.released);
            (type_url.clone(), Wanted { names: wanted.names.clone(), released, dirty: false })
        });
        taken.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Wanted>> {
        self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    #[tokio::test]
    async fn only_what_changed_is_told_and_only_once() {
        let subscriptions = Subscriptions::new();
        subscriptions.set("t", names(&["a"]));
        subscriptions.set("u", names(&["x"]));
        subscriptions.changed().await;
        assert_eq!(subscriptions.take().len(), 2);
        subscriptions.set("t", names(&["a"]));
        assert!(futures::poll!(std::pin::pin!(subscriptions.changed())).is_pending());
        subscriptions.release("t", [Arc::from("m")]);
        subscriptions.changed().await;
        let taken = subscriptions.take();
        let [(url, wanted)] = taken.as_slice() else { panic!("{taken:?}") };
        assert_eq!((url.as_str(), &wanted.names, &wanted.released), ("t", &names(&["a"]), &names(&["m"])));
        assert!(subscriptions.take().is_empty());
    }
}
