//! What a decision would look up that the control plane has not told: with on-demand discovery these names are asked for
//! before the decision is made. Pure; names are `network/ip` and `namespace/hostname`.
//!
//! An answer may bring new references, so that the question is put again until nothing new is needed.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::NetworkAddr;
use mesh_core::addr::{canonical, canonical_ip};

use super::Source;
use crate::state::{Destination, Found, GatewayAddress, Service, Snapshot, Workload};

/// For a connection that `source` opens to `dst`.
#[must_use]
pub fn needs(snapshot: &Snapshot, source: &Source<'_>, dst: SocketAddr) -> Vec<String> {
    let dst = canonical(dst);
    let mut needs = Needs { snapshot, names: BTreeSet::new() };
    if dst.ip().is_loopback() {
        return Vec::new();
    }
    let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), dst.ip());
    match snapshot.address(Some(&source.workload.namespace), &addr) {
        None => needs.add(addr.to_string()),
        Some(Found::Workload(workload)) => {
            needs.workload(&workload);
            // One address may be both.
            if let Some(service) = snapshot.service_by_vip(Some(&source.workload.namespace), &addr) {
                needs.service(service, source.workload);
            }
        }
        Some(Found::Service(service)) => needs.service(&service, source.workload),
    }
    needs.names.into_iter().collect()
}

/// For a connection that arrives at `workload` from `source`, through a tunnel to `authority` if that is an address.
#[must_use]
pub fn inbound_needs(
    snapshot: &Snapshot,
    workload: &Workload,
    source: IpAddr,
    authority: Option<IpAddr>,
) -> Vec<String> {
    let mut needs = Needs { snapshot, names: BTreeSet::new() };
    let named = authority.into_iter().filter(|ip| !workload.owns(canonical_ip(*ip)));
    for ip in named.chain([source]).map(canonical_ip).filter(|ip| !ip.is_loopback()) {
        let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), ip);
        match snapshot.address(None, &addr) {
            None => needs.add(addr.to_string()),
            Some(Found::Workload(found)) => needs.references(found.waypoint.as_deref()),
            Some(Found::Service(found)) => needs.references(waypoints(&found)),
        }
    }
    // Whether the caller is the waypoint of a service that requires one.
    for (key, _) in &workload.services {
        match snapshot.service_by_key(key) {
            None => needs.add(key.to_string()),
            Some(service) => needs.references(waypoints(service)),
        }
    }
    needs.references(workload.waypoint.as_deref());
    needs.names.into_iter().collect()
}

struct Needs<'a> {
    snapshot: &'a Snapshot,
    names: BTreeSet<String>,
}

impl Needs<'_> {
    fn add(&mut self, name: String) {
        self.names.insert(name);
    }

    fn workload(&mut self, workload: &Workload) {
        self.references(workload.waypoint.as_deref());
        self.references(workload.network_gateway.as_deref());
    }

    fn service(&mut self, service: &Service, source: &Workload) {
        self.references(waypoints(service));
        self.elsewhere(service, source);
    }

    /// Gateways of the endpoints that are on other networks.
    fn elsewhere(&mut self, service: &Service, source: &Workload) {
        let endpoints = self.snapshot.endpoints(service).into_iter().flat_map(|endpoints| endpoints.values());
        for endpoint in endpoints.filter(|endpoint| endpoint.workload.network != source.network) {
            self.references(endpoint.workload.network_gateway.as_deref());
        }
    }

    /// What the references lead to, as far as it is known.
    fn references<'r>(&mut self, references: impl IntoIterator<Item = &'r GatewayAddress>) {
        for reference in references {
            match &reference.destination {
                Destination::Hostname(name) if self.snapshot.hostname(name).is_none() => self.add(name.to_string()),
                Destination::Address(addr) if self.snapshot.address(None, addr).is_none() => self.add(addr.to_string()),
                Destination::Hostname(_) | Destination::Address(_) => {}
            }
        }
    }
}

/// All that a connection may be sent through.
fn waypoints(service: &Service) -> impl Iterator<Item = &GatewayAddress> {
    service.weighted_waypoints.iter().map(|(waypoint, _)| waypoint).chain(service.waypoint.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixture::{NETWORK, World, address, backs, gateway, pod, service, service_address};

    #[test]
    fn unknown_addresses_are_asked_for_and_known_ones_lead_on() {
        let mut world = World::new().with([address(pod("shop/web", "10.1.0.5"))]);
        let ask = |world: &World, dst: &str| {
            let snapshot = world.snapshot();
            let web = snapshot.workload_by_uid("Kubernetes//Pod/shop/web").unwrap();
            let source = Source { workload: web, addr: "10.1.0.5:4000".parse().unwrap() };
            needs(&snapshot, &source, dst.parse().unwrap())
        };
        assert_eq!(ask(&world, "10.9.9.9:80"), [format!("{NETWORK}/10.9.9.9")]);
        assert_eq!(ask(&world, "[::ffff:10.9.9.9]:80"), [format!("{NETWORK}/10.9.9.9")]);
        assert_eq!(ask(&world, "127.0.0.1:80"), [""; 0]);
        assert_eq!(ask(&world, "10.1.0.5:80"), [""; 0]);
        let waypoint = "shop/waypoint.shop.svc.cluster.local";
        let mut cart = service(CART, &["172.20.0.9"], &[(80, 8080)]);
        cart.waypoint = Some(gateway(waypoint));
        world.add([service_address(cart)]);
        assert_eq!(ask(&world, "172.20.0.9:80"), [waypoint]);
        world.add([service_address(service(waypoint, &["172.20.0.10"], &[]))]);
        assert_eq!(ask(&world, "172.20.0.9:80"), [""; 0]);
    }

    #[test]
    fn endpoints_of_other_networks_need_their_gateways() {
        let gate = "istio-system/gate.istio-system.svc.cluster.local";
        let mut far = backs(pod("shop/far", ""), CART, &[(80, 8080)]);
        far.network = "n2".to_owned();
        far.network_gateway = Some(gateway(gate));
        let cart = service(CART, &["172.20.0.9"], &[(80, 8080)]);
        let web = pod("shop/web", "10.1.0.5");
        let snapshot = World::new().with([service_address(cart), address(far), address(web)]).snapshot();
        let web = snapshot.workload_by_uid("Kubernetes//Pod/shop/web").unwrap();
        let source = Source { workload: web, addr: "10.1.0.5:4000".parse().unwrap() };
        assert_eq!(needs(&snapshot, &source, "172.20.0.9:80".parse().unwrap()), [gate]);
    }

    #[test]
    fn an_arriving_connection_needs_its_source_and_the_waypoints_of_its_services() {
        let world = World::new().with([address(backs(pod("shop/cart", "10.1.0.77"), CART, &[(80, 8080)]))]);
        let snapshot = world.snapshot();
        let cart = snapshot.workload_by_uid("Kubernetes//Pod/shop/cart").unwrap();
        let source = format!("{NETWORK}/10.1.0.5");
        let ask = |authority: &str| {
            inbound_needs(&snapshot, cart, "10.1.0.5".parse().unwrap(), Some(authority.parse().unwrap()))
        };
        assert_eq!(ask("10.1.0.77"), [source.as_str(), CART]);
        assert_eq!(ask("172.20.0.9"), [source.as_str(), &format!("{NETWORK}/172.20.0.9"), CART]);
    }

    const CART: &str = "shop/cart.shop.svc.cluster.local";
}
