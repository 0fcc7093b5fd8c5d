//! ServiceEntries reduced to what is read.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::names::NamespacedName;

use super::{Binding, Distribution, Labels, Locality, Protocol, Registered};

/// A ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Creation time in seconds since 1970: the oldest object of a hostname wins.
    pub created_s: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// All labels: inline endpoints are selected by them.
    pub labels: Labels,
    /// `spec.hosts`, each once. Empty when the entry cannot be used: it gives no service then.
    pub hosts: Box<[Arc<str>]>,
    /// `spec.addresses`, masked.
    pub addresses: Box<[IpNet]>,
    /// `spec.ports`.
    pub ports: Box<[EntryPort]>,
    /// `spec.resolution`.
    pub resolution: Resolution,
    /// `spec.location` is MESH_INTERNAL.
    pub internal: bool,
    /// `spec.endpoints`.
    pub endpoints: Box<[EntryEndpoint]>,
    /// `spec.workloadSelector.labels`, when not empty.
    pub selector: Option<Labels>,
    /// `spec.subjectAltNames`.
    pub subject_alt_names: Box<[Arc<str>]>,
    /// `status.addresses`: host and address.
    pub auto_addresses: Box<[(Arc<str>, IpAddr)]>,
    /// `spec.exportTo`: whose gateways may lead to it. Node proxies and waypoints do not honour it.
    pub export_to: Box<[Arc<str>]>,
    /// The traffic-distribution annotation.
    pub distribution_annotation: Option<Distribution>,
    /// The node agent's mark, or the tunnel label: inline endpoints take HBONE.
    pub redirected: bool,
    /// Waypoint labels.
    pub binding: Option<Box<Binding>>,
}

impl ServiceEntry {
    /// Whether addresses are allocated for its hostnames.
    pub fn takes_addresses(&self) -> bool {
        let refused = self.labels.get(mesh_api::labels::ENABLE_AUTO_ADDRESSES);
        self.resolution != Resolution::None
            && self.addresses.is_empty()
            && !refused.is_some_and(|text| text.eq_ignore_ascii_case("false"))
    }

    /// Whether this hostname can have an address: of a wildcard nobody asks for the address, unless names are resolved
    /// as they are asked for.
    pub fn takes_address_for(&self, hostname: &str) -> bool {
        self.takes_addresses() && (!hostname.starts_with('*') || self.resolution == Resolution::DynamicDns)
    }

    /// `spec.exportTo` leaves somebody out.
    pub fn is_kept_back(&self) -> bool {
        !self.export_to.is_empty() && !self.export_to.iter().any(|one| **one == *"*")
    }

    /// Whether it is given to a namespace.
    pub fn is_exported_to(&self, namespace: &str) -> bool {
        *self.key.namespace == *namespace
            || !self.is_kept_back()
            || self.export_to.iter().any(|one| **one == *namespace)
    }

    /// `spec.addresses` that are no blocks.
    pub fn single_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let single = self.addresses.iter().filter(|block| block.prefix_len() == block.max_prefix_len());
        single.map(IpNet::addr)
    }

    /// Of several entries for one thing the oldest counts; of equally old ones, the first by name.
    pub fn age(&self) -> (i64, &str, &str) {
        (self.created_s, &self.key.name, &self.key.namespace)
    }

    /// Addresses that were allocated for a hostname.
    pub fn allocated(&self, hostname: &str) -> impl Iterator<Item = IpAddr> {
        let addresses = if self.takes_address_for(hostname) { &*self.auto_addresses } else { &[] };
        addresses.iter().filter(move |(host, _)| **host == *hostname).map(|(_, ip)| *ip)
    }
}

impl EntryPort {
    /// Port of an endpoint that does not say another.
    pub fn target(&self) -> u16 {
        self.target.unwrap_or(self.number)
    }
}

/// One port of a [`ServiceEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPort {
    /// Its name.
    pub name: Arc<str>,
    /// Port of the service.
    pub number: u16,
    /// `targetPort`, when given.
    pub target: Option<u16>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// How the addresses of a service are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// The caller's own destination address.
    #[default]
    None,
    /// Endpoints have addresses.
    Static,
    /// Endpoints, or the host, are resolved.
    Dns,
    /// As [`Self::Dns`], one address at a time.
    DnsRoundRobin,
    /// The name that the caller asks for is resolved; the only way to serve a wildcard.
    DynamicDns,
}

impl Resolution {
    /// Whether names are resolved.
    pub fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin | Self::DynamicDns)
    }
}

/// One inline endpoint of a [`ServiceEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEndpoint {
    /// `address`.
    pub address: WorkloadAddress,
    /// Ports by name.
    pub ports: Box<[(Arc<str>, u16)]>,
    /// `network`; empty for that of the cluster.
    pub network: Arc<str>,
    /// `locality`.
    pub locality: Locality,
    /// `weight`, where 0 is none.
    pub weight: u32,
    /// `serviceAccount`.
    pub service_account: Arc<str>,
    /// Waypoint labels of the endpoint itself.
    pub binding: Option<Box<Binding>>,
}

/// Where a workload that is no pod can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadAddress {
    /// An address.
    Ip(IpAddr),
    /// A name to resolve.
    Host(Arc<str>),
    /// Only through the gateway of its network.
    #[default]
    None,
}

/// A WorkloadEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Creation time in seconds since 1970.
    pub created_s: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// Labels of the object, over those of the spec.
    pub labels: Labels,
    /// `spec.address`.
    pub address: WorkloadAddress,
    /// `spec.network`; empty for that of the cluster.
    pub network: Arc<str>,
    /// `spec.locality`.
    pub locality: Locality,
    /// `spec.weight`, where 0 is none.
    pub weight: u32,
    /// `spec.ports` by name.
    pub ports: Box<[(Arc<str>, u16)]>,
    /// `spec.serviceAccount`.
    pub service_account: Arc<str>,
    /// Group that it was registered for, else its own name.
    pub workload_name: Arc<str>,
    /// The node agent's mark: redirection works.
    pub redirected: bool,
    /// Its health is watched, and it is not known to be healthy.
    pub unhealthy: bool,
    /// By whom it was registered; none where somebody wrote it.
    pub registered: Option<Box<Registered>>,
    /// Waypoint labels.
    pub binding: Option<Box<Binding>>,
}
