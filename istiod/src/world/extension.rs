//! Code and patches that users bring into proxies. Ours run none: what such an object would have guarded stays closed.

use std::sync::Arc;

use mesh_api::security::TargetRef;
use mesh_core::names::NamespacedName;

use super::{Kind, Labels, Target, World};

/// A WasmPlugin, TrafficExtension or EnvoyFilter, as far as it matters that it is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Namespace and name.
    pub key: NamespacedName,
    /// Which of the three.
    pub kind: Kind,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.targetRefs`, or the older single one.
    pub targets: Box<[TargetRef]>,
    /// `spec.selector`, when not empty.
    pub selector: Option<Labels>,
    /// What it means that it is not run.
    pub demand: Demand,
}

/// What it means for traffic that an extension is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It may refuse what passes: nothing may pass without it.
    Needed {
        /// Ports that it sees; none: all.
        ports: Box<[u16]>,
    },
    /// Traffic goes on without it, for this reason.
    Dispensable(&'static str),
}

impl Extension {
    /// What it is attached to.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.targets.iter().map(Target::read)
    }

    /// Whether it may refuse what passes; at one port, or at any.
    pub fn guards(&self, port: Option<u16>) -> bool {
        match &self.demand {
            Demand::Needed { ports } => ports.is_empty() || port.is_none_or(|port| ports.contains(&port)),
            Demand::Dispensable(_) => false,
        }
    }
}

impl World {
    /// One extension.
    pub fn extension(&self, kind: Kind, key: &NamespacedName) -> Option<&Arc<Extension>> {
        self.extensions.get(&(kind, key.clone()))
    }

    /// Extensions of a namespace. They are few.
    pub fn extensions_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Extension>> {
        self.extensions.values().filter(move |one| *one.key.namespace == *namespace)
    }
}
