//! Which service a name stands for, and its addresses. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use super::message::{CLASS_IN, Question, RecordType};
use crate::state::{IpFamilies, Service, Snapshot};

/// How names are understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// DNS suffix of the cluster, lower case.
    pub domain: String,
    /// What clients may append to names.
    pub search: Search,
    /// Namespace whose services are preferred, after the client's own and canonical ones.
    pub preferred_namespace: Option<String>,
    /// Whether IPv6 addresses are given out.
    pub ipv6: bool,
}

/// Suffixes that a client's resolver may append to the name that the application asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// Those that Kubernetes gives to pods, by the client's namespace.
    Kubernetes,
    /// These.
    Listed(Vec<String>),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Network that it is on.
    pub network: &'a str,
}

/// An answer out of the mesh's own knowledge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses belong to the name that is left of the asked one when only so many labels are kept; `None`: to the
    /// asked one.
    pub alias_labels: Option<usize>,
    /// Of the family that was asked for; may be empty.
    pub addresses: Vec<IpAddr>,
}

/// Answers from the state; `None`: others have to be asked.
#[must_use]
pub fn answer(snapshot: &Snapshot, zone: &Zone, client: Client<'_>, question: &Question) -> Option<Answer> {
    if question.class != CLASS_IN || !matches!(question.kind, RecordType::A | RecordType::AAAA) {
        return None;
    }
    let found = find(snapshot, zone, client, &question.name)?;
    Some(Answer {
        alias_labels: found.alias_labels,
        addresses: addresses(snapshot, zone, client, found.service, question.kind),
    })
}

/// The addresses behind a name that came another way than in a query; `None`: others have to be asked.
#[must_use]
pub fn addresses_of(
    snapshot: &Snapshot,
    zone: &Zone,
    client: Client<'_>,
    name: &str,
    kind: RecordType,
) -> Option<Vec<IpAddr>> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let found = find(snapshot, zone, client, &name)?;
    Some(addresses(snapshot, zone, client, found.service, kind))
}

/// A service by one of the names that may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found<'a> {
    service: &'a Arc<Service>,
    alias_labels: Option<usize>,
}

fn find<'a>(snapshot: &'a Snapshot, zone: &Zone, client: Client<'_>, name: &str) -> Option<Found<'a>> {
    for candidate in candidates(name, zone, client.namespace) {
        if let Some(service) = best(snapshot, zone, client, &candidate.name) {
            return Some(Found { service, alias_labels: candidate.stripped_labels });
        }
        for pattern in wildcards(&candidate.name) {
            if let Some(service) = best(snapshot, zone, client, &pattern) {
                return Some(Found { service, alias_labels: None });
            }
        }
    }
    None
}

/// A name that may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// How many labels were left when a search domain was taken off.
    pub(super) stripped_labels: Option<usize>,
}

/// Names that may be meant, best first.
pub(super) fn candidates(name: &str, zone: &Zone, namespace: &str) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    let mut add = |name: &str, stripped_labels: Option<usize>| {
        if !all.iter().any(|known| known.name == name) {
            all.push(Candidate { name: name.to_owned(), stripped_labels });
        }
    };
    let mut with_expansions = |name: &str, stripped_labels: Option<usize>| {
        add(name, stripped_labels);
        for expansion in expansions(name, namespace, &zone.domain) {
            add(&expansion, stripped_labels);
        }
    };
    with_expansions(name, None);
    for suffix in search_domains(zone, namespace) {
        let stripped = name.strip_suffix(&suffix).and_then(|rest| rest.strip_suffix('.'));
        if let Some(stripped) = stripped.filter(|stripped| !stripped.is_empty()) {
            with_expansions(stripped, Some(labels(stripped)));
        }
    }
    all
}

/// What the name of a Kubernetes service may be short for.
fn expansions(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let in_svc = name.ends_with(".svc");
    match labels(name) {
        0 => Vec::new(),
        1 => vec![format!("{name}.{namespace}.svc.{domain}")],
        2 => vec![format!("{name}.svc.{domain}"), format!("{name}.{namespace}.svc.{domain}")],
        3 if in_svc => vec![format!("{name}.{domain}"), format!("{name}.svc.{domain}")],
        3 => vec![format!("{name}.svc.{domain}")],
        4 if in_svc => vec![format!("{name}.{domain}")],
        _ => Vec::new(),
    }
}

fn search_domains(zone: &Zone, namespace: &str) -> Vec<String> {
    let domain = &zone.domain;
    match &zone.search {
        Search::Kubernetes => vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()],
        Search::Listed(domains) => domains.clone(),
    }
}

/// `a.b.c`: `*.b.c`, `*.c`.
fn wildcards(name: &str) -> impl Iterator<Item = String> {
    let dots = name.match_indices('.');
    dots.filter_map(|(at, _)| name.get(at..)).filter(|rest| rest.len() > 1).map(|rest| format!("*{rest}"))
}

fn labels(name: &str) -> usize {
    if name.is_empty() { 0 } else { name.split('.').count() }
}

fn best<'a>(snapshot: &'a Snapshot, zone: &Zone, client: Client<'_>, hostname: &str) -> Option<&'a Arc<Service>> {
    let visible = |service: &&Arc<Service>| service.visible_to(Some(client.namespace));
    let usable = || {
        let named = snapshot.services_named(hostname).iter();
        named.filter(visible).filter(|service| is_usable(service, &zone.domain))
    };
    let of = |namespace: &str| usable().find(|service| **service.namespace() == *namespace);
    of(client.namespace)
        .or_else(|| usable().find(|service| service.canonical))
        .or_else(|| of(zone.preferred_namespace.as_deref()?))
        .or_else(|| usable().next())
}

/// Whether the mesh knows addresses for it: its own or, for a headless service of the cluster, those of its endpoints.
fn is_usable(service: &Service, domain: &str) -> bool {
    !service.vips.is_empty() || (service.cidr_vips.is_empty() && is_of_cluster(service.hostname(), domain))
}

fn is_of_cluster(hostname: &str, domain: &str) -> bool {
    let hostname = hostname.to_ascii_lowercase();
    hostname.strip_suffix(domain).is_some_and(|rest| rest.ends_with(".svc."))
}

fn addresses(snapshot: &Snapshot, zone: &Zone, client: Client<'_>, service: &Service, kind: RecordType) -> Vec<IpAddr> {
    let v6 = kind == RecordType::AAAA;
    let excluded = match service.ip_families {
        IpFamilies::V4Only => v6,
        IpFamilies::V6Only => !v6,
        IpFamilies::Automatic | IpFamilies::Dual => false,
    };
    if excluded || (v6 && !zone.ipv6) {
        return Vec::new();
    }
    let wanted = |ip: &IpAddr| ip.is_ipv6() == v6;
    if service.vips.is_empty() {
        let endpoints = snapshot.endpoints(service).into_iter().flat_map(|endpoints| endpoints.values());
        return endpoints.filter_map(|endpoint| endpoint.workload.ips.iter().copied().find(wanted)).collect();
    }
    let on_network = service.vips.iter().filter(|vip| *vip.network == *client.network);
    on_network.map(|vip| vip.ip).filter(wanted).collect()
}

#[cfg(test)]
mod tests;
