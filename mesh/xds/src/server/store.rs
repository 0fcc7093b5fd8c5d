//! The resources of each type and the names they answer to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::resource::Resource;

/// One type that the server offers.
#[derive(Debug, Clone, Copy)]
pub struct TypeSpec {
    /// Its type URL.
    pub url: &'static str,
    /// Where its resources come from.
    pub backing: Backing,
    /// Type that a client should have been answered before this one, when it asks for both: what resources of this
    /// type refer to. The answer waits for it a short while.
    pub after: Option<&'static str>,
}

/// Where the resources of a type come from.
#[derive(Debug, Clone, Copy)]
pub enum Backing {
    /// Published under this very type.
    Own,
    /// Those of another type that `project` accepts, with the body it returns.
    View {
        /// Type URL of the other type.
        of: &'static str,
        /// Body under this type, or none when the resource has no place in it.
        project: fn(&Resource) -> Option<Bytes>,
    },
}

/// Resources of one type that is [`Backing::Own`].
#[derive(Debug, Default)]
pub(super) struct Collection {
    /// By name, those that are no groups; and those that are.
    singles: BTreeMap<Arc<str>, Arc<Resource>>,
    groups: BTreeMap<Arc<str>, Arc<Resource>>,
    /// How many of them are not for everybody.
    restricted: usize,
    /// All of them, put together when somebody asks for all.
    whole: OnceLock<Whole>,
    by_alias: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    by_group: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    by_node: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// All resources of a type in the order in which they are sent. Every client that is sent all of them shares it: a thousand
/// proxies that come at once do not cost a thousand lists.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    pub(super) resources: Arc<[Arc<Resource>]>,
    /// Their length within a response.
    pub(super) bytes: usize,
}

impl Collection {
    pub(super) fn len(&self) -> usize {
        self.singles.len() + self.groups.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.singles.get(name).or_else(|| self.groups.get(name))
    }

    /// All of them, in the order in which they are sent.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.singles.values().chain(self.groups.values())
    }

    /// All of them, which have that length within a response; none where not everybody may have everything.
    pub(super) fn whole(&self, length: impl FnOnce(&[Arc<Resource>]) -> usize) -> Option<Whole> {
        if self.restricted > 0 {
            return None;
        }
        let whole = self.whole.get_or_init(|| {
            let resources: Arc<[_]> = self.all().cloned().collect();
            let bytes = length(&resources);
            Whole { resources, bytes }
        });
        Some(whole.clone())
    }

    pub(super) fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<Resource>> {
        self.named(self.by_node.get(node))
    }

    /// What a key stands for: a primary name, an alias, and the members of the groups found.
    ///
    /// An alias that leads to members leads to no group: an address of a workload is never taken for a service's.
    pub(super) fn lookup(&self, key: &str) -> Vec<Arc<Resource>> {
        let mut found: Vec<_> = match self.get(key) {
            Some(resource) => vec![resource.clone()],
            None => self.named(self.by_alias.get(key)).cloned().collect(),
        };
        if found.iter().any(|resource| !resource.is_group) {
            found.retain(|resource| !resource.is_group);
        }
        let groups: Vec<_> = found.iter().filter(|one| one.is_group).map(|one| one.name.clone()).collect();
        for group in groups {
            found.extend(self.named(self.by_group.get(&group)).cloned());
        }
        found
    }

    /// Puts in, replaces or (`None`) takes out the resource of a name.
    pub(super) fn set(&mut self, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        self.whole.take();
        if let Some(old) = self.singles.remove(name).or_else(|| self.groups.remove(name)) {
            self.restricted -= usize::from(old.audience.is_some());
            self.unindex(&old);
        }
        if let Some(new) = resource {
            self.restricted += usize::from(new.audience.is_some());
            for alias in &new.aliases {
                self.by_alias.entry(alias.clone()).or_default().insert(new.name.clone());
            }
            for group in &new.groups {
                self.by_group.entry(group.clone()).or_default().insert(new.name.clone());
            }
            if let Some(node) = &new.node {
                self.by_node.entry(node.clone()).or_default().insert(new.name.clone());
            }
            let place = if new.is_group { &mut self.groups } else { &mut self.singles };
            place.insert(new.name.clone(), new);
        }
    }

    fn unindex(&mut self, old: &Resource) {
        for alias in &old.aliases {
            remove(&mut self.by_alias, alias, &old.name);
        }
        for group in &old.groups {
            remove(&mut self.by_group, group, &old.name);
        }
        if let Some(node) = &old.node {
            remove(&mut self.by_node, node, &old.name);
        }
    }

    fn named<'a>(&'a self, names: Option<&'a BTreeSet<Arc<str>>>) -> impl Iterator<Item = &'a Arc<Resource>> {
        names.into_iter().flatten().filter_map(|name| self.get(name))
    }
}

fn remove(index: &mut HashMap<Arc<str>, BTreeSet<Arc<str>>>, key: &str, name: &Arc<str>) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}
