//! The mesh before or after: who may be reached, by whom, under which policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::addr::ip_from_bytes;
use mesh_core::identity::Identity;
use mesh_policy::{Policy, Scope};
use mesh_wire::security::Authorization;
use mesh_wire::workload::address::Type;
use mesh_wire::workload::{Address, Service, TunnelProtocol, Workload};
use mesh_xds::server::Resource;
use prost::Message;

use crate::translate::{Model, WAYPOINT_REQUIRED};

/// Who may open a connection.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// None for plaintext.
    pub(super) identity: Option<Identity>,
    pub(super) address: IpAddr,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(f, "{}/{}", identity.namespace(), identity.service_account()),
            None => write!(f, "plaintext from {}", self.address),
        }
    }
}

/// Sources, without those beyond a bound.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) all: Vec<Source>,
    pub(super) left_off: usize,
}

/// Workloads that are the same to policies: one of them, and how many there are.
#[derive(Debug)]
pub(super) struct Destination {
    name: String,
    namespace: String,
    count: usize,
    pub(super) address: IpAddr,
    pub(super) captured: bool,
    /// Ports that services lead to.
    ports: BTreeSet<u16>,
    attached: Vec<String>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)?;
        if self.count > 1 { write!(f, " ({} workloads)", self.count) } else { Ok(()) }
    }
}

/// Everything that is compared, at one time.
pub(super) struct Side {
    policies: HashMap<String, (Arc<Resource>, Arc<Policy>)>,
    workloads: BTreeMap<String, Workload>,
    by_address: HashMap<IpAddr, Arc<Destination>>,
    trust_domain: mesh_core::identity::TrustDomain,
}

impl Side {
    /// Decodes what a model publishes. What is the same as on the `other` side is shared with it.
    pub(super) fn new(model: &Model, other: Option<&Self>) -> Self {
        let mut policies = HashMap::new();
        for (name, resource) in model.authorizations() {
            let shared = other.and_then(|other| other.policies.get(&**name));
            let policy = match shared.filter(|(had, _)| **had == **resource) {
                Some((_, policy)) => Some(policy.clone()),
                None => Authorization::decode(resource.body.clone())
                    .ok()
                    .and_then(|message| Policy::decode(name, message).ok())
                    .map(Arc::new),
            };
            if let Some(policy) = policy {
                policies.insert(name.to_string(), (resource.clone(), policy));
            }
        }
        let workloads = model.addresses().values().filter(|one| !one.is_group).filter_map(|one| decode(one));
        let workloads: BTreeMap<_, _> = workloads
            .filter_map(|one| match one {
                Type::Workload(workload) => Some((workload.uid.clone(), workload)),
                Type::Service(_) => None,
            })
            .collect();
        let trust_domain = model.world().settings().trust_domain.clone();
        let mut side = Self { policies, workloads, by_address: HashMap::new(), trust_domain };
        side.by_address = side
            .workloads
            .values()
            .filter_map(|one| destination(one, 1))
            .map(|one| (one.address, Arc::new(one)))
            .collect();
        side
    }

    /// The workload at an address.
    pub(super) fn at(&self, address: IpAddr) -> Option<&Arc<Destination>> {
        self.by_address.get(&address)
    }

    /// Policies that apply to a workload.
    pub(super) fn policies(&self, destination: &Destination) -> Vec<Arc<Policy>> {
        let general = self.policies.values().map(|(_, policy)| policy).filter(|policy| match policy.scope {
            Scope::Global => true,
            Scope::Namespace => *policy.key.namespace == *destination.namespace,
            Scope::WorkloadSelector => false,
        });
        let named = destination.attached.iter().filter_map(|key| self.policies.get(key)).map(|(_, policy)| policy);
        let mut all: Vec<_> = general.chain(named).cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all
    }

    /// Kinds of destinations whose policies differ from the `before` side, each as it was and is.
    pub(super) fn affected(&self, before: &Self) -> Vec<(Arc<Destination>, Arc<Destination>)> {
        // Policies by what selects them: computed once a group, not once a workload.
        let mut groups: BTreeMap<Group, Vec<&Workload>> = BTreeMap::new();
        for workload in self.workloads.values() {
            let Some(old) = before.workloads.get(&workload.uid) else { continue };
            let (was, is) = (old.authorization_policies.clone(), workload.authorization_policies.clone());
            let key = (workload.namespace.clone(), workload.workload_name.clone(), was, is);
            groups.entry(key).or_default().push(workload);
        }
        let mut affected = Vec::new();
        for ((_, name, _, _), workloads) in groups {
            let Some(first) = workloads.iter().find(|one| captured(one)).or(workloads.first()) else { continue };
            let was = before.workloads.get(&first.uid).and_then(|old| destination(old, workloads.len()));
            let is = destination(first, workloads.len());
            let (Some(mut was), Some(mut is)) = (was, is) else { continue };
            (was.name, is.name) = (name.clone(), name);
            if before.policies(&was) != self.policies(&is) {
                affected.push((Arc::new(was), Arc::new(is)));
            }
        }
        affected
    }

    /// Whether a policy of this destination looks at addresses of sources.
    pub(super) fn looks_at_addresses(&self, destination: &Destination) -> bool {
        let policies = self.policies(destination);
        let mut matches = policies
            .iter()
            .flat_map(|policy| &policy.rules)
            .flat_map(|rule| &rule.clauses)
            .flat_map(|one| &one.matches);
        matches.any(|one| !one.source_ips.is_empty() || !one.not_source_ips.is_empty())
    }

    /// One source an identity (or, `by_address`, one a workload) and one in plaintext.
    pub(super) fn sources(&self, by_address: bool, max: usize) -> Sources {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        let mut left_off = 0;
        for workload in self.workloads.values() {
            let Some(address) = workload.addresses.first().and_then(|bytes| ip_from_bytes(bytes)) else { continue };
            let identity = captured(workload).then(|| self.identity(workload));
            let key = (identity.as_ref().map(ToString::to_string), by_address.then_some(address));
            if !seen.insert(key) {
                continue;
            }
            if all.len() < max {
                all.push(Source { identity, address });
            } else {
                left_off += 1;
            }
        }
        Sources { all, left_off }
    }

    fn identity(&self, workload: &Workload) -> Identity {
        let account = Some(workload.service_account.as_str()).filter(|one| !one.is_empty()).unwrap_or("default");
        Identity::new(self.trust_domain.clone(), workload.namespace.as_str(), account)
    }
}

/// Ports worth trying: those that services lead to and those that differing policies name; none stands for any other
/// port.
pub(super) fn ports(was: &[Arc<Policy>], is: &[Arc<Policy>], destination: &Destination) -> Vec<Option<u16>> {
    let differ = was.iter().filter(|one| !is.contains(one)).chain(is.iter().filter(|one| !was.contains(one)));
    let matches = differ.flat_map(|policy| &policy.rules).flat_map(|rule| &rule.clauses).flat_map(|one| &one.matches);
    let named = matches.flat_map(|one| one.destination_ports.iter().chain(&one.not_destination_ports));
    let ports: BTreeSet<_> = named.chain(&destination.ports).copied().collect();
    if ports.is_empty() { vec![None] } else { ports.into_iter().take(PORTS_MAX).map(Some).collect() }
}

/// What workloads have in common that are the same to policies: namespace, workload name, attached policies as they were
/// and are.
type Group = (String, String, Vec<String>, Vec<String>);

/// Services that would begin or cease to need their waypoint.
pub(super) fn waypoint_notes(before: &Model, after: &Model, notes: &mut Vec<String>) {
    let needs = |resource: &Arc<Resource>| matches!(decode(resource), Some(Type::Service(one)) if required(&one));
    for (name, resource) in after.addresses().iter().filter(|(_, one)| one.is_group) {
        let old = before.addresses().get(name);
        if old.is_some_and(|old| Arc::ptr_eq(old, resource)) {
            continue;
        }
        match (old.is_some_and(needs), needs(resource)) {
            (false, true) => notes.push(format!(
                "service {name} would take traffic only through its waypoint, because a policy needs layer 7"
            )),
            (true, false) => notes.push(format!("service {name} would take traffic without its waypoint too")),
            _ => {}
        }
    }
}

fn required(service: &Service) -> bool {
    service.extensions.iter().any(|one| one.name == WAYPOINT_REQUIRED)
}

fn decode(resource: &Resource) -> Option<Type> {
    Address::decode(resource.body.clone()).ok()?.r#type
}

fn captured(workload: &Workload) -> bool {
    workload.tunnel_protocol() == TunnelProtocol::Hbone
}

fn destination(workload: &Workload, count: usize) -> Option<Destination> {
    let address = workload.addresses.first().and_then(|bytes| ip_from_bytes(bytes))?;
    let ports = workload.services.values().flat_map(|list| &list.ports);
    let ports = ports.filter_map(|port| u16::try_from(port.target_port).ok()).filter(|port| *port != 0);
    Some(Destination {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        count,
        address,
        captured: captured(workload),
        ports: ports.collect(),
        attached: workload.authorization_policies.clone(),
    })
}

/// Ports that are tried of one workload.
const PORTS_MAX: usize = 64;
