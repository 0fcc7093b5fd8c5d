//! The names of a cluster. Pure.
//!
//! ```text
//! <service>.<namespace>.svc.<domain>                    A, AAAA (cluster IPs; endpoints if headless)
//! <endpoint>.<service>.<namespace>.svc.<domain>         A, AAAA of one endpoint of a headless service
//! _<port>._<protocol>.<service>.<namespace>.svc.<domain> SRV
//! <address>.in-addr.arpa, ip6.arpa                      PTR
//! ```
//!
//! # Source
//! "Kubernetes DNS-Based Service Discovery", version 1.1.0.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

/// One record, without its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    Address(IpAddr),
    Service { port: u16, target: String },
    Pointer(String),
    Alias(String),
}

/// All names with their records; lower case, without the final dot.
#[derive(Debug, Default)]
pub(super) struct Zone {
    pub(super) domain: String,
    records: BTreeMap<String, BTreeSet<Entry>>,
    /// Names that exist, with or without records of their own.
    names: BTreeSet<String>,
}

impl Zone {
    /// The zone of these objects.
    pub(super) fn build(
        domain: &str,
        namespaces: &[Arc<Namespace>],
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
    ) -> Self {
        let mut zone = Self { domain: domain.to_owned(), ..Self::default() };
        for namespace in namespaces {
            zone.name(&format!("{}.svc.{domain}", namespace.name_any()));
        }
        let mut of_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            if let Some(service) = slice.labels().get("kubernetes.io/service-name") {
                let key = (slice.namespace().unwrap_or_default(), service.clone());
                of_service.entry(key).or_default().push(slice);
            }
        }
        for service in services {
            let key = (service.namespace().unwrap_or_default(), service.name_any());
            let slices = of_service.get(&key).map(Vec::as_slice).unwrap_or_default();
            zone.service(service, slices);
        }
        zone
    }

    /// The records of a name; `None` when it does not exist.
    pub(super) fn find(&self, name: &str) -> Option<Vec<&Entry>> {
        if !self.names.contains(name) {
            return None;
        }
        Some(self.records.get(name).into_iter().flatten().collect())
    }

    /// Whether a name is the cluster's to answer for.
    pub(super) fn is_ours(&self, name: &str) -> bool {
        name.strip_suffix(&self.domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    fn service(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let Some(spec) = &service.spec else {
            return;
        };
        let namespace = service.namespace().unwrap_or_default();
        let fqdn = format!("{}.{namespace}.svc.{}", service.name_any(), self.domain).to_lowercase();
        self.name(&fqdn);
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(target) = &spec.external_name {
                let target = target.trim_end_matches('.').to_lowercase();
                self.add(&fqdn, Entry::Alias(target));
            }
            return;
        }
        let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let ips: BTreeSet<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            self.headless(&fqdn, slices);
            return;
        }
        for ip in ips {
            self.add(&fqdn, Entry::Address(ip));
            self.add(&reverse(ip), Entry::Pointer(fqdn.clone()));
        }
        for port in spec.ports.iter().flatten() {
            let name = port.name.as_deref().unwrap_or("");
            self.port(&fqdn, name, port.protocol.as_deref(), port.port, &fqdn.clone());
        }
    }

    /// A Service without an address of its own: its ready endpoints are its addresses.
    fn headless(&mut self, fqdn: &str, slices: &[&EndpointSlice]) {
        for slice in slices {
            for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
                for ip in endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
                    let label = endpoint.hostname.clone().unwrap_or_else(|| dashed(ip));
                    let own = format!("{label}.{fqdn}").to_lowercase();
                    self.add(fqdn, Entry::Address(ip));
                    self.add(&own, Entry::Address(ip));
                    self.add(&reverse(ip), Entry::Pointer(own.clone()));
                    for port in slice.ports.iter().flatten() {
                        let name = port.name.as_deref().unwrap_or("");
                        let number = port.port.unwrap_or_default();
                        self.port(fqdn, name, port.protocol.as_deref(), number, &own);
                    }
                }
            }
        }
    }

    fn port(&mut self, fqdn: &str, name: &str, protocol: Option<&str>, port: i32, target: &str) {
        let protocol = protocol.unwrap_or("TCP").to_lowercase();
        if let (false, Ok(port)) = (name.is_empty(), u16::try_from(port)) {
            let owner = format!("_{}._{protocol}.{fqdn}", name.to_lowercase());
            let target = target.to_owned();
            self.add(&owner, Entry::Service { port, target });
        }
    }

    fn add(&mut self, name: &str, entry: Entry) {
        self.name(name);
        self.records.entry(name.to_owned()).or_default().insert(entry);
    }

    /// A name and everything above it exist.
    fn name(&mut self, name: &str) {
        let mut rest = name;
        while self.names.insert(rest.to_owned()) {
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => break,
            }
        }
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The name of an endpoint that has none.
fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-").trim_matches('-').to_owned()
}

/// The name under which an address is looked up.
fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
            let mut labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            labels.reverse();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}
