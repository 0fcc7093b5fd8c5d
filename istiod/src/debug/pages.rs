//! What the debug pages show, as JSON.

use std::io::{self, Write};
use std::sync::Arc;

use mesh_wire::type_url;
use mesh_xds::server::{ConnectionStatus, Hub, Resource};
use serde_json::{Value, json};

use super::sheet::object;
use super::view;
use crate::config::mesh::Reported;
use crate::translate::{ObjectStatus, StatusTarget};
use crate::world::{MeshSettings, NetworkGatewayAddress, World};

/// Connected proxies.
pub(super) fn connections(out: &mut impl Write, all: &[ConnectionStatus]) -> io::Result<()> {
    object(out, |page| page.list("connected", all.iter().map(connection)))
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
pub(super) fn ambient(out: &mut impl Write, addresses: &[Arc<Resource>], policies: &[Arc<Resource>]) -> io::Result<()> {
    let addresses_of = |is_group: bool| addresses.iter().filter(move |one| one.is_group == is_group);
    object(out, |page| {
        page.list("workloads", addresses_of(false).map(|one| view::address(one)))?;
        page.list("services", addresses_of(true).map(|one| view::address(one)))?;
        page.list("policies", policies.iter().map(|one| view::authorization(one)))
    })
}

/// What waypoints and gateways are told.
pub(super) fn layer7(out: &mut impl Write, computed: u64, resources: &[Arc<Resource>]) -> io::Result<()> {
    object(out, |page| {
        page.value("computed", &json!(computed))?;
        page.list("resources", resources.iter().map(|one| view::layer7(one)))
    })
}

/// What one proxy is sent.
pub(super) fn dump(out: &mut impl Write, proxy: &ConnectionStatus, hub: &Hub) -> io::Result<()> {
    object(out, |page| {
        page.value("connection", &connection(proxy))?;
        page.object("configs", |configs| {
            proxy.types.iter().try_for_each(|kind| {
                let view = match kind.type_url {
                    type_url::AUTHORIZATION => view::authorization,
                    type_url::L7 => view::layer7,
                    _ => view::address,
                };
                configs.list(kind.type_url, hub.sent_to(proxy.id, kind.type_url).iter().map(|one| view(one)))
            })
        })
    })
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
pub(super) fn authorization(
    out: &mut impl Write,
    policies: &[Arc<Resource>],
    statuses: &[(StatusTarget, Arc<ObjectStatus>)],
) -> io::Result<()> {
    object(out, |page| {
        page.list("policies", policies.iter().map(|one| view::authorization(one)))?;
        page.list("statuses", statuses.iter().map(|(target, status)| status_of(target, status)))
    })
}

fn status_of(target: &StatusTarget, status: &ObjectStatus) -> Value {
    let conditions = status
        .conditions
        .iter()
        .map(|one| json!({"type": one.type_, "status": one.holds, "reason": one.reason, "message": one.message}));
    json!({
        "kind": target.kind.name(),
        "object": target.key.to_string(),
        "conditions": conditions.collect::<Vec<_>>(),
    })
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
