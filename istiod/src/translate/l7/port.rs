//! Ports of a service at the waypoints that serve it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::addr::ip_to_bytes;
use mesh_core::names::NamespacedName;
use mesh_wire::l7;
use mesh_wire::l7::resource::Kind as Message;
use mesh_xds::server::Resource;

use super::authorization::guard;
use super::backend::{Backends, ServedPort, ports_of, target};
use super::layer::{self, Told};
use super::proxy::Own;
use super::remarks::Remarks;
use super::uses::Uses;
use super::{retry, rival, virtual_service};
use crate::translate::gateway::Family;
use crate::translate::waypoint::{self, Subject};
use crate::translate::{resource, route};
use crate::world::{HostKey, Protocol, Scope, Winner, World};

/// Resources of one service, and what they were computed from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Built {
    /// By name.
    pub(crate) resources: BTreeMap<Arc<str>, Resource>,
    /// What they depend on, beside what the service itself says.
    pub(crate) uses: Uses,
    /// What was found wrong with objects on the way.
    pub(crate) remarks: Remarks,
}

/// Ports of a service at every waypoint that serves it, its canary included.
///
/// # Source
/// spec of the gateway controller, section 13; of waypoints, sections 2 and 12.
///
/// `told` are the resources that were told last.
pub(crate) fn ports(world: &World, host: &HostKey, told: &Told) -> Built {
    let mut built = Built::default();
    let Some(winner) = world.winner(host) else { return built };
    let addresses = addresses(winner, &host.hostname);
    let named = world.settings().multi_network;
    if addresses.is_empty() && !named {
        return built;
    }
    for own in serving(world, winner) {
        let gateway = &own.gateway.key;
        let audience = own.audience();
        let by_hostname = named && rival::of_hostname(world, gateway, winner, host).is_none();
        for port in ports_of(winner).iter().filter(|port| port.protocol != Protocol::Udp) {
            let place = Place { world, own, host, winner, port };
            let mut backends = Backends::new(world, own.client()).of(host);
            let mut message = place.message(&mut backends);
            // What belongs to somebody else is never taken over.
            let free = |ip: &&IpAddr| rival::of_address(world, gateway, winner, **ip, port.number).is_none();
            message.addresses = addresses.iter().filter(free).map(|ip| ip_to_bytes(*ip)).collect();
            message.by_hostname = by_hostname;
            let name = format!("{gateway}/{host}:{}", port.number);
            backends.keep(|| layer::backends_of(told, &name, &audience));
            let collected = backends.finish();
            message.backends = collected.list;
            built.uses.extend(collected.uses);
            built.remarks.extend(collected.remarks);
            let made = resource::l7(name, Message::Port(message), gateway, audience.clone());
            built.resources.insert(made.name.clone(), made);
        }
    }
    built
}

/// One port at one waypoint.
struct Place<'a> {
    world: &'a World,
    own: Own<'a>,
    host: &'a HostKey,
    winner: Winner<'a>,
    port: &'a ServedPort,
}

impl Place<'_> {
    fn message(&self, backends: &mut Backends<'_>) -> l7::Port {
        let (kind, key) = target(self.winner);
        let gateway = &self.own.gateway.key;
        let mut message = l7::Port {
            gateway: gateway.to_string(),
            namespace: self.host.namespace.to_string(),
            hostname: self.host.hostname.to_string(),
            port: self.port.number.into(),
            port_name: self.port.name.to_string(),
            protocol: protocol(self.port.protocol).into(),
            ..l7::Port::default()
        };
        match backends.index(self.host, self.port.number, "") {
            Ok(index) => message.default_backend = index,
            Err(error) => message.refuse_all = error.to_string(),
        }
        if self.own.family == Family::EastWest {
            message.protocol = l7::Protocol::Tcp.into();
            return message;
        }
        let guard = guard(self.world, self.world.policies_on(kind, key), Some(self.port.number));
        message.authorizations = guard.authorizations;
        if message.refuse_all.is_empty() {
            message.refuse_all = guard.refuse_all;
        }
        self.route(&mut message, backends);
        message
    }

    /// Routes of the Gateway API win where there are any.
    fn route(&self, message: &mut l7::Port, backends: &mut Backends<'_>) {
        let gateway = &self.own.gateway.key;
        let routed = route::for_service(self.world, gateway, self.host, self.port.number, backends);
        let written = virtual_service::Rules { world: self.world, gateway, host: self.host, port: self.port };
        let speaks = self.port.protocol;
        message.http = match routed.http {
            Some(table) => Some(table),
            None if speaks.is_http() => written.http(backends).or_else(|| self.usual(message.default_backend)),
            None => None,
        };
        if routed.tls_rules.is_empty() && routed.tcp_rules.is_empty() && speaks.is_l4() {
            message.tls_rules = written.tls(backends);
            message.tcp_rules = written.tcp(backends);
        } else {
            message.tls_rules = routed.tls_rules;
            message.tcp_rules = routed.tcp_rules;
        }
    }

    /// Everything to the service, with the mesh's own retries; proxies know the usual ones.
    fn usual(&self, backend: u32) -> Option<l7::HttpTable> {
        let settings = self.world.settings();
        settings.l7.default_retry.as_ref()?;
        let target = l7::weighted_backend::Target::Backend(backend);
        let backend = l7::WeightedBackend { weight: 1, target: Some(target), ..l7::WeightedBackend::default() };
        let forward = l7::Forward { backends: vec![backend] };
        let rule = l7::HttpRule {
            origin: Some(l7::Origin { rule_name: "default".to_owned(), ..l7::Origin::default() }),
            action: Some(l7::http_rule::Action::Forward(forward)),
            retry: retry::usual(settings),
            ..l7::HttpRule::default()
        };
        let host = l7::VirtualHost { hostnames: vec!["*".to_owned()], entries: vec![l7::HttpEntry::default()] };
        Some(l7::HttpTable { hosts: vec![host], rules: vec![rule] })
    }
}

/// Gateways that a service's traffic passes, each once. Whether they have an address does not matter: they must know the
/// service before anybody comes.
pub(super) fn serving<'a>(world: &'a World, winner: Winner<'_>) -> Vec<Own<'a>> {
    let (subject, labels) = match winner {
        Winner::Service(service) => (Subject::of_service(service), &service.labels),
        Winner::Entry(entry) => (Subject::of_entry(world, entry), &entry.labels),
    };
    let own = |key: &NamespacedName| Own::find(world, key);
    let waypoints = waypoint::serving(world, subject);
    let mut all: Vec<_> = waypoints.iter().filter_map(own).filter(|own| own.family == Family::Waypoint).collect();
    if world.settings().multi_network
        && world.settings().scope(labels, world.namespace(subject.namespace)) == Scope::Global
    {
        let gateways = world.gateways().filter_map(|gateway| own(&gateway.key));
        all.extend(gateways.filter(|own| own.family == Family::EastWest));
    }
    all
}

/// Addresses that calls may name. A block of addresses is none.
pub(super) fn addresses(winner: Winner<'_>, hostname: &str) -> Vec<IpAddr> {
    match winner {
        Winner::Service(service) => service.cluster_ips.to_vec(),
        Winner::Entry(entry) if entry.addresses.is_empty() => entry.allocated(hostname).collect(),
        Winner::Entry(entry) => entry.single_addresses().collect(),
    }
}

fn protocol(protocol: Protocol) -> l7::Protocol {
    match protocol {
        Protocol::Unknown | Protocol::Udp => l7::Protocol::Detect,
        Protocol::Http => l7::Protocol::Http,
        Protocol::Http2 => l7::Protocol::Http2,
        Protocol::Grpc => l7::Protocol::Grpc,
        Protocol::GrpcWeb => l7::Protocol::GrpcWeb,
        Protocol::Tcp | Protocol::Stream => l7::Protocol::Tcp,
        Protocol::Tls | Protocol::Wss => l7::Protocol::Tls,
    }
}
