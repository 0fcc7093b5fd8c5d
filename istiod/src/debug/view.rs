//! Resources as people read them: JSON with the field names of the API, addresses as text, empty fields left out.

use mesh_core::addr::ip_from_bytes;
use mesh_wire::meltemi;
use mesh_wire::security::string_match::MatchType;
use mesh_wire::security::{Address as Block, Authorization, Match, ServiceAccountMatch, StringMatch};
use mesh_wire::workload::address::Type;
use mesh_wire::workload::gateway_address::Destination;
use mesh_wire::workload::{
    Address, AppProtocol, GatewayAddress, LoadBalancing, NetworkAddress, Port, Service, Visibility, WeightedWaypoint,
    Workload,
};
use mesh_xds::server::Resource;
use prost::Message;
use serde_json::{Map, Value, json};

use crate::translate::l7::layer::redacted;

/// An Address resource; its JSON says which kind it is.
pub fn address(resource: &Resource) -> Value {
    match Address::decode(resource.body.clone()).ok().and_then(|address| address.r#type) {
        Some(Type::Workload(one)) => workload(&one),
        Some(Type::Service(one)) => service(&one),
        None => Value::Null,
    }
}

/// An Authorization resource.
pub fn authorization(resource: &Resource) -> Value {
    Authorization::decode(resource.body.clone()).map(|policy| policy_view(&policy)).unwrap_or_default()
}

/// A resource of layer 7, line by line; what is empty is left out, and keys are not shown.
pub fn layer7(resource: &Resource) -> Value {
    let Some(message) = redacted(resource) else { return Value::Null };
    let text = format!("{message:#?}");
    let empty =
        |line: &str| [": None,", ": \"\",", ": [],", ": 0,", ": false,", ": {},"].iter().any(|end| line.ends_with(end));
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !empty(line)).collect();
    json!({"name": &*resource.name, "audience": resource.audience.as_deref(), "content": lines})
}

/// A workload.
pub fn workload(one: &Workload) -> Value {
    let addresses: Vec<_> = one.addresses.iter().map(|bytes| ip(bytes)).collect();
    let services: Map<_, _> = one.services.iter().map(|(key, list)| (key.clone(), ports(&list.ports))).collect();
    let locality = one.locality.as_ref().map(|place| {
        let parts = [&place.region, &place.zone, &place.subzone];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
    });
    tidy(json!({
        "uid": one.uid,
        "name": one.name,
        "namespace": one.namespace,
        "addresses": addresses,
        "hostname": one.hostname,
        "network": one.network,
        "networkGateway": one.network_gateway.as_ref().map(gateway),
        "tunnelProtocol": one.tunnel_protocol().as_str_name(),
        "nativeTunnel": one.native_tunnel,
        "trustDomain": one.trust_domain,
        "serviceAccount": one.service_account,
        "node": one.node,
        "canonicalName": one.canonical_name,
        "canonicalRevision": one.canonical_revision,
        "workloadType": one.workload_type().as_str_name(),
        "workloadName": one.workload_name,
        "services": services,
        "authorizationPolicies": one.authorization_policies,
        "status": one.status().as_str_name(),
        "clusterId": one.cluster_id,
        "locality": locality,
        "networkMode": one.network_mode().as_str_name(),
        "waypoint": one.waypoint.as_ref().map(gateway),
        "applicationTunnel": one.application_tunnel.as_ref().map(|to| format!("{}/{}", to.protocol().as_str_name(), to.port)),
        "capacity": one.capacity,
    }))
}

/// A service.
pub fn service(one: &Service) -> Value {
    let address = |at: &NetworkAddress| {
        let length = at.length.map(|length| format!("/{length}")).unwrap_or_default();
        format!("{}/{}{length}", at.network, ip(&at.address))
    };
    tidy(json!({
        "name": one.name,
        "namespace": one.namespace,
        "hostname": one.hostname,
        "addresses": one.addresses.iter().map(address).collect::<Vec<_>>(),
        "ports": ports(&one.ports),
        "subjectAltNames": one.subject_alt_names,
        "loadBalancing": one.load_balancing.as_ref().map(load_balancing),
        "ipFamilies": one.ip_families().as_str_name(),
        "canonical": one.canonical,
        "visibility": Some(one.visibility()).filter(|who| *who != Visibility::Public).map(|who| who.as_str_name()),
        "waypoint": one.waypoint.as_ref().map(gateway),
        "weightedWaypoints": one.weighted_waypoints.iter().map(weighted).collect::<Vec<_>>(),
        "ingressUseWaypoint": one.ingress_use_waypoint,
        "waypointRequired": one.extensions.iter().any(|one| one.name == meltemi::WAYPOINT_REQUIRED),
    }))
}

fn gateway(one: &GatewayAddress) -> String {
    let host = match &one.destination {
        Some(Destination::Hostname(host)) => format!("{}/{}", host.namespace, host.hostname),
        Some(Destination::Address(at)) => format!("{}/{}", at.network, ip(&at.address)),
        None => String::new(),
    };
    format!("{host}:{}", one.hbone_mtls_port)
}

fn weighted(one: &WeightedWaypoint) -> String {
    format!("{} {}", one.destination.as_ref().map(gateway).unwrap_or_default(), one.weight)
}

fn policy_view(policy: &Authorization) -> Value {
    let clause = |matches: &[Match]| matches.iter().map(matcher).collect::<Vec<_>>();
    let rules = policy.rules.iter().map(|rule| rule.clauses.iter().map(|one| clause(&one.matches)).collect::<Vec<_>>());
    let mut view = tidy(json!({
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope().as_str_name(),
        "action": policy.action().as_str_name(),
        "dryRun": policy.dry_run,
    }));
    if let Value::Object(fields) = &mut view {
        // Kept when empty: no rule at all and a rule without clauses are opposites.
        fields.insert("rules".to_owned(), rules.collect::<Vec<_>>().into());
    }
    view
}

fn matcher(one: &Match) -> Value {
    let strings = |list: &[StringMatch]| list.iter().map(string).collect::<Vec<_>>();
    let blocks =
        |list: &[Block]| list.iter().map(|one| format!("{}/{}", ip(&one.address), one.length)).collect::<Vec<_>>();
    let accounts = |list: &[ServiceAccountMatch]| {
        list.iter().map(|one| format!("{}/{}", one.namespace, one.service_account)).collect::<Vec<_>>()
    };
    tidy(json!({
        "namespaces": strings(&one.namespaces),
        "notNamespaces": strings(&one.not_namespaces),
        "principals": strings(&one.principals),
        "notPrincipals": strings(&one.not_principals),
        "serviceAccounts": accounts(&one.service_accounts),
        "notServiceAccounts": accounts(&one.not_service_accounts),
        "sourceIps": blocks(&one.source_ips),
        "notSourceIps": blocks(&one.not_source_ips),
        "destinationIps": blocks(&one.destination_ips),
        "notDestinationIps": blocks(&one.not_destination_ips),
        "destinationPorts": one.destination_ports,
        "notDestinationPorts": one.not_destination_ports,
    }))
}

fn string(one: &StringMatch) -> String {
    match &one.match_type {
        Some(MatchType::Exact(text)) => text.clone(),
        Some(MatchType::Prefix(text)) => format!("{text}*"),
        Some(MatchType::Suffix(text)) => format!("*{text}"),
        Some(MatchType::Presence(())) => "*".to_owned(),
        None => String::new(),
    }
}

fn ports(list: &[Port]) -> Value {
    let port = |one: &Port| {
        let protocol = match one.app_protocol() {
            AppProtocol::Unknown => String::new(),
            known => format!(" {}", known.as_str_name()),
        };
        format!("{}:{}{protocol}", one.service_port, one.target_port)
    };
    list.iter().map(port).collect::<Vec<_>>().into()
}

fn load_balancing(one: &LoadBalancing) -> Value {
    tidy(json!({
        "routingPreference": one.routing_preference().map(|scope| scope.as_str_name()).collect::<Vec<_>>(),
        "mode": one.mode().as_str_name(),
        "healthPolicy": one.health_policy().as_str_name(),
    }))
}

fn ip(bytes: &[u8]) -> String {
    ip_from_bytes(bytes).map_or_else(|| "invalid".to_owned(), |ip| ip.to_string())
}

/// Leaves out what is not set.
fn tidy(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    fields.into_iter().filter(|(_, value)| set(value)).collect::<Map<_, _>>().into()
}
