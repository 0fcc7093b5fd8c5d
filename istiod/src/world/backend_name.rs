//! How routes name backends, and under which hostnames the world knows them: what a route depends on.

use std::sync::Arc;

use mesh_api::gateway::BackendReference;
use mesh_api::labels::NETWORKING_GROUP;
use mesh_core::names::NamespacedName;

use super::MeshSettings;

/// A backend as it is written.
#[derive(Clone, Copy, Debug)]
pub struct BackendName<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Name.
    pub name: &'a str,
    /// Namespace; that of the route where none is written.
    pub namespace: Option<&'a str>,
}

impl<'a> BackendName<'a> {
    /// What a reference names.
    pub fn of(reference: &'a BackendReference) -> Self {
        let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        Self { group: reference.group(), kind: reference.kind(), name: &reference.name, namespace }
    }

    /// The hostnames that it can stand for. Where the name of a ServiceEntry is no hostname, a stand-in is told.
    pub fn hosts(&self, settings: &MeshSettings, from: &str) -> Vec<Arc<str>> {
        let key = NamespacedName::new(self.namespace.unwrap_or(from), self.name);
        match (self.group, self.kind) {
            ("" | "core", "Service") => vec![settings.hostname(&key)],
            (MULTICLUSTER_GROUP, "ServiceImport") => vec![Self::clusterset(&key), settings.hostname(&key)],
            (NETWORKING_GROUP, "ServiceEntry") => vec![Self::entry(&key)],
            _ => vec![self.name.strip_suffix('.').unwrap_or(self.name).to_ascii_lowercase().into()],
        }
    }

    /// The hostname of a service of all clusters.
    pub fn clusterset(key: &NamespacedName) -> Arc<str> {
        format!("{}.{}.svc.clusterset.local", key.name, key.namespace).into()
    }

    /// What stands for a ServiceEntry that is named itself: it may not exist, and then has no hosts. No hostname holds a
    /// slash.
    pub fn entry(key: &NamespacedName) -> Arc<str> {
        key.to_string().into()
    }
}

/// API group of ServiceImport.
pub const MULTICLUSTER_GROUP: &str = "multicluster.x-k8s.io";
