//! Questions about routes, rules and policies of layer 7.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use mesh_core::names::NamespacedName;

use super::store::in_namespace;
use super::{
    BackendTlsPolicy, DestinationRule, GrpcRoute, HostKey, HostSource, HttpRoute, Kind, ListenerSet, Material,
    ParentKind, ReferenceGrant, TargetKind, TcpRoute, TlsRoute, TrafficPolicy, UdpRoute, VirtualService, Winner, World,
};

/// Single objects.
impl World {
    /// One HTTPRoute.
    pub fn http_route(&self, key: &NamespacedName) -> Option<&Arc<HttpRoute>> {
        self.http_routes.get(key)
    }

    /// One GRPCRoute.
    pub fn grpc_route(&self, key: &NamespacedName) -> Option<&Arc<GrpcRoute>> {
        self.grpc_routes.get(key)
    }

    /// One TLSRoute.
    pub fn tls_route(&self, key: &NamespacedName) -> Option<&Arc<TlsRoute>> {
        self.tls_routes.get(key)
    }

    /// One TCPRoute.
    pub fn tcp_route(&self, key: &NamespacedName) -> Option<&Arc<TcpRoute>> {
        self.tcp_routes.get(key)
    }

    /// One UDPRoute.
    pub fn udp_route(&self, key: &NamespacedName) -> Option<&Arc<UdpRoute>> {
        self.udp_routes.get(key)
    }

    /// One ListenerSet.
    pub fn listener_set(&self, key: &NamespacedName) -> Option<&Arc<ListenerSet>> {
        self.listener_sets.get(key)
    }

    /// One BackendTLSPolicy.
    pub fn backend_tls(&self, key: &NamespacedName) -> Option<&Arc<BackendTlsPolicy>> {
        self.backend_tls.get(key)
    }

    /// One XBackendTrafficPolicy.
    pub fn traffic_policy(&self, key: &NamespacedName) -> Option<&Arc<TrafficPolicy>> {
        self.traffic_policies.get(key)
    }

    /// One VirtualService.
    pub fn virtual_service(&self, key: &NamespacedName) -> Option<&Arc<VirtualService>> {
        self.virtual_services.get(key)
    }

    /// One DestinationRule.
    pub fn destination_rule(&self, key: &NamespacedName) -> Option<&Arc<DestinationRule>> {
        self.destination_rules.get(key)
    }

    /// Destination rules of a namespace.
    pub fn destination_rules_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<DestinationRule>> {
        in_namespace(&self.destination_rules, namespace).map(|(_, rule)| rule)
    }

    /// A ConfigMap or Secret.
    pub fn material(&self, kind: Kind, key: &NamespacedName) -> Option<&Arc<Material>> {
        match kind {
            Kind::ConfigMap => self.config_maps.get(key),
            Kind::Secret => self.secrets.get(key),
            _ => None,
        }
    }

    /// A value of a ConfigMap or Secret.
    pub fn material_value(&self, kind: Kind, object: &NamespacedName, key: &str) -> Option<&Bytes> {
        self.material(kind, object)?.get(key)
    }
}

/// What refers to what.
impl World {
    /// Routes that name a parent, by kind and name.
    pub fn routes_of(
        &self,
        kind: ParentKind,
        parent: &NamespacedName,
    ) -> impl Iterator<Item = &(Kind, NamespacedName)> {
        self.index.l7.routes.of(&(kind, parent.clone()))
    }

    /// Number of routes that name a parent.
    pub fn route_count(&self, kind: ParentKind, parent: &NamespacedName) -> usize {
        self.index.l7.routes.count(&(kind, parent.clone()))
    }

    /// Whether a route of a kind names a parent.
    pub fn has_route_of(&self, kind: ParentKind, parent: &NamespacedName, route: Kind) -> bool {
        // Names are in the order of their kinds.
        let start = (route, NamespacedName::new("", ""));
        self.index.l7.routes.first_from(&(kind, parent.clone()), &start).is_some_and(|(kind, _)| *kind == route)
    }

    /// Routes that name a backend of this hostname.
    pub fn callers_of(&self, hostname: &str) -> impl Iterator<Item = &(Kind, NamespacedName)> {
        self.index.l7.callers.of(hostname)
    }

    /// Listener sets that name a gateway.
    pub fn sets_of(&self, gateway: &NamespacedName) -> impl Iterator<Item = &Arc<ListenerSet>> {
        self.index.l7.sets.of(gateway).filter_map(|key| self.listener_sets.get(key))
    }

    /// Policies for a backend: BackendTLSPolicies and XBackendTrafficPolicies that name it.
    pub fn backend_policies(
        &self,
        kind: TargetKind,
        target: &NamespacedName,
    ) -> impl Iterator<Item = &(Kind, NamespacedName)> {
        self.index.l7.backend_policies.of(&(kind, target.clone()))
    }

    /// Virtual services whose hosts cover a hostname, each once, the oldest first.
    pub fn virtual_services_for(&self, hostname: &str) -> Vec<&Arc<VirtualService>> {
        let keys: BTreeSet<_> = patterns(hostname)
            .flat_map(|host| self.index.l7.virtual_services.of(&*host).cloned().collect::<Vec<_>>())
            .collect();
        let mut all: Vec<_> = keys.iter().filter_map(|key| self.virtual_services.get(key)).collect();
        all.sort_by(|a, b| a.age().cmp(&b.age()));
        all
    }

    /// Virtual services that delegate to this one.
    pub fn roots_of(&self, delegate: &NamespacedName) -> impl Iterator<Item = &NamespacedName> {
        self.index.l7.roots.of(delegate)
    }

    /// Destination rules whose host covers a hostname: those with the most specific host first, of those the oldest.
    pub fn rules_for(&self, hostname: &str) -> Vec<(&Arc<DestinationRule>, usize)> {
        let mut all = Vec::new();
        for (step, host) in patterns(hostname).enumerate() {
            let rules = self.index.l7.rules.of(&*host).filter_map(|key| self.destination_rules.get(key));
            let mut rules: Vec<_> = rules.map(|rule| (rule, step)).collect();
            rules.sort_by(|(a, _), (b, _)| a.age().cmp(&b.age()));
            all.extend(rules);
        }
        all
    }

    /// Names of the BackendTLSPolicies of a namespace.
    pub fn backend_tls_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a NamespacedName> {
        in_namespace(&self.backend_tls, namespace).map(|(key, _)| key)
    }

    /// Grants of a namespace.
    pub fn grants_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<ReferenceGrant>> {
        in_namespace(&self.grants, namespace).map(|(_, grant)| grant)
    }

    /// What is meant by a hostname that something in `namespace` calls: what that namespace itself gives, else a
    /// Kubernetes Service, else the ServiceEntry that everybody means by it.
    pub fn resolve_host(&self, hostname: &str, namespace: &str) -> Option<(HostKey, Winner<'_>)> {
        let hostname: Arc<str> = hostname.into();
        let own = HostKey::new(namespace, hostname.clone());
        if let Some(winner) = self.winner(&own) {
            return Some((own, winner));
        }
        let namespaces: BTreeSet<_> = self.claims(&hostname).map(HostSource::key).map(|key| &key.namespace).collect();
        let keys = namespaces.into_iter().map(|namespace| HostKey::new(namespace.clone(), hostname.clone()));
        let mut found =
            keys.filter_map(|key| self.winner(&key).map(|winner| (key, winner))).filter(|(_, winner)| match winner {
                Winner::Service(_) => true,
                Winner::Entry(entry) => self.is_canonical(entry, &hostname),
            });
        found.next()
    }
}

/// Where a credential is looked for.
pub(crate) fn credential_keys(name: &str, namespace: &Arc<str>) -> Vec<(Kind, NamespacedName)> {
    let (kind, bare) = match name.strip_prefix("configmap://") {
        Some(bare) => (Kind::ConfigMap, bare),
        None => (Kind::Secret, name.strip_prefix("kubernetes://").unwrap_or(name)),
    };
    let bare = match bare.split_once('/') {
        // Proxies are given nothing of other namespaces.
        Some((other, _)) if *other != **namespace => return Vec::new(),
        Some((_, bare)) => bare,
        None => bare,
    };
    if bare.is_empty() {
        return Vec::new();
    }
    let key = |name: &str| NamespacedName::new(namespace.clone(), name);
    let beside = (kind == Kind::Secret).then(|| (kind, key(&format!("{bare}-cacert"))));
    std::iter::once((kind, key(bare))).chain(beside).collect()
}

/// A hostname, then the wildcards that cover it, the most specific first.
pub(super) fn patterns(hostname: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let bare = hostname.strip_prefix("*.").unwrap_or(hostname);
    let suffixes = bare.match_indices('.').filter_map(|(at, _)| bare.get(at..));
    let wildcards = suffixes.map(|suffix| Cow::Owned(format!("*{suffix}")));
    std::iter::once(Cow::Borrowed(hostname)).chain(wildcards).chain([Cow::Borrowed("*")])
}

/// Whether a host as it is written in a rule, a wildcard maybe, covers a hostname.
pub fn covers(pattern: &str, hostname: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == hostname,
        Some("") => true,
        Some(suffix) => pattern == hostname || (hostname.len() > suffix.len() && hostname.ends_with(suffix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_covered_by_itself_and_by_wildcards_of_its_domains() {
        let all: Vec<_> = patterns("a.b.c").map(Cow::into_owned).collect();
        assert_eq!(all, ["a.b.c", "*.b.c", "*.c", "*"]);
        let all: Vec<_> = patterns("*.b.c").map(Cow::into_owned).collect();
        assert_eq!(all, ["*.b.c", "*.c", "*"]);
        for (pattern, hostname, holds) in [
            ("a.b", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", true),
            ("*.b", "b", false),
            ("*.b", "*.b", true),
            ("*.b", "*.a.b", true),
            ("*", "a", true),
            ("a.b", "*.b", false),
        ] {
            assert_eq!(covers(pattern, hostname), holds, "{pattern} {hostname}");
        }
    }
}
