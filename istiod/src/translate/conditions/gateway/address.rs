//! Where a Gateway is reached, and whether that is so already. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::gateway::GatewayStatusAddress;

use super::condition;
use super::listener::Verdict;
use crate::translate::conditions::{Condition, words};
use crate::translate::gateway::{Family, HOSTNAME, hosts, service};
use crate::translate::listener::Effective;
use crate::translate::plan;
use crate::world::{Gateway, Service, TargetPort, World};

/// Addresses of a Gateway, and what its status says about being reached.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// None known: those it has stay.
    pub(super) addresses: Vec<GatewayStatusAddress>,
    /// The condition Programmed.
    pub(super) condition: Condition,
}

/// What was found of the Services of a Gateway.
#[derive(Default)]
struct Services<'a> {
    /// `host:port` that lead to the Gateway.
    assigned: BTreeSet<String>,
    /// Why others do not.
    failed: Vec<String>,
    /// Waits for an address from outside.
    pending: BTreeSet<Arc<str>>,
    /// Waits for a pod.
    unready: BTreeSet<Arc<str>>,
    /// Services with at least one port that leads to the Gateway, by host.
    usable: BTreeMap<Arc<str>, &'a Arc<Service>>,
}

/// Looks for the Services of a Gateway, for these listeners.
pub(super) fn find(world: &World, gateway: &Gateway, family: Family, listeners: &[(Effective<'_>, Verdict)]) -> Found {
    // A listener that cannot be served says so itself, and keeps nobody from reaching the others.
    let ports: BTreeSet<_> = listeners.iter().filter(|(one, _)| plan::has_port(one)).map(|(one, _)| one.port).collect();
    let mut services = Services::default();
    for host in hosts(world, gateway, family) {
        services.look(world, gateway, family, &host, &ports);
    }
    let addresses = addresses(gateway, family, &services);
    Found { addresses, condition: programmed(&services) }
}

impl<'a> Services<'a> {
    fn look(&mut self, world: &'a World, gateway: &Gateway, family: Family, host: &Arc<str>, ports: &BTreeSet<u16>) {
        let Some(service) = service(world, host) else {
            self.failed.push(format!("hostname {host:?} is not found: there is no such Service"));
            return;
        };
        let unready = family == Family::Waypoint && !has_ready_pod(world, gateway);
        for port in ports {
            if !service.ports.iter().any(|one| one.port == *port) {
                self.failed.push(missing(host, *port, service));
            } else if unready {
                self.unready.insert(host.clone());
            } else {
                self.assigned.insert(format!("{host}:{port}"));
                self.usable.insert(host.clone(), service);
                if service.load_balancer && service.external.is_empty() {
                    self.pending.insert(host.clone());
                }
            }
        }
    }
}

fn missing(host: &str, port: u16, service: &Service) -> String {
    let leads = service.ports.iter().filter(|one| one.target == TargetPort::Number(port));
    let leads: Vec<_> = leads.map(|one| one.port.to_string()).collect();
    match leads.as_slice() {
        [] => format!("port {port} is not found for hostname {host:?}"),
        _ => format!(
            "port {port} is not found for hostname {host:?}: it is the targetPort of service port {}, which a listener \
             would have to name",
            leads.join(", ")
        ),
    }
}

fn has_ready_pod(world: &World, gateway: &Gateway) -> bool {
    world.pods_of_gateway(&gateway.key).any(|pod| pod.ready && !pod.ips.is_empty())
}

fn programmed(services: &Services<'_>) -> Condition {
    let list = |all: &BTreeSet<Arc<str>>| all.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
    if !services.failed.is_empty() {
        let extent = if services.assigned.is_empty() { "no" } else { "not every" };
        let message = format!("{extent} address could be assigned: {}", services.failed.join("; "));
        return condition(words::PROGRAMMED, Err(ADDRESS_NOT_USABLE), message);
    }
    if !services.unready.is_empty() {
        let message = format!("no pod of {} is ready", list(&services.unready));
        return condition(words::PROGRAMMED, Err(ADDRESS_NOT_ASSIGNED), message);
    }
    if !services.pending.is_empty() {
        let message = format!("{} waits for an address of a load balancer", list(&services.pending));
        return condition(words::PROGRAMMED, Err(ADDRESS_NOT_ASSIGNED), message);
    }
    if services.assigned.is_empty() {
        let message = "there is no listener, or no Service of the listed addresses".to_owned();
        return condition(words::PROGRAMMED, Err(words::INVALID), message);
    }
    let all: Vec<_> = services.assigned.iter().map(String::as_str).collect();
    let message = format!("assigned to service(s) {}", joined(&all));
    condition(words::PROGRAMMED, Ok(words::PROGRAMMED), message)
}

/// "a", "a and b", "a, b, and c".
fn joined(all: &[&str]) -> String {
    match all {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [rest @ .., last] => format!("{}, and {last}", rest.join(", ")),
    }
}

/// From outside first; else names and addresses of the cluster, as the class or an annotation asks.
fn addresses(gateway: &Gateway, family: Family, services: &Services<'_>) -> Vec<GatewayStatusAddress> {
    let of = |type_: &str, value: String| GatewayStatusAddress { type_: Some(type_.to_owned()), value };
    let is_ip = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    let outside = || services.usable.values().flat_map(|service| service.external.iter());
    let ips = outside().filter(|text| is_ip(text)).map(|text| of(IP_ADDRESS, text.to_string()));
    let names = outside().filter(|text| !is_ip(text)).map(|text| of(HOSTNAME, text.to_string()));
    let mut found: Vec<_> = ips.chain(names).collect();
    if found.is_empty() {
        let asked = gateway.annotations.get(ADDRESS_TYPE);
        let (hostname, ip) = match (asked, family) {
            (Some(""), _) | (None, Family::Waypoint) => (true, true),
            (Some(IP_ADDRESS), _) => (false, true),
            (Some(_), _) | (None, _) => (true, false),
        };
        for (host, service) in &services.usable {
            found.extend(hostname.then(|| of(HOSTNAME, host.to_string())));
            let ips = service.cluster_ips.iter().filter(|_| ip);
            found.extend(ips.map(|one| of(IP_ADDRESS, one.to_string())));
        }
    }
    found.truncate(ADDRESSES_MAX);
    found
}

const IP_ADDRESS: &str = "IPAddress";
/// Gateway annotation: what its status tells as addresses; empty: names and addresses.
const ADDRESS_TYPE: &str = "networking.istio.io/address-type";
/// The API takes no more.
const ADDRESSES_MAX: usize = 16;
const ADDRESS_NOT_USABLE: &str = "AddressNotUsable";
const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
