//! Hostnames: one may be claimed by several objects, and one of them is published in each namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::settings::Visibility;
use super::{Service, ServiceEntry, World};

/// A service as it is known on the wire: `namespace/hostname`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostKey {
    /// Namespace of the object that gives the service.
    pub namespace: Arc<str>,
    /// Its DNS name; may start with `*.`.
    pub hostname: Arc<str>,
}

impl HostKey {
    /// Puts a key together from its parts.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, hostname: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), hostname: hostname.into() }
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What gives a service its hostname. The order is the precedence: a Kubernetes Service before any ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostSource {
    /// A Kubernetes Service.
    Service(NamespacedName),
    /// A ServiceEntry.
    Entry(NamespacedName),
}

impl HostSource {
    /// Name of the object.
    pub fn key(&self) -> &NamespacedName {
        match self {
            Self::Service(key) | Self::Entry(key) => key,
        }
    }
}

/// The object that is published for a hostname in its namespace.
#[derive(Clone, Copy, Debug)]
pub enum Winner<'a> {
    /// A Kubernetes Service.
    Service(&'a Arc<Service>),
    /// A ServiceEntry.
    Entry(&'a Arc<ServiceEntry>),
}

/// Who claims which hostname.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(BTreeMap<Arc<str>, BTreeSet<HostSource>>);

impl Hosts {
    pub(super) fn insert(&mut self, host: Arc<str>, source: HostSource) {
        self.0.entry(host).or_default().insert(source);
    }

    pub(super) fn remove(&mut self, host: &Arc<str>, source: &HostSource) {
        if let Some(sources) = self.0.get_mut(host) {
            sources.remove(source);
            if sources.is_empty() {
                self.0.remove(host);
            }
        }
    }

    /// Every hostname, with everyone who claims it.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeSet<HostSource>)> {
        self.0.iter()
    }

    /// Everyone who claims a hostname, Services first.
    pub(super) fn of(&self, host: &str) -> impl Iterator<Item = &HostSource> {
        self.0.get(host).into_iter().flatten()
    }
}

impl World {
    /// Everyone who claims a hostname, wherever.
    pub fn claims(&self, hostname: &str) -> impl Iterator<Item = &HostSource> {
        self.index.hosts.of(hostname)
    }

    /// The object that is published for a hostname in a namespace: a Kubernetes Service, else the oldest ServiceEntry.
    ///
    /// # Source
    /// spec of the workload model, section 5.2.
    pub fn winner(&self, key: &HostKey) -> Option<Winner<'_>> {
        if !self.visible(&key.namespace) {
            return None;
        }
        let mut oldest: Option<&Arc<ServiceEntry>> = None;
        for source in self.claims(&key.hostname).filter(|source| source.key().namespace == key.namespace) {
            match source {
                HostSource::Service(service) => return self.services.get(service).map(Winner::Service),
                HostSource::Entry(entry) => {
                    let Some(entry) = self.entries.get(entry) else { continue };
                    if oldest.is_none_or(|oldest| entry.age() < oldest.age()) {
                        oldest = Some(entry);
                    }
                }
            }
        }
        oldest.filter(|entry| self.entry_visibility(&entry.key.namespace) != Visibility::None).map(Winner::Entry)
    }

    /// Whether a ServiceEntry is what is published for one of its hostnames.
    pub fn wins(&self, entry: &ServiceEntry, hostname: &Arc<str>) -> bool {
        let key = HostKey { namespace: entry.key.namespace.clone(), hostname: hostname.clone() };
        matches!(self.winner(&key), Some(Winner::Entry(winner)) if winner.key == entry.key)
    }

    /// Whether the ServiceEntry that won a hostname in its namespace is the one that others mean by it.
    pub fn is_canonical(&self, entry: &ServiceEntry, hostname: &str) -> bool {
        if self.entry_visibility(&entry.key.namespace) != Visibility::Public {
            return false;
        }
        let mut claims = self.claims(hostname).filter(|source| self.visible(&source.key().namespace));
        claims.all(|source| match source {
            HostSource::Service(_) => false,
            // One of our own namespace is younger: we won.
            HostSource::Entry(other) => {
                other.namespace == entry.key.namespace
                    || self.entry_visibility(&other.namespace) != Visibility::Public
                    || self.entries.get(other).is_none_or(|other| entry.age() < other.age())
            }
        })
    }

    /// Who may see the ServiceEntries of a namespace.
    pub fn entry_visibility(&self, namespace: &str) -> Visibility {
        let Some(rules) = &self.settings.entry_visibility else { return Visibility::Public };
        rules.of(namespace, self.namespaces.get(namespace))
    }
}
