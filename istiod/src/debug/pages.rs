//! What the debug pages show, as JSON.

use std::sync::Arc;

use mesh_wire::type_url;
use mesh_xds::server::{ConnectionStatus, Hub, Resource};
use serde_json::{Map, Value, json};

use super::view;
use crate::config::mesh::Reported;
use crate::translate::Model;
use crate::world::{MeshSettings, NetworkGatewayAddress, World};

/// Connected proxies.
pub(super) fn connections(all: &[ConnectionStatus]) -> Value {
    json!({"connected": all.iter().map(connection).collect::<Vec<_>>()})
}

fn connection(one: &ConnectionStatus) -> Value {
    let types = one.types.iter().map(|kind| {
        json!({
            "typeUrl": kind.type_url,
            "wildcard": kind.wildcard,
            "names": kind.names,
            "tracked": kind.tracked,
            "nonceSent": kind.nonce_sent,
            "nonceAcked": kind.nonce_acked,
            "synced": kind.nonce_sent == kind.nonce_acked,
            "lastError": kind.last_error,
        })
    });
    let connected = jiff::Timestamp::try_from(one.connected_at).map(|at| at.to_string()).unwrap_or_default();
    json!({
        "connectionId": one.id,
        "proxy": one.node,
        "cluster": one.cluster,
        "version": one.version,
        "address": one.peer,
        "connectedAt": connected,
        "types": types.collect::<Vec<_>>(),
    })
}

/// Everything published.
pub(super) fn ambient(addresses: &[Arc<Resource>], policies: &[Arc<Resource>]) -> Value {
    let (services, workloads): (Vec<_>, Vec<_>) = addresses.iter().partition(|one| one.is_group);
    let views = |all: Vec<&Arc<Resource>>| all.into_iter().map(|one| view::address(one)).collect::<Vec<_>>();
    let policies: Vec<_> = policies.iter().map(|one| view::authorization(one)).collect();
    json!({"workloads": views(workloads), "services": views(services), "policies": policies})
}

/// What waypoints and gateways are told.
pub(super) fn layer7(model: &Model) -> Value {
    let resources: Vec<_> = model.layer7().resources().values().map(|one| view::layer7(one)).collect();
    json!({"computed": model.layer7().computed(), "resources": resources})
}

/// What one proxy is sent.
pub(super) fn dump(proxy: &ConnectionStatus, hub: &Hub) -> Value {
    let configs: Map<_, _> = proxy
        .types
        .iter()
        .map(|kind| {
            let sent = hub.sent_to(proxy.id, kind.type_url);
            let views: Vec<_> = match kind.type_url {
                type_url::AUTHORIZATION => sent.iter().map(|one| view::authorization(one)).collect(),
                type_url::L7 => sent.iter().map(|one| view::layer7(one)).collect(),
                _ => sent.iter().map(|one| view::address(one)).collect(),
            };
            (kind.type_url.to_owned(), Value::from(views))
        })
        .collect();
    json!({"connection": connection(proxy), "configs": configs})
}

/// The settings in force, and what became of what was written.
pub(super) fn mesh(settings: &MeshSettings, report: &Reported, warnings: &[String]) -> Value {
    let idle = report.without_effect.iter().map(|one| json!({"field": one.field, "reason": one.reason}));
    let promises = &settings.promises;
    json!({
        "clusterId": &*settings.cluster_id,
        "domain": &*settings.domain,
        "revision": &*settings.revision,
        "trustDomain": settings.trust_domain.as_str(),
        "trustDomainAliases": settings.trust_domain_aliases.iter().map(|one| one.as_str()).collect::<Vec<_>>(),
        "rootNamespace": &*settings.root_namespace,
        "promises": {
            "l7DenyAtL4": promises.l7_deny_at_l4.name(),
            "waypointRequired": promises.waypoint_required.name(),
            "policyBeforeTraffic": promises.policy_before_traffic.name(),
            "unservedFields": promises.unserved_fields.name(),
        },
        "discoverySelectors": settings.discovery_selectors.len(),
        "withoutEffect": idle.collect::<Vec<_>>(),
        "refused": report.refused,
        "processWarnings": warnings,
    })
}

/// Networks and the gateways that lead to them.
pub(super) fn networks(world: &World) -> Value {
    let gateways = world.network_gateways().iter().map(|(network, gateway)| {
        let address = match &gateway.address {
            NetworkGatewayAddress::Ip(lies_in, ip) => format!("{lies_in}/{ip}"),
            NetworkGatewayAddress::Hostname(namespace, host) => format!("{namespace}/{host}"),
        };
        json!({"network": &**network, "gateway": address, "port": gateway.port})
    });
    json!({"network": world.network(), "gateways": gateways.collect::<Vec<_>>()})
}

/// Policies as they are published, and what their statuses say.
pub(super) fn authorization(model: &Model) -> Value {
    let policies: Vec<_> = model.authorizations().values().map(|one| view::authorization(one)).collect();
    let statuses = model.statuses().iter().map(|(target, status)| {
        let conditions = status
            .conditions
            .iter()
            .map(|one| json!({"type": one.type_, "status": one.holds, "reason": one.reason, "message": one.message}));
        json!({
            "kind": target.kind.name(),
            "object": target.key.to_string(),
            "conditions": conditions.collect::<Vec<_>>(),
        })
    });
    json!({"policies": policies, "statuses": statuses.collect::<Vec<_>>()})
}

/// The last publication, and how far the proxies are.
pub(super) fn push_status(hub: &Hub, all: &[ConnectionStatus]) -> Value {
    let types = || all.iter().flat_map(|one| &one.types);
    json!({
        "version": &*hub.version(),
        "ready": hub.is_ready(),
        "proxies": all.len(),
        "subscriptions": types().count(),
        "unsynced": types().filter(|kind| kind.nonce_sent != kind.nonce_acked).count(),
        "rejected": types().filter(|kind| kind.last_error.is_some()).count(),
    })
}
