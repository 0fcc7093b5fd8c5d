//! Settings of the mesh that decide what objects mean.

use std::sync::Arc;

use mesh_core::identity::TrustDomain;

use super::Selector;

/// Process options and mesh configuration that translation reads. Replaced as a whole when the mesh configuration changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// First part of every workload uid.
    pub cluster_id: Arc<str>,
    /// DNS suffix of service names, without leading dot.
    pub domain: Arc<str>,
    /// Trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Namespace whose policies apply to the whole mesh.
    pub root_namespace: Arc<str>,
    /// Namespace of the control plane; carries the cluster's network label.
    pub system_namespace: Arc<str>,
    /// Own revision; policies labelled with another are left to that one.
    pub revision: Arc<str>,
    /// Promise `l7DenyAtL4`: a DENY rule with L7 attributes is applied at L4 as if those matched.
    pub l7_deny_at_l4: bool,
    /// Whether dry-run policies are sent (as such) or reported as unsupported.
    pub dry_run: bool,
    /// Namespaces that are looked at: any may match; none means all.
    pub discovery_selectors: Vec<Selector>,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            cluster_id: "Kubernetes".into(),
            domain: "cluster.local".into(),
            trust_domain: TrustDomain::default(),
            root_namespace: mesh_api::labels::SYSTEM_NAMESPACE.into(),
            system_namespace: mesh_api::labels::SYSTEM_NAMESPACE.into(),
            revision: "default".into(),
            l7_deny_at_l4: true,
            dry_run: false,
            discovery_selectors: Vec::new(),
        }
    }
}
