//! TLSRoutes and TCPRoutes: where connections go.
//!
//! # Source
//! spec of routing, section 4; spec of the gateway controller, section 11.

use std::sync::Arc;

use mesh_api::gateway::{BackendReference, L4RouteRule};
use mesh_wire::l7::{self, weighted_backend};

use super::backend::{Call, Referrer, Sink, resolve};
use super::convert::origin;
use super::problem::{Problem, Problems};
use super::view::Route;
use crate::world::World;

/// What the rules of a route become, and what cannot be honoured of them.
pub(super) fn convert(
    world: &World,
    referrer: Referrer<'_>,
    route: Route<'_>,
    written: &[L4RouteRule],
    sink: &mut Sink<'_>,
) -> (Vec<l7::L4Rule>, Problems) {
    let mut problems = Problems::default();
    let rules = written.iter().enumerate().map(|(index, rule)| l7::L4Rule {
        origin: Some(origin(route, index, rule.name.as_deref())),
        backends: backends(world, referrer, &rule.backend_refs, index, sink, &mut problems),
        ..l7::L4Rule::default()
    });
    (rules.collect(), problems)
}

/// What the rules of a route become.
pub(super) fn rules(
    world: &World,
    referrer: Referrer<'_>,
    route: Route<'_>,
    written: &[L4RouteRule],
    sink: &mut Sink<'_>,
) -> Vec<l7::L4Rule> {
    convert(world, referrer, route, written, sink).0
}

/// Connections of the share of a backend that cannot be used are closed; so are all of a rule without backends.
fn backends(
    world: &World,
    referrer: Referrer<'_>,
    written: &[BackendReference],
    rule: usize,
    sink: &mut Sink<'_>,
    problems: &mut Problems,
) -> Vec<l7::WeightedBackend> {
    let mut backends = Vec::new();
    let mut malformed: Option<Problem> = None;
    for (index, reference) in written.iter().enumerate() {
        let weight = reference.weight();
        let target = match resolve(world, referrer, reference, sink) {
            Ok(_) if weight == 0 => continue,
            Ok(backend) => match sink.index(&backend, Call::Connection) {
                Ok(index) => weighted_backend::Target::Backend(index),
                Err(unusable) => weighted_backend::Target::Unusable(unusable),
            },
            Err(failure) => {
                let problem = match failure.malformed {
                    true => failure.problem.within(&format!("rule {rule}: backendRefs[{index}]")),
                    false => failure.problem,
                };
                problems.add(problem.clone());
                let answer = problem.answer();
                if failure.malformed {
                    malformed.get_or_insert(problem);
                }
                weighted_backend::Target::Unusable(answer)
            }
        };
        if weight > 0 {
            backends.push(l7::WeightedBackend { weight, target: Some(target), ..l7::WeightedBackend::default() });
        }
    }
    match malformed {
        // The rule as a whole has no meaning.
        Some(problem) => {
            let target = Some(weighted_backend::Target::Unusable(problem.answer()));
            vec![l7::WeightedBackend { weight: 1, target, ..l7::WeightedBackend::default() }]
        }
        None => backends,
    }
}

/// A rule for connections that ask for one of these names.
pub(super) fn tls(rule: l7::L4Rule, hostnames: Vec<String>) -> l7::TlsRule {
    l7::TlsRule { origin: rule.origin.clone(), hostnames, rule: Some(rule) }
}

/// A rule for these names: one for the exact ones together, and one for each wildcard, whose order among those of other
/// routes depends on its length.
pub(super) fn by_hostname(rule: l7::L4Rule, hosts: &[Arc<str>]) -> Vec<l7::TlsRule> {
    let exact: Vec<_> = hosts.iter().filter(|host| !host.starts_with('*')).map(|host| host.to_string()).collect();
    let mut rules = Vec::new();
    if !exact.is_empty() {
        rules.push(tls(rule.clone(), exact));
    }
    for host in hosts.iter().filter(|host| host.starts_with('*')) {
        let names = if **host == *"*" { Vec::new() } else { vec![host.to_string()] };
        rules.push(tls(rule.clone(), names));
    }
    rules
}

/// The most specific names first; routes that are equal in this stay in their order.
pub(super) fn sort(rules: &mut [l7::TlsRule]) {
    rules.sort_by_key(|rule| match rule.hostnames.first() {
        Some(name) if !name.starts_with('*') => (0, 0),
        Some(wildcard) => (1, usize::MAX - wildcard.len()),
        None => (2, 0),
    });
}
