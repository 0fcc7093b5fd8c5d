//! What the distributor knows of namespaces and of the ConfigMaps in them, and what it concludes. No I/O.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use mesh_api::labels;

/// A ConfigMap that is kept in every namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Map {
    /// The roots that the control plane is trusted by.
    Roots,
    /// Revocation lists.
    Revocations,
}

impl Map {
    pub(super) const ALL: [Self; 2] = [Self::Roots, Self::Revocations];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Roots => labels::ROOT_CERT_CONFIG_MAP,
            Self::Revocations => labels::CRL_CONFIG_MAP,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Roots => labels::ROOT_CERT_KEY,
            Self::Revocations => labels::CRL_KEY,
        }
    }

    /// The object, without its namespace.
    pub(super) fn object(self, content: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name().to_owned()),
                labels: Some([(labels::ISTIO_CONFIG.to_owned(), "true".to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(self.key().to_owned(), content.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    /// A server without field selectors tells of other maps too.
    fn is(self, map: &ConfigMap) -> bool {
        map.metadata.name.as_deref() == Some(self.name())
    }
}

/// What the maps should say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Bundle of roots; none where another channel distributes them.
    pub(super) roots: Option<String>,
    /// Revocation lists; none where the authority has none.
    pub(super) revocations: Option<String>,
}

impl Wanted {
    fn of(&self, map: Map) -> Option<&str> {
        match map {
            Map::Roots => self.roots.as_deref(),
            Map::Revocations => self.revocations.as_deref(),
        }
    }
}

/// One ConfigMap to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) namespace: String,
    pub(super) map: Map,
    pub(super) content: String,
    /// Whether there is one to be replaced.
    pub(super) exists: bool,
}

/// An event of a watch.
pub(super) enum Seen {
    Namespace(Event<Namespace>),
    Map(Map, Event<ConfigMap>),
    Failed(String),
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Namespaces that are not being deleted.
    namespaces: BTreeSet<String>,
    /// Contents of the ConfigMaps, by map and namespace; none where the map has another shape than ours.
    maps: BTreeMap<(Map, String), Option<String>>,
    /// Namespaces in the list that is being read.
    listed: BTreeSet<String>,
    /// Namespaces of the ConfigMaps in the lists that are being read.
    listed_maps: BTreeSet<(Map, String)>,
    /// Whether the namespaces were read once.
    namespaces_read: bool,
    /// Maps whose list was read once.
    maps_read: BTreeSet<Map>,
    /// Failures in a row, by map and namespace.
    failures: BTreeMap<(Map, String), u32>,
    /// Namespaces that lack a map but are not looked at, as far as the model has come.
    pub(super) hidden: BTreeSet<String>,
}

impl Known {
    pub(super) fn see(&mut self, event: Seen) {
        match event {
            Seen::Failed(error) => tracing::warn!(error, "watch for root distribution failed, trying again"),
            Seen::Namespace(event) => self.see_namespace(event),
            Seen::Map(map, event) => self.see_map(map, event),
        }
    }

    fn see_namespace(&mut self, event: Event<Namespace>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(one) | Event::Apply(one) => {
                let name = one.metadata.name.clone().unwrap_or_default();
                let going = one.metadata.deletion_timestamp.is_some()
                    || one.status.and_then(|status| status.phase).as_deref() == Some("Terminating");
                self.failures.retain(|(_, namespace), _| *namespace != name);
                if going {
                    self.namespaces.remove(&name);
                } else {
                    self.listed.insert(name.clone());
                    self.namespaces.insert(name);
                }
            }
            Event::InitDone => {
                self.namespaces = std::mem::take(&mut self.listed);
                self.namespaces_read = true;
            }
            Event::Delete(one) => {
                let name = one.metadata.name.unwrap_or_default();
                self.failures.retain(|(_, namespace), _| *namespace != name);
                self.namespaces.remove(&name);
            }
        }
    }

    fn see_map(&mut self, map: Map, event: Event<ConfigMap>) {
        match event {
            Event::Init => self.listed_maps.retain(|(listed, _)| *listed != map),
            Event::InitApply(object) | Event::Apply(object) if map.is(&object) => {
                let marked = object.metadata.labels.as_ref().and_then(|all| all.get(labels::ISTIO_CONFIG));
                let content = object.data.and_then(|mut data| data.remove(map.key()));
                let content = content.filter(|_| marked.is_some_and(|value| value == "true"));
                let key = (map, object.metadata.namespace.unwrap_or_default());
                self.listed_maps.insert(key.clone());
                self.maps.insert(key, content);
            }
            Event::InitDone => {
                let listed = &self.listed_maps;
                self.maps.retain(|key, _| key.0 != map || listed.contains(key));
                self.listed_maps.retain(|(listed, _)| *listed != map);
                self.maps_read.insert(map);
            }
            Event::Delete(object) if map.is(&object) => {
                self.maps.remove(&(map, object.metadata.namespace.unwrap_or_default()));
            }
            Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
        }
    }

    /// What has to be written, by namespace.
    pub(super) fn lacking(&self, wanted: &Wanted) -> Vec<Write> {
        if !self.namespaces_read {
            return Vec::new();
        }
        let served = self.namespaces.iter().filter(|one| !EXCLUDED.contains(&one.as_str()));
        let each = served.flat_map(|namespace| Map::ALL.into_iter().map(move |map| (map, namespace.clone())));
        each.filter_map(|key| self.lacks(key, wanted)).collect()
    }

    fn lacks(&self, key: (Map, String), wanted: &Wanted) -> Option<Write> {
        let tried = self.failures.get(&key).is_some_and(|count| *count >= TRIES_MAX);
        if tried || !self.maps_read.contains(&key.0) {
            return None;
        }
        let have = self.maps.get(&key);
        let content = match (wanted.of(key.0), have) {
            (Some(content), have) if have.is_some_and(|have| have.as_deref() == Some(content)) => return None,
            (Some(content), _) => content,
            // Lists that are no longer given are emptied, which revokes nothing; a proxy has the file mounted.
            (None, Some(Some(have))) if key.0 == Map::Revocations && !have.is_empty() => "",
            (None, _) => return None,
        };
        let (map, namespace) = key;
        Some(Write { namespace, map, content: content.to_owned(), exists: have.is_some() })
    }

    /// A write went well, or did not.
    pub(super) fn written(&mut self, write: Write, well: bool) {
        let key = (write.map, write.namespace);
        if well {
            self.failures.remove(&key);
            self.maps.insert(key, Some(write.content));
        } else {
            *self.failures.entry(key).or_default() += 1;
        }
    }

    /// Namespaces that failed too often get another chance.
    pub(super) fn forgive(&mut self) {
        self.failures.clear();
    }
}

/// Namespaces that never get a ConfigMap.
const EXCLUDED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
/// Tries of one map until the next change or the next look at everything.
const TRIES_MAX: u32 = 5;
