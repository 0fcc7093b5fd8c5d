//! Settings of the mesh that decide what objects mean.

use std::sync::Arc;

use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{L7Settings, Labels, Namespace, Promises, ProxySettings, Selector};

/// Process options and mesh configuration that translation reads. Replaced as a whole when the mesh configuration changes.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshSettings {
    /// First part of every workload uid.
    pub cluster_id: Arc<str>,
    /// DNS suffix of service names, without leading dot.
    pub domain: Arc<str>,
    /// Trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Other trust domains that are ours: their certificates prove who a caller is.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// `caCertificates`: trusted beside the authority's own roots, as PEM.
    pub trust_anchors: Arc<str>,
    /// Namespace whose policies apply to the whole mesh.
    pub root_namespace: Arc<str>,
    /// Namespace of the control plane; carries the cluster's network label.
    pub system_namespace: Arc<str>,
    /// Own revision; policies labelled with another are left to that one.
    pub revision: Arc<str>,
    /// Promise `l7DenyAtL4`: a DENY rule with L7 attributes is applied at L4 as if those matched.
    pub l7_deny_at_l4: bool,
    /// How the other promises are kept.
    pub promises: Promises,
    /// Whether workloads behind a waypoint take connections from it only. `PILOT_AUTO_ALLOW_WAYPOINT_POLICY`.
    pub implicit_waypoint_allow: bool,
    /// Whether dry-run policies are sent (as such) or reported as unsupported.
    pub dry_run: bool,
    /// Namespaces that are looked at: any may match; none means all.
    pub discovery_selectors: Vec<Selector>,
    /// Who may see which ServiceEntries; everyone all of them where not set.
    pub entry_visibility: Option<VisibilityRules>,
    /// Whether ServiceEntries select pods. `PILOT_ENABLE_SERVICEENTRY_SELECT_PODS`.
    pub entries_select_pods: bool,
    /// Whether Services select WorkloadEntries. `PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES`.
    pub services_select_workload_entries: bool,
    /// Whether other clusters and networks are part of the mesh. `AMBIENT_ENABLE_MULTI_NETWORK`.
    pub multi_network: bool,
    /// Which services other clusters may use.
    pub scopes: Vec<ScopeRule>,
    /// What waypoints and gateways are told.
    pub l7: L7Settings,
    /// How the proxies of Gateways are deployed.
    pub proxies: Arc<ProxySettings>,
}

impl MeshSettings {
    /// The DNS name of a Kubernetes Service.
    pub fn hostname(&self, service: &NamespacedName) -> Arc<str> {
        format!("{}.{}.svc.{}", service.name, service.namespace, self.domain).into()
    }
}

/// One rule of `serviceScopeConfigs` of the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ScopeRule {
    /// Namespaces of the services; every one where not given.
    pub namespace_selector: Selector,
    /// Labels of the services; any where not given.
    pub services_selector: Selector,
    /// Who may use them.
    pub scope: Scope,
}

/// Who may use a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scope {
    /// Its own cluster.
    #[default]
    Local,
    /// Every cluster of the mesh.
    Global,
}

impl MeshSettings {
    /// Who may use a service: any rule that says everyone decides.
    pub fn scope(&self, labels: &Labels, namespace: Option<&Namespace>) -> Scope {
        let none = Labels::default();
        let of_namespace = namespace.map_or(&none, |namespace| &namespace.labels);
        let global = self.scopes.iter().any(|rule| {
            rule.scope == Scope::Global
                && rule.namespace_selector.matches(of_namespace)
                && rule.services_selector.matches(labels)
        });
        if global { Scope::Global } else { Scope::Local }
    }
}

/// `serviceEntryVisibility` of the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VisibilityRules {
    /// Where no policy matches.
    pub default_visibility: Visibility,
    /// The first that matches decides.
    pub policies: Vec<VisibilityPolicy>,
}

/// One policy of [`VisibilityRules`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VisibilityPolicy {
    /// What it decides.
    pub visibility: Visibility,
    /// All must match; none match everything.
    pub matching_rules: Vec<VisibilityRule>,
}

/// One matcher of a [`VisibilityPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VisibilityRule {
    /// Namespaces of the ServiceEntries that are meant. A rule that says nothing matches nothing.
    pub namespace_selector: Option<Selector>,
}

/// Who may see a ServiceEntry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Visibility {
    /// Everyone.
    #[default]
    #[serde(alias = "UNSPECIFIED", alias = "VISIBILITY_UNSPECIFIED")]
    Public,
    /// Its own namespace.
    Namespace,
    /// Nobody: it is not published.
    None,
}

impl VisibilityRules {
    /// Who may see the ServiceEntries of a namespace. One that is not known yet has no labels.
    pub fn of(&self, name: &str, namespace: Option<&Namespace>) -> Visibility {
        let named;
        let labels = match namespace {
            Some(namespace) => &namespace.labels,
            None => {
                named = [(NAMESPACE_NAME, name)].into_iter().collect::<Labels>();
                &named
            }
        };
        let matches = |rule: &VisibilityRule| rule.namespace_selector.as_ref().is_some_and(|one| one.matches(labels));
        let decides = |policy: &&VisibilityPolicy| policy.matching_rules.iter().all(matches);
        self.policies.iter().find(decides).map_or(self.default_visibility, |policy| policy.visibility)
    }
}

/// Every namespace carries its own name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            cluster_id: "Kubernetes".into(),
            domain: "cluster.local".into(),
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            trust_anchors: "".into(),
            root_namespace: mesh_api::labels::SYSTEM_NAMESPACE.into(),
            system_namespace: mesh_api::labels::SYSTEM_NAMESPACE.into(),
            revision: "default".into(),
            l7_deny_at_l4: true,
            promises: Promises::default(),
            implicit_waypoint_allow: false,
            dry_run: false,
            discovery_selectors: Vec::new(),
            entry_visibility: None,
            entries_select_pods: true,
            services_select_workload_entries: true,
            multi_network: false,
            scopes: Vec::new(),
            l7: L7Settings::default(),
            proxies: Arc::default(),
        }
    }
}
