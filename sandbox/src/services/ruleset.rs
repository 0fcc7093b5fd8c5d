//! The nftables table of a node's Services. Pure: objects in, text out.
//!
//! ```text
//! prerouting/output → translate → vip4/vip6 (verdict maps) → one chain a port → dnat
//! forward/output    → none4/none6 (ports without endpoints) → refuse
//! postrouting       → masquerade what a pod sends to itself, and node ports
//! ```
//! The table is replaced as a whole in one transaction; connections that are under way live in
//! the connection table and are not touched.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as api, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::controllers::load_balancer;

/// Address family of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family's match word, `dnat` word, address type and suffix of names.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::V4 => ("ip", "ipv4_addr", "4"),
            Self::V6 => ("ip6", "ipv6_addr", "6"),
        }
    }

    fn slice_type(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// One port of a Service at one of its addresses, with where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePort {
    /// `namespace/name`.
    pub(super) service: String,
    pub(super) address: IpAddr,
    /// `tcp` or `udp`.
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(super) endpoints: Vec<(IpAddr, u16)>,
}

impl ServicePort {
    pub(super) fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// By which ports are sorted, so that the text only changes with the content.
    pub(super) fn order(&self) -> (&str, Family, &str, u16, IpAddr) {
        (&self.service, self.family(), self.protocol, self.port, self.address)
    }

    fn chain(&self) -> String {
        let (_, _, number) = self.family().words();
        format!("service-{}/{}/{}/v{number}", self.service, self.protocol, self.port)
    }

    /// The key of the verdict maps.
    fn key(&self) -> String {
        format!("{} . {} . {}", self.address, self.protocol, self.port)
    }
}

/// The ports of a Service with its cluster IPs and the addresses of its load balancer; none for headless and
/// external-name ones.
pub(super) fn service_ports(service: &Service, slices: &[Arc<EndpointSlice>], node_name: &str) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let namespace = service.namespace().unwrap_or_default();
    let name = service.name_any();
    let own: Vec<&EndpointSlice> = slices
        .iter()
        .map(AsRef::as_ref)
        .filter(|slice| {
            slice.metadata.namespace.as_deref() == Some(&namespace)
                && slice.labels().get("kubernetes.io/service-name") == Some(&name)
        })
        .collect();
    let local_only = spec.internal_traffic_policy.as_deref() == Some("Local");
    let local_to = local_only.then_some(node_name);
    let mut ports = Vec::new();
    let inside = cluster_ips(spec).into_iter().map(|address| (address, true));
    let outside = load_balancer::ingress_ips(service).into_iter().map(|address| (address, false));
    for (address, in_cluster) in inside.chain(outside) {
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = protocol(port.protocol.as_deref()) else {
                continue;
            };
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            ports.push(ServicePort {
                service: format!("{namespace}/{name}"),
                address,
                protocol,
                port: number,
                // Once a family is enough.
                node_port: port.node_port.filter(|_| in_cluster).and_then(|port| u16::try_from(port).ok()),
                endpoints: endpoints(&own, port, Family::of(address), local_to),
            });
        }
    }
    ports
}

fn cluster_ips(spec: &api::ServiceSpec) -> Vec<IpAddr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let unique: BTreeSet<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
    unique.into_iter().collect()
}

fn protocol(name: Option<&str>) -> Option<&'static str> {
    match name {
        None | Some("TCP") => Some("tcp"),
        Some("UDP") => Some("udp"),
        Some(_) => None,
    }
}

/// The addresses a port leads to: ready ones, else those that still serve while terminating.
fn endpoints(
    slices: &[&EndpointSlice],
    port: &api::ServicePort,
    family: Family,
    local_to: Option<&str>,
) -> Vec<(IpAddr, u16)> {
    let chosen = |accept: fn(&Endpoint) -> bool| {
        let mut found = BTreeSet::new();
        for slice in slices.iter().filter(|slice| slice.address_type == family.slice_type()) {
            let name = port.name.as_deref().unwrap_or("");
            let number = slice
                .ports
                .iter()
                .flatten()
                .find(|candidate| {
                    candidate.name.as_deref().unwrap_or("") == name
                        && candidate.protocol.as_deref().unwrap_or("TCP") == port.protocol.as_deref().unwrap_or("TCP")
                })
                .and_then(|candidate| u16::try_from(candidate.port?).ok());
            let Some(number) = number else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|endpoint| accept(endpoint)) {
                let local = local_to.is_none_or(|node| endpoint.node_name.as_deref() == Some(node));
                let address = endpoint.addresses.first().and_then(|text| text.parse().ok());
                if let Some(address) = address.filter(|_| local) {
                    found.insert((address, number));
                }
            }
        }
        found.into_iter().collect::<Vec<_>>()
    };
    let ready = chosen(is_ready);
    if ready.is_empty() { chosen(still_serves) } else { ready }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn still_serves(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    conditions.serving == Some(true) && conditions.terminating == Some(true)
}

/// The whole table as one `nft -f` transaction. `ports` must be sorted.
pub(super) fn render(ports: &[ServicePort]) -> String {
    let mut out = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for family in [Family::V4, Family::V6] {
        maps(&mut out, ports, family);
    }
    // The addresses of a family share a chain; the one with a node port has what that needs too.
    let mut written = BTreeSet::new();
    let served = || ports.iter().filter(|port| !port.endpoints.is_empty());
    for port in served().filter(|port| port.node_port.is_some()).chain(served()) {
        if written.insert(port.chain()) {
            service_chain(&mut out, port);
        }
    }
    out.push_str(HOOKS);
    out.push_str("}\n");
    out
}

fn maps(out: &mut String, ports: &[ServicePort], family: Family) {
    let (_, address, number) = family.words();
    let of_family = || ports.iter().filter(|port| port.family() == family);
    let served = || of_family().filter(|port| !port.endpoints.is_empty());
    let vip = served().map(|port| format!("{} : goto {}", port.key(), port.chain()));
    let none = of_family().filter(|port| port.endpoints.is_empty()).map(|port| format!("{} : goto refuse", port.key()));
    let node = served().filter_map(|port| {
        let node_port = port.node_port?;
        Some(format!("{} . {node_port} : goto node-{}", port.protocol, port.chain()))
    });
    let key = format!("{address} . inet_proto . inet_service : verdict");
    container(out, &format!("map vip{number}"), &key, vip);
    container(out, &format!("map none{number}"), &key, none);
    let node_key = "inet_proto . inet_service : verdict";
    container(out, &format!("map node{number}"), node_key, node);
    let hairpins: BTreeSet<IpAddr> = served().flat_map(|port| &port.endpoints).map(|(ip, _)| *ip).collect();
    let pair = format!("{address} . {address}");
    let hairpins = hairpins.iter().map(|ip| format!("{ip} . {ip}"));
    container(out, &format!("set hairpin{number}"), &pair, hairpins);
}

/// A named map or set with its elements; nothing is listed when there are none.
fn container(out: &mut String, name: &str, key: &str, elements: impl Iterator<Item = String>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "\t{name} {{\n\t\ttype {key}");
    // A key may come twice when two Services claim an address: the first one has it.
    let mut keys = BTreeSet::new();
    let unique: Vec<String> =
        elements.filter(|element| keys.insert(element.split(" : ").next().unwrap_or_default().to_owned())).collect();
    if !unique.is_empty() {
        let _ = writeln!(out, "\t\telements = {{\n\t\t\t{}\n\t\t}}", unique.join(",\n\t\t\t"));
    }
    out.push_str("\t}\n");
}

fn service_chain(out: &mut String, port: &ServicePort) {
    let (family, _, _) = port.family().words();
    let protocol = port.protocol;
    let targets: Vec<String> =
        port.endpoints.iter().enumerate().map(|(number, (ip, port))| format!("{number} : {ip} . {port}")).collect();
    let chain = port.chain();
    let _ = writeln!(
        out,
        "\tchain {chain} {{\n\t\tmeta l4proto {protocol} dnat {family} to numgen random mod {} map {{ {} }}\n\t}}",
        targets.len(),
        targets.join(", ")
    );
    if port.node_port.is_some() {
        let _ = writeln!(
            out,
            "\tchain node-{chain} {{\n\t\tmeta mark set meta mark | {MASQUERADE_MARK}\n\t\tgoto {chain}\n\t}}"
        );
    }
}

/// The table's name.
const TABLE: &str = "sandbox-services";
/// Marks packets whose answers must come back through this node.
const MASQUERADE_MARK: &str = "0x4000";
/// The chains that are always the same.
const HOOKS: &str = "\tchain translate {
		ip daddr . meta l4proto . th dport vmap @vip4
		ip6 daddr . meta l4proto . th dport vmap @vip6
		meta nfproto ipv4 fib daddr type local meta l4proto . th dport vmap @node4
		meta nfproto ipv6 fib daddr type local meta l4proto . th dport vmap @node6
	}
	chain refuse {
		meta l4proto tcp reject with tcp reset
		reject
	}
	chain refuse-unserved {
		ip daddr . meta l4proto . th dport vmap @none4
		ip6 daddr . meta l4proto . th dport vmap @none6
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump translate
	}
	chain output {
		type nat hook output priority -100; policy accept;
		jump translate
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x4000 == 0x4000 masquerade
		ct status dnat ip saddr . ip daddr @hairpin4 masquerade
		ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		jump refuse-unserved
	}
	chain filter-output {
		type filter hook output priority filter; policy accept;
		jump refuse-unserved
	}
";

#[cfg(test)]
mod tests;
