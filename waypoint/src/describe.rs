//! Routes and backends in words, for the admin port and for explanations.

use mesh_route::{Action, Rule, Target, Weighted, percent};
use serde_json::{Value, json};

use crate::endpoints::{Endpoint, Transport};
use crate::snapshot::{Backend, BackendGuard, Chain, Entry};

/// What answers requests that take a rule: one word, and what there is to say about it.
pub(crate) fn action(rule: &Rule) -> (&'static str, Option<String>) {
    match &rule.action {
        Action::Forward(_) => ("forward", None),
        Action::Redirect(redirect) => ("redirect", Some(redirect.to_string())),
        Action::Direct(direct) => {
            let bytes = direct.body.len();
            ("answer", Some(format!("answers with {}, {bytes} bytes", direct.status.as_u16())))
        }
        Action::Unusable(unusable) => {
            ("error", Some(format!("answers with {}: {}", unusable.status.as_u16(), unusable.reason)))
        }
    }
}

/// Where a rule was written; of one that nobody wrote, what it stands for.
pub(crate) fn route(rule: &Rule) -> String {
    if rule.origin.kind.is_empty() { NO_ROUTE.to_owned() } else { rule.origin.to_string() }
}

/// What a rule does to requests besides sending them on.
pub(crate) fn effects(chain: &Chain, rule: &Rule) -> Vec<String> {
    rule.effects(&|index| chain.backend(index).map_or_else(|| "nobody".to_owned(), ToString::to_string))
}

/// Where requests that take a rule may go.
pub(crate) fn backends(chain: &Chain, rule: &Rule) -> Vec<Value> {
    let Action::Forward(forward) = &rule.action else { return Vec::new() };
    let all = forward.backends();
    let total: u64 = all.iter().map(|one| u64::from(one.weight)).sum();
    all.iter().take(BACKENDS_MAX).map(|one| weighted(chain, one, total)).collect()
}

/// Where all traffic goes when no rule is there.
pub(crate) fn only(backend: &Backend) -> Value {
    target(backend, 1, 1)
}

fn weighted(chain: &Chain, one: &Weighted, total: u64) -> Value {
    let mut said = match &one.target {
        Target::Backend(index) => match chain.backend(*index) {
            Some(backend) => target(backend, one.weight, total),
            None => unusable(one.weight, total, 503, "no such backend"),
        },
        Target::Unusable(why) => unusable(one.weight, total, why.status.as_u16(), &why.reason),
        Target::Redirect(redirect) => {
            json!({"weight": one.weight, "share": share(one.weight, total), "redirect": redirect.to_string()})
        }
    };
    let mut effects = Vec::new();
    effects.extend(one.rewrite.as_ref().map(|rewrite| format!("rewrite: {rewrite}")));
    if !one.request_headers.is_empty() {
        effects.push(format!("request headers: {}", one.request_headers));
    }
    if !one.response_headers.is_empty() {
        effects.push(format!("response headers: {}", one.response_headers));
    }
    if let Some(fields) = said.as_object_mut().filter(|_| !effects.is_empty()) {
        fields.insert("effects".to_owned(), effects.into());
    }
    said
}

/// A backend that is there.
pub(crate) fn target(backend: &Backend, weight: u32, total: u64) -> Value {
    let state = state(backend);
    json!({
        "weight": weight,
        "share": share(weight, total),
        "service": backend.to_string(),
        "host": backend.config.hostname,
        "port": backend.config.port,
        "subset": backend.config.subset,
        "cluster": &**backend.cluster.name(),
        "refuse": Some(&backend.config.refuse).filter(|why| !why.is_empty()),
        "guard": backend.guard.as_deref().map(guard),
        "endpoints": state.len(),
        "tunnelTo": tunnel(&state),
        "healthy": state.iter().filter(|one| one.usable()).count(),
        "ejected": state.iter().filter(|one| one.ejected).count(),
    })
}

/// Policies of a service that is not the one that was called.
fn guard(guard: &BackendGuard) -> Value {
    let names = guard.policies.names().take(POLICIES_MAX).map(ToString::to_string);
    json!({"policies": names.collect::<Vec<_>>(), "refuseAll": guard.refuse_all.as_deref()})
}

/// An endpoint that takes new traffic through the tunnel of a node proxy, whose policies judge the caller again.
fn tunnel(state: &[EndpointState]) -> Option<String> {
    let first = state.iter().find(|one| one.usable() && matches!(one.endpoint.transport, Transport::Hbone { .. }));
    first.map(|one| one.endpoint.address.to_string())
}

/// A share that is answered with an error.
pub(crate) fn unusable(weight: u32, total: u64, status: u16, reason: &str) -> Value {
    json!({"weight": weight, "share": share(weight, total), "error": status, "reason": reason})
}

/// `12.5%`
fn share(weight: u32, total: u64) -> String {
    let millionths = u64::from(weight).saturating_mul(1_000_000).checked_div(total).unwrap_or_default();
    percent(u32::try_from(millionths).unwrap_or(u32::MAX))
}

/// An endpoint of a backend, and what its pool knows of it.
pub(crate) struct EndpointState {
    pub(crate) endpoint: Endpoint,
    /// Requests, or TCP connections, that it serves for us now.
    pub(crate) active: u32,
    /// Left out because it failed.
    pub(crate) ejected: bool,
}

impl EndpointState {
    /// Whether it takes new traffic.
    pub(crate) fn usable(&self) -> bool {
        self.endpoint.healthy && self.endpoint.weight > 0 && !self.ejected
    }
}

/// The endpoints of now of a backend, whether or not it was called lately.
pub(crate) fn state(backend: &Backend) -> Vec<EndpointState> {
    let set = backend.view.endpoints();
    let hosts = backend.cluster.hosts();
    let labelled = |endpoint: &&Endpoint| {
        let wanted = &backend.config.subset_labels;
        wanted.iter().all(|(key, value)| endpoint.labels.get(key.as_str()).is_some_and(|has| **has == **value))
    };
    let with_state = |endpoint: &Endpoint| {
        let same = |host: &&std::sync::Arc<crate::upstream::Host>| {
            host.endpoint().id == endpoint.id && host.address() == endpoint.address
        };
        let host = hosts.iter().find(same);
        EndpointState {
            endpoint: endpoint.clone(),
            active: host.map_or(0, |host| host.active()),
            ejected: host.is_some_and(|host| host.is_ejected()),
        }
    };
    set.list.iter().filter(labelled).map(with_state).collect()
}

/// What an entry point is called: `host:port` of a service, `listener:port` of a gateway, or an address.
pub(crate) fn name(chain: &Chain) -> String {
    match &chain.entry {
        Entry::Port(port) => format!("{}:{}", port.service.hostname, port.port),
        Entry::Listener(listener) => format!("{}:{}", listener.section, listener.port),
        Entry::Workload(address) => address.to_string(),
    }
}

/// Why a service is called that has no routes.
pub(crate) const NO_ROUTE: &str = "no route is attached: the service itself";
/// Policies that are named.
const POLICIES_MAX: usize = 50;
/// Backends of one rule that are shown.
const BACKENDS_MAX: usize = 64;
