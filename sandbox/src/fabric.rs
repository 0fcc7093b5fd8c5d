//! The network between nodes: one bridge in the daemon's namespace, one namespace per node.
//!
//! ```text
//!   daemon's namespace            node-1's namespace                 a pod's namespace
//!   fabric0 172.30.0.1/24 ─veth─ eth0 172.30.0.11   cni0 10.244.1.1 ─veth─ eth0 10.244.1.2/32
//!           fd00:30::1/64              fd00:30::11       fd00:10:244:1::1        fd00:10:244:1::2/128
//! ```
//!
//! Nothing is translated on the way: every pod reaches every pod, node and the daemon under its own
//! address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_sys::netns::{self, NetNs};

use crate::link::{self, LinkError, Links, Route, set_sysctl};

pub mod node_dir;

/// The bridge that joins the nodes.
pub const BRIDGE: &str = "fabric0";

/// The node's interface on the fabric.
pub const NODE_INTERFACE: &str = "eth0";

/// The bridge of a node's pods.
pub const POD_BRIDGE: &str = "cni0";

/// Most nodes of a sandbox; node addresses are 11 and up in a /24.
pub const NODES_MAX: u32 = 64;

/// The daemon's IPv4 address on the fabric: API server and cluster DNS.
pub const DAEMON_IPV4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// The daemon's IPv6 address on the fabric.
pub const DAEMON_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1);

/// Settings of every namespace that forwards: no reverse-path filter (replies to translated and
/// original-source traffic would be dropped), no redirects, no duplicate address detection.
const FORWARDING_SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
];

const FORWARDING_SETTINGS_IPV6: &[(&str, &str)] = &[
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
];

/// Why the network could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FabricError {
    /// The kernel refused a link, address, route or setting.
    #[error("network of {place}")]
    Link {
        /// `fabric` or the node.
        place: String,
        /// What was refused.
        source: LinkError,
    },
    /// A namespace could not be made or entered.
    #[error("network namespace of {place}")]
    Namespace {
        /// `fabric` or the node.
        place: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Names and addresses of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// `node-1`, `node-2`, …
    pub name: String,
    /// On the fabric, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Subnets of its pods, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
}

/// Names and addresses of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order of their numbers.
    pub nodes: Vec<NodePlan>,
    /// Whether everything has an IPv6 address too.
    pub ipv6: bool,
}

impl Plan {
    /// The plan for so many nodes (at most [`NODES_MAX`]).
    pub fn new(nodes: u32, ipv6: bool) -> Self {
        let nodes = (1..=nodes.min(NODES_MAX)).map(|number| NodePlan::new(number, ipv6)).collect();
        Self { nodes, ipv6 }
    }

    /// The daemon's addresses on the fabric, IPv4 first.
    pub fn daemon_ips(&self) -> Vec<IpAddr> {
        let v6 = self.ipv6.then_some(IpAddr::V6(DAEMON_IPV6));
        [IpAddr::V4(DAEMON_IPV4)].into_iter().chain(v6).collect()
    }
}

impl NodePlan {
    fn new(number: u32, ipv6: bool) -> Self {
        // NODES_MAX keeps both inside their fields.
        let short = u8::try_from(number.min(NODES_MAX)).unwrap_or(u8::MAX);
        let mut ips = vec![IpAddr::V4(Ipv4Addr::new(172, 30, 0, 10 + short))];
        let pods = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, short, 0), 24);
        let mut pod_cidrs = vec![IpNet::V4(pods)];
        if ipv6 {
            // The number is read in decimal, so that both families look alike: ::11 is node 1.
            ips.push(IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, decimal_as_hex(10 + short))));
            let pods = Ipv6Addr::new(0xfd00, 0x10, 0x244, decimal_as_hex(short), 0, 0, 0, 0);
            pod_cidrs.push(IpNet::V6(Ipv6Net::new_assert(pods, 64)));
        }
        Self { name: format!("node-{number}"), ips, pod_cidrs }
    }

    /// The daemon's end of the node's link.
    fn fabric_link(&self) -> String {
        format!("v-{}", self.name)
    }
}

/// The group of hexadecimal digits that reads like `number` in decimal.
fn decimal_as_hex(number: u8) -> u16 {
    let number = u16::from(number);
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

/// Makes the bridge in the calling thread's namespace, and every node's namespace with its links,
/// addresses and routes. Blocks. Returns the namespaces in the plan's order.
///
/// # Errors
///
/// See [`FabricError`].
pub fn build(plan: &Plan) -> Result<Vec<NetNs>, FabricError> {
    let at = |place: &str| {
        let place = place.to_owned();
        move |source| FabricError::Namespace { place, source }
    };
    netns::loopback_up().map_err(at("fabric"))?;
    let own = NetNs::current().map_err(at("fabric"))?;
    let mut namespaces = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        namespaces.push(NetNs::create().map_err(at(&node.name))?);
    }
    link::configure(&own, async |links: Links| fabric_side(&links, plan, &namespaces).await)
        .map_err(|source| FabricError::Link { place: "fabric".to_owned(), source })?;
    for (node, namespace) in plan.nodes.iter().zip(&namespaces) {
        link::configure(namespace, async |links: Links| node_side(&links, plan, node).await)
            .map_err(|source| FabricError::Link { place: node.name.clone(), source })?;
    }
    Ok(namespaces)
}

async fn fabric_side(links: &Links, plan: &Plan, namespaces: &[NetNs]) -> Result<(), LinkError> {
    forward(plan.ipv6)?;
    links.add_bridge(BRIDGE).await?;
    for address in on_link(&plan.daemon_ips()) {
        links.add_address(BRIDGE, address).await?;
    }
    for (node, namespace) in plan.nodes.iter().zip(namespaces) {
        let name = node.fabric_link();
        links.add_veth(&name, NODE_INTERFACE, namespace).await?;
        links.enslave(&name, BRIDGE).await?;
    }
    for route in pod_routes(plan, None) {
        links.add_route(BRIDGE, route).await?;
    }
    Ok(())
}

async fn node_side(links: &Links, plan: &Plan, node: &NodePlan) -> Result<(), LinkError> {
    forward(plan.ipv6)?;
    // Interfaces exist since the daemon made the links: `default` settings came too late for it.
    if plan.ipv6 {
        set_sysctl(&format!("ipv6/conf/{NODE_INTERFACE}/accept_dad"), "0")?;
    }
    for address in on_link(&node.ips) {
        links.add_address(NODE_INTERFACE, address).await?;
    }
    links.up(NODE_INTERFACE).await?;
    for gateway in plan.daemon_ips() {
        links.add_route(NODE_INTERFACE, Route::default_via(gateway)).await?;
    }
    for route in pod_routes(plan, Some(node)) {
        links.add_route(NODE_INTERFACE, route).await?;
    }
    Ok(())
}

fn forward(ipv6: bool) -> Result<(), LinkError> {
    let v6 = if ipv6 { FORWARDING_SETTINGS_IPV6 } else { &[] };
    FORWARDING_SETTINGS.iter().chain(v6).try_for_each(|(name, value)| set_sysctl(name, value))
}

/// Routes to the pods of every node but `own`.
fn pod_routes(plan: &Plan, own: Option<&NodePlan>) -> Vec<Route> {
    plan.nodes
        .iter()
        .filter(|&node| Some(node) != own)
        .flat_map(|node| {
            node.pod_cidrs.iter().filter_map(|&destination| {
                let gateway = node.ips.iter().find(|ip| ip.is_ipv4() == destination.addr().is_ipv4());
                Some(Route { destination, gateway: Some(*gateway?) })
            })
        })
        .collect()
}

/// Fabric addresses with the prefix of their link.
fn on_link(ips: &[IpAddr]) -> Vec<IpNet> {
    ips.iter().map(|&ip| IpNet::new_assert(ip, if ip.is_ipv4() { 24 } else { 64 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_the_documentation_says() {
        let plan = Plan::new(2, true);
        let node = &plan.nodes[1];
        assert_eq!(node.name, "node-2");
        assert_eq!(node.ips, ["172.30.0.12".parse::<IpAddr>().unwrap(), "fd00:30::12".parse().unwrap()]);
        let cidrs: Vec<String> = node.pod_cidrs.iter().map(IpNet::to_string).collect();
        assert_eq!(cidrs, ["10.244.2.0/24", "fd00:10:244:2::/64"]);
        assert_eq!(Plan::new(12, true).nodes[11].ips[1].to_string(), "fd00:30::22");
    }

    #[test]
    fn without_ipv6_there_is_none() {
        let plan = Plan::new(3, false);
        assert!(plan.nodes.iter().all(|node| node.ips.len() == 1 && node.pod_cidrs.len() == 1));
        assert_eq!(plan.daemon_ips().len(), 1);
    }

    #[test]
    fn the_number_of_nodes_is_bounded_and_names_fit_a_link() {
        let plan = Plan::new(NODES_MAX + 1, true);
        assert_eq!(plan.nodes.len(), NODES_MAX as usize);
        assert!(plan.nodes.iter().all(|node| node.fabric_link().len() <= 15));
    }

    #[test]
    fn a_node_routes_to_the_others_pods_only() {
        let plan = Plan::new(2, true);
        let routes = pod_routes(&plan, Some(&plan.nodes[0]));
        let texts: Vec<String> =
            routes.iter().map(|r| format!("{} via {}", r.destination, r.gateway.unwrap())).collect();
        assert_eq!(texts, ["10.244.2.0/24 via 172.30.0.12", "fd00:10:244:2::/64 via fd00:30::12"]);
    }
}
