//! What a proxy is told of itself.

use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::l7;
use mesh_wire::l7::proxy::Role;

use super::authorization::{Guard, guard};
use super::backend::Client;
use super::remarks::Remarks;
use super::traffic::wire;
use crate::translate::gateway::{Family, infrastructure, labels};
use crate::translate::waypoint;
use crate::world::{Gateway, Kind, Labels, MeshSettings, TargetKind, World};

/// A gateway whose proxies are ours.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The object.
    pub gateway: &'a Arc<Gateway>,
    /// What it is for.
    pub family: Family,
}

impl<'a> Own<'a> {
    /// The gateway of that name, if its proxies are ours.
    pub fn find(world: &'a World, key: &NamespacedName) -> Option<Self> {
        let gateway = world.gateway(key).filter(|_| world.visible(&key.namespace))?;
        let family = Family::of_class(world, &gateway.class)?;
        (family != Family::Remote).then_some(Self { gateway, family })
    }

    /// The only principal that is told: `<namespace>/<service account>`.
    pub fn audience(&self) -> Arc<str> {
        format!("{}/{}", self.gateway.key.namespace, infrastructure::account(self.gateway, self.family)).into()
    }

    /// Whose backends they are.
    pub fn client(&self) -> Client {
        Client { gateway: self.gateway.key.clone(), edge: self.family == Family::Edge }
    }

    /// Labels of its pods, by which policies and rules select them.
    pub fn pod_labels(&self, world: &World) -> Vec<Labels> {
        labels::of_pods(world, self.gateway, self.family)
    }
}

/// The resource of a gateway's proxies. What closes it is remarked, of the policy and of the gateway.
///
/// # Source
/// spec of waypoints, section 12.
pub fn proxy(world: &World, own: Own<'_>, remarks: &mut Remarks) -> l7::Proxy {
    let gateway = own.gateway;
    let role = match own.family {
        Family::Waypoint => Role::Waypoint,
        Family::EastWest => Role::EastWest,
        Family::Edge | Family::Remote => Role::Gateway,
    };
    // Outer tunnels are relayed there; what is inside is judged by whom it is for.
    let guard =
        if own.family == Family::EastWest { Guard::default() } else { guard(world, &policies(world, own), None) };
    if !guard.refuse_all.is_empty() {
        remarks.add(Kind::Gateway, &gateway.key, guard.refuse_all.clone());
    }
    for ((kind, key), reason) in guard.closed_by {
        remarks.add(kind, &key, reason);
    }
    let forward = gateway.annotations.get(CLIENT_IDENTITY).and_then(mesh_core::env::parse_bool);
    l7::Proxy {
        namespace: gateway.key.namespace.to_string(),
        name: gateway.key.name.to_string(),
        role: role.into(),
        settings: Some(settings(world.settings())),
        forward_client_identity: forward.unwrap_or_default(),
        serves_workloads: own.family == Family::Waypoint && waypoint::traffic_type(world, gateway).takes_workloads(),
        authorizations: guard.authorizations,
        refuse_all: guard.refuse_all,
    }
}

/// Policies for everything that passes.
///
/// # Source
/// spec of layer-7 policy, section 1.
fn policies(world: &World, own: Own<'_>) -> Vec<(Kind, NamespacedName)> {
    let root = &world.settings().root_namespace;
    let gateway = own.gateway;
    let named = world.policies_on(TargetKind::Gateway, &gateway.key).cloned();
    let class = NamespacedName::new("", gateway.class.clone());
    let of_class = world.policies_on(TargetKind::GatewayClass, &class);
    let mut all: Vec<_> = named.chain(of_class.filter(|(_, key)| key.namespace == *root).cloned()).collect();
    if own.family == Family::Edge {
        let labels = own.pod_labels(world);
        for namespace in [&gateway.key.namespace, root] {
            let authorizations = world.authorizations_in(namespace).filter(|one| one.targets().next().is_none());
            let authorizations = authorizations.filter(|one| selects(one.selector.as_ref(), &labels));
            all.extend(authorizations.map(|one| (Kind::Authorization, one.key.clone())));
            let requests = world.requests_in(namespace).filter(|one| one.targets.is_empty());
            let requests = requests.filter(|one| selects(one.selector.as_ref(), &labels));
            all.extend(requests.map(|one| (Kind::Request, one.key.clone())));
            let extensions = world.extensions_in(namespace).filter(|one| one.targets.is_empty());
            let extensions = extensions.filter(|one| selects(one.selector.as_ref(), &labels));
            all.extend(extensions.map(|one| (one.kind, one.key.clone())));
        }
    }
    all
}

/// All pods of a gateway are told the same, so what is for one of them is for all.
fn selects(selector: Option<&Labels>, pods: &[Labels]) -> bool {
    selector.is_none_or(|selector| pods.iter().any(|labels| labels.contains(selector)))
}

/// What the mesh configuration says.
fn settings(mesh: &MeshSettings) -> l7::Settings {
    let l7 = &mesh.l7;
    let aliases = mesh.trust_domain_aliases.iter().map(ToString::to_string);
    l7::Settings {
        normalization: l7.normalization.into(),
        trust_domains: std::iter::once(mesh.trust_domain.to_string()).chain(aliases).collect(),
        connect_timeout: wire(l7.connect_timeout),
        detection_timeout: wire(l7.detection_timeout),
        hbone_idle_timeout: wire(l7.hbone_idle_timeout),
        server_header: header_value(&l7.server_header),
        trusted_proxies: l7.trusted_proxies,
        http10: l7.http10,
        drain: wire(l7.drain),
        no_debug_headers: l7.no_debug_headers,
        no_attempt_count: l7.no_attempt_count,
        no_request_id: l7.no_request_id,
        forward_host: l7.forward_host,
        forward_port: l7.forward_port,
    }
}

/// Proxies refuse to be told what cannot stand in a header.
fn header_value(text: &str) -> String {
    if http::HeaderValue::from_str(text).is_ok() { text.to_owned() } else { String::new() }
}

/// Says that requests name their caller.
const CLIENT_IDENTITY: &str = "ambient.istio.io/xfcc-include-client-identity";
