//! Who owns whom, and the collection work that follows from writes.

use std::collections::{BTreeSet, HashMap};

use super::{Object, ObjectKey, ResourceKey};

/// The finalizer that keeps an owner until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that keeps an owner until its dependents no longer name it.
pub(crate) const ORPHAN: &str = "orphan";

/// A piece of work for the garbage collector. Doing one twice is harmless.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Objects name an owner that does not exist.
    AbsentOwner {
        /// The owner's UID.
        uid: String,
    },
    /// An owner waits for its dependents to be deleted or released.
    Owner {
        /// The owner's resource.
        resource: ResourceKey,
        /// The owner.
        key: ObjectKey,
    },
    /// A namespace is to be emptied.
    Namespace {
        /// Its name.
        name: String,
    },
    /// The objects of a custom resource are to be deleted with their definition.
    Definition {
        /// The definition's name.
        name: String,
    },
}

/// Lookup tables kept in step with every write. The queue holds each task once, so it is bounded
/// by the number of objects.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_uid: HashMap<String, (ResourceKey, ObjectKey)>,
    dependents: HashMap<String, BTreeSet<(ResourceKey, ObjectKey)>>,
    tasks: BTreeSet<Task>,
}

impl Index {
    pub(super) fn record(
        &mut self,
        resource: &ResourceKey,
        key: &ObjectKey,
        old: Option<&Object>,
        new: Option<&Object>,
    ) {
        if let Some(old) = old {
            self.forget_owners(resource, key, old);
        }
        match (old, new) {
            (_, Some(new)) => {
                self.by_uid.insert(new.uid().to_owned(), (resource.clone(), key.clone()));
                self.learn_owners(resource, key, new);
            }
            (Some(old), None) => {
                self.by_uid.remove(old.uid());
                if self.dependents.contains_key(old.uid()) {
                    self.tasks.insert(Task::AbsentOwner { uid: old.uid().to_owned() });
                }
            }
            (None, None) => {}
        }
    }

    fn forget_owners(&mut self, resource: &ResourceKey, key: &ObjectKey, object: &Object) {
        for uid in object.owner_uids() {
            if let Some(set) = self.dependents.get_mut(&uid) {
                set.remove(&(resource.clone(), key.clone()));
                if set.is_empty() {
                    self.dependents.remove(&uid);
                }
            }
        }
    }

    fn learn_owners(&mut self, resource: &ResourceKey, key: &ObjectKey, object: &Object) {
        for uid in object.owner_uids() {
            if !self.by_uid.contains_key(&uid) {
                self.tasks.insert(Task::AbsentOwner { uid: uid.clone() });
            }
            self.dependents.entry(uid).or_default().insert((resource.clone(), key.clone()));
        }
    }

    /// Queues what the deletion of `object`, if it has begun, still waits for.
    pub(super) fn queue_deleting(&mut self, resource: &ResourceKey, key: &ObjectKey, object: &Object) {
        if !object.is_deleting() {
            return;
        }
        if object.finalizers().any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN) {
            self.queue(Task::Owner { resource: resource.clone(), key: key.clone() });
        }
        if *resource == ResourceKey::namespaces() {
            self.queue(Task::Namespace { name: key.name().to_owned() });
        }
        if *resource == ResourceKey::definitions() {
            self.queue(Task::Definition { name: key.name().to_owned() });
        }
    }

    pub(super) fn queue(&mut self, task: Task) {
        self.tasks.insert(task);
    }

    pub(super) fn take_task(&mut self) -> Option<Task> {
        self.tasks.pop_first()
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<(ResourceKey, ObjectKey)> {
        self.dependents.get(uid).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn locate(&self, uid: &str) -> Option<(ResourceKey, ObjectKey)> {
        self.by_uid.get(uid).cloned()
    }

    pub(super) fn has_uid(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }
}
