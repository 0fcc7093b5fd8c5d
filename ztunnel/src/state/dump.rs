//! Workloads, services and policies as `config_dump` shows them. Tools parse this: names are
//! contracts. Fields that hold their default are left out.

use std::sync::Arc;

use mesh_policy::Policy;
use serde_json::{Map, Value, json};

use super::gateway::GatewayAddress;
use super::service::{HealthPolicy, IpFamilies, LbScope, LoadBalancer, Mode, Service, Visibility};
use super::snapshot::{Endpoints, Snapshot};
use super::workload::{Health, NetworkMode, Protocol, Workload};

impl Snapshot {
    /// Keys `workloads`, `services`, `policies` and `stagedServices`.
    #[must_use]
    pub fn dump(&self) -> Map<String, Value> {
        let mut workloads: Vec<_> = self.workloads().collect();
        workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
        let mut services: Vec<_> = self.services().collect();
        services.sort_by(|a, b| (&a.key.name, &a.key.namespace).cmp(&(&b.key.name, &b.key.namespace)));
        let mut policies: Vec<_> = self.policies().collect();
        policies.sort_by(|a, b| a.key.cmp(&b.key));
        let workloads: Vec<_> = workloads.into_iter().map(|workload| dump_workload(workload)).collect();
        let services: Vec<_> = services.into_iter().map(|service| self.dump_service(service)).collect();
        let policies: Vec<_> = policies.into_iter().map(|policy| dump_policy(policy)).collect();
        let staged: Map<_, _> = self.staged().map(|(key, set)| (key.to_string(), dump_endpoints(set))).collect();
        let mut out = Map::new();
        out.insert("workloads".to_owned(), workloads.into());
        out.insert("services".to_owned(), services.into());
        out.insert("policies".to_owned(), policies.into());
        out.insert("stagedServices".to_owned(), staged.into());
        out
    }

    fn dump_service(&self, service: &Service) -> Value {
        let mut out = Object::default();
        out.text("name", &service.name);
        out.text("namespace", service.namespace());
        out.text("hostname", service.hostname());
        out.set("vips", service.vips.iter().map(ToString::to_string).collect::<Vec<_>>().into());
        out.list("cidrVips", service.cidr_vips.iter().map(|range| format!("{}/{}", range.network, range.net).into()));
        out.set("ports", json!(service.ports));
        out.set("endpoints", self.endpoints(service).map_or_else(|| json!({}), dump_endpoints));
        out.list("subjectAltNames", service.subject_alt_names.iter().map(|name| name.as_str().into()));
        out.gateway("waypoint", service.waypoint.as_deref());
        let weighted = service.weighted_waypoints.iter();
        out.list(
            "weightedWaypoints",
            weighted.map(|(waypoint, weight)| json!({"destination": gateway(waypoint), "weight": weight})),
        );
        if let Some(balancer) = &service.load_balancer {
            out.set("loadBalancer", dump_balancer(balancer));
        }
        match service.ip_families {
            IpFamilies::Automatic => {}
            IpFamilies::V4Only => out.set("ipFamilies", "IPv4".into()),
            IpFamilies::V6Only => out.set("ipFamilies", "IPv6".into()),
            IpFamilies::Dual => out.set("ipFamilies", "Dual".into()),
        }
        if service.canonical {
            out.set("canonical", true.into());
        }
        // An extension of our own control plane.
        if service.waypoint_required {
            out.set("waypointRequired", true.into());
        }
        if service.visibility == Visibility::Namespace {
            out.set("visibility", "Namespace".into());
        }
        out.0.into()
    }
}

/// One workload.
#[must_use]
pub(crate) fn dump_workload(workload: &Workload) -> Value {
    let mut out = Object::default();
    out.text("uid", &workload.uid);
    out.set("workloadIps", workload.ips.iter().map(ToString::to_string).collect::<Vec<_>>().into());
    out.set("protocol", if workload.protocol == Protocol::Hbone { "HBONE" } else { "TCP" }.into());
    out.set("name", (*workload.name).into());
    out.set("namespace", (*workload.namespace).into());
    out.set("serviceAccount", workload.identity.service_account().into());
    out.set("trustDomain", workload.identity.trust_domain().as_str().into());
    out.text("network", &workload.network);
    out.gateway("networkGateway", workload.network_gateway.as_deref());
    out.gateway("waypoint", workload.waypoint.as_deref());
    out.text("workloadName", &workload.workload_name);
    out.set("workloadType", workload.workload_type.as_str().into());
    out.text("canonicalName", &workload.canonical_name);
    out.text("canonicalRevision", &workload.canonical_revision);
    out.text("hostname", &workload.hostname);
    out.text("node", &workload.node);
    out.list("authorizationPolicies", workload.authorization_policies.iter().map(|key| (**key).into()));
    out.set("status", status(workload.health).into());
    out.text("clusterId", &workload.cluster_id);
    let mut locality = Object::default();
    locality.text("region", &workload.locality.region);
    locality.text("zone", &workload.locality.zone);
    locality.text("subzone", &workload.locality.subzone);
    out.object("locality", locality.0);
    let services = workload.services.iter().map(|(key, ports)| (key.to_string(), json!(ports)));
    out.object("services", services.collect());
    if workload.network_mode == NetworkMode::HostNetwork {
        out.set("networkMode", "HostNetwork".into());
    }
    if workload.native_tunnel {
        out.set("nativeTunnel", true.into());
    }
    if let Some(tunnel) = workload.application_tunnel {
        let protocol = if tunnel.proxy_protocol { "PROXY" } else { "NONE" };
        out.set("applicationTunnel", json!({"protocol": protocol, "port": tunnel.port}));
    }
    if workload.capacity != 1 {
        out.set("capacity", workload.capacity.into());
    }
    out.0.into()
}

fn dump_endpoints(set: &Arc<Endpoints>) -> Value {
    let dump = |(uid, endpoint): (&Arc<str>, &super::Endpoint)| {
        let shown = json!({"workloadUid": uid, "port": endpoint.ports, "status": status(endpoint.workload.health)});
        (uid.to_string(), shown)
    };
    Value::Object(set.iter().map(dump).collect())
}

fn dump_policy(policy: &Policy) -> Value {
    let mut out = Object::default();
    out.text("name", &policy.key.name);
    out.text("namespace", &policy.key.namespace);
    out.set("scope", json!(policy.scope));
    out.set("action", json!(policy.action));
    out.set("rules", json!(policy.rules));
    if policy.dry_run {
        out.set("dryRun", true.into());
    }
    out.0.into()
}

fn dump_balancer(balancer: &LoadBalancer) -> Value {
    let scope = |scope: &LbScope| match scope {
        LbScope::Region => "Region",
        LbScope::Zone => "Zone",
        LbScope::Subzone => "Subzone",
        LbScope::Node => "Node",
        LbScope::Cluster => "Cluster",
        LbScope::Network => "Network",
    };
    let mode = match balancer.mode {
        Mode::Standard => "Standard",
        Mode::Strict => "Strict",
        Mode::Failover => "Failover",
        Mode::Passthrough => "Passthrough",
    };
    let health = match balancer.health_policy {
        HealthPolicy::OnlyHealthy => "OnlyHealthy",
        HealthPolicy::AllowAll => "AllowAll",
    };
    let preferences: Vec<_> = balancer.routing_preferences.iter().map(scope).collect();
    json!({"routingPreferences": preferences, "mode": mode, "healthPolicy": health})
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
}

fn gateway(address: &GatewayAddress) -> Value {
    json!({"destination": address.destination.to_string(), "hboneMtlsPort": address.hbone_mtls_port})
}

/// An object under construction.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Left out when empty.
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.set(name, value.into());
        }
    }

    /// Left out when empty.
    fn list(&mut self, name: &str, values: impl Iterator<Item = Value>) {
        let values: Vec<_> = values.collect();
        if !values.is_empty() {
            self.set(name, values.into());
        }
    }

    /// Left out when empty.
    fn object(&mut self, name: &str, fields: Map<String, Value>) {
        if !fields.is_empty() {
            self.set(name, fields.into());
        }
    }

    fn gateway(&mut self, name: &str, address: Option<&GatewayAddress>) {
        if let Some(address) = address {
            self.set(name, gateway(address));
        }
    }
}
