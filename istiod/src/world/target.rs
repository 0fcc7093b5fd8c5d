//! What a policy names with `targetRefs`.

use std::sync::Arc;

use mesh_api::security::TargetRef;
use mesh_core::names::NamespacedName;

use super::{AuthorizationPolicy, Kind, RequestAuthentication, World};

/// One object that a policy is attached to. It is in the policy's namespace, unless it is a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: Arc<str>,
}

/// Kinds that a policy can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// core Service.
    Service,
    /// networking.istio.io ServiceEntry.
    ServiceEntry,
    /// gateway.networking.k8s.io Gateway.
    Gateway,
    /// gateway.networking.k8s.io GatewayClass.
    GatewayClass,
    /// Anything else: nothing is attached to it.
    Other,
}

impl Target {
    /// Reads a reference.
    pub fn read(written: &TargetRef) -> Self {
        let kind = match (written.group.as_str(), written.kind.as_str()) {
            ("" | "core", "Service") => TargetKind::Service,
            (mesh_api::labels::NETWORKING_GROUP, "ServiceEntry") => TargetKind::ServiceEntry,
            (mesh_api::labels::GATEWAY_GROUP, "Gateway") => TargetKind::Gateway,
            (mesh_api::labels::GATEWAY_GROUP, "GatewayClass") => TargetKind::GatewayClass,
            _ => TargetKind::Other,
        };
        Self { kind, name: written.name.as_str().into() }
    }

    /// The object that is meant by a policy of `namespace`; a class has no namespace.
    pub fn key(&self, namespace: &Arc<str>) -> NamespacedName {
        let namespace = if self.kind == TargetKind::GatewayClass { Arc::default() } else { namespace.clone() };
        NamespacedName::new(namespace, self.name.clone())
    }
}

impl AuthorizationPolicy {
    /// `spec.targetRefs`, or the older single one.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.spec.target_ref.iter().chain(&self.spec.target_refs).map(Target::read)
    }
}

impl RequestAuthentication {
    /// What it is attached to.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.targets.iter().map(Target::read)
    }
}

impl World {
    /// Policies that name this object: their kinds and names.
    pub fn policies_on(&self, kind: TargetKind, key: &NamespacedName) -> impl Iterator<Item = &(Kind, NamespacedName)> {
        self.index.attached.of(&(kind, key.clone()))
    }

    /// GatewayClasses that policies are attached to, known or not.
    pub fn attached_classes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.index.attached.keys().filter(|(kind, _)| *kind == TargetKind::GatewayClass).map(|(_, key)| &key.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_group_and_kind() {
        let read = |group: &str, kind: &str| {
            let target = TargetRef { group: group.into(), kind: kind.into(), name: "n".into(), namespace: None };
            Target::read(&target).kind
        };
        assert_eq!(read("", "Service"), TargetKind::Service);
        assert_eq!(read("core", "Service"), TargetKind::Service);
        assert_eq!(read("networking.istio.io", "ServiceEntry"), TargetKind::ServiceEntry);
        assert_eq!(read("gateway.networking.k8s.io", "Gateway"), TargetKind::Gateway);
        assert_eq!(read("gateway.networking.k8s.io", "GatewayClass"), TargetKind::GatewayClass);
        assert_eq!(read("networking.istio.io", "Gateway"), TargetKind::Other);
        assert_eq!(read("", "Pod"), TargetKind::Other);
    }
}
