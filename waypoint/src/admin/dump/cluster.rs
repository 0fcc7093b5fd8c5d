//! Where traffic goes: pools with their endpoints, limits and counters.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_wire::l7;
use serde_json::{Map, Value, json};

use super::{ENDPOINTS_MAX, certificate};
use crate::describe::{self, EndpointState};
use crate::endpoints::{Endpoint, Transport};
use crate::shared::Shared;
use crate::snapshot::{Backend, Snapshot};
use crate::upstream::Cluster;

/// A pool, and what it is configured as.
type Found = (Arc<Cluster>, Option<Backend>);

/// Every pool by name: of what is configured, and those that only requests of before still use.
pub(super) fn all(shared: &Shared, snapshot: &Snapshot) -> Vec<Found> {
    let mut found: BTreeMap<(Arc<str>, usize), Found> = BTreeMap::new();
    let key = |cluster: &Arc<Cluster>| (cluster.name().clone(), Arc::as_ptr(cluster).addr());
    for backend in snapshot.chains().values().flat_map(|chain| chain.backends.iter()) {
        let entry = found.entry(key(&backend.cluster));
        entry.or_insert_with(|| (backend.cluster.clone(), Some(backend.clone())));
    }
    for cluster in shared.upstream.clusters() {
        found.entry(key(&cluster)).or_insert_with(|| (cluster, None));
    }
    found.into_values().collect()
}

/// One pool. Endpoints are taken from `budget`; those beyond it are counted.
pub(super) fn row(cluster: &Cluster, backend: Option<&Backend>, budget: &Cell<usize>, all_counters: bool) -> Value {
    let state = backend.map_or_else(|| of_hosts(cluster), describe::state);
    let shown = state.len().min(budget.get());
    budget.set(budget.get() - shown);
    let gauges = cluster.gauges();
    let open = |name: &str| gauges.iter().any(|(gauge, value)| *gauge == name && *value > 0);
    let breakers = [
        ("connections", "circuit_breakers_default_cx_open"),
        ("pending requests", "circuit_breakers_default_rq_pending_open"),
        ("requests", "circuit_breakers_default_rq_open"),
        ("retries", "circuit_breakers_default_rq_retry_open"),
    ];
    let stats = cluster.stats().list().into_iter().filter(|(_, value)| all_counters || *value > 0);
    let stats: Map<String, Value> =
        gauges.iter().copied().chain(stats).map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut row = json!({
        "name": &**cluster.name(),
        "configured": backend.is_some(),
        "endpointsTotal": state.len(),
        "endpointsHealthy": state.iter().filter(|one| one.usable()).count(),
        "endpointsEjected": state.iter().filter(|one| one.ejected).count(),
        "breakersOpen": breakers.iter().filter(|(_, gauge)| open(gauge)).map(|(name, _)| *name).collect::<Vec<_>>(),
        "transport": transports(&state, backend),
        "endpoints": state.iter().take(shown).map(endpoint).collect::<Vec<_>>(),
        "endpointsLeftOut": state.len() - shown,
        "stats": stats,
    });
    if let (Some(fields), Some(backend)) = (row.as_object_mut(), backend) {
        fields.extend(configured(backend));
    }
    row
}

/// How many endpoints all pools together may show.
pub(super) fn budget() -> Cell<usize> {
    Cell::new(ENDPOINTS_MAX)
}

/// Of a pool that nothing is configured for any more.
fn of_hosts(cluster: &Cluster) -> Vec<EndpointState> {
    let state = |host: &Arc<crate::upstream::Host>| EndpointState {
        endpoint: host.endpoint().clone(),
        active: host.active(),
        ejected: host.is_ejected(),
    };
    cluster.hosts().iter().map(state).collect()
}

fn configured(backend: &Backend) -> Map<String, Value> {
    let config = &backend.config;
    let default = l7::TrafficPolicy::default();
    let policy = config.policy.as_ref().unwrap_or(&default);
    let http = match config.http() {
        l7::backend::Http::Http1 => "HTTP/1.1",
        l7::backend::Http::Http2 => "HTTP/2",
        l7::backend::Http::Same => "as the client",
    };
    let fields = json!({
        "service": config.hostname,
        "namespace": config.namespace,
        "port": config.port,
        "subset": config.subset,
        "subsetLabels": config.subset_labels.iter().collect::<BTreeMap<_, _>>(),
        "http": http,
        "balancer": balancer(policy.load_balancer.as_ref()),
        "tls": policy.tls.as_ref().map(tls),
        "limits": policy.connection_pool.as_ref().map(limits),
        "outlierDetection": policy.outlier_detection.as_ref().map(outliers),
        "exists": backend.view.endpoints().exists,
        "external": config.external,
        "viaWaypoint": config.via_waypoint,
        "wildcard": Some(&config.dynamic_wildcard).filter(|host| !host.is_empty()),
        "refuse": Some(&config.refuse).filter(|why| !why.is_empty()),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// How one of equals is chosen, in words.
fn balancer(balancer: Option<&l7::LoadBalancer>) -> String {
    use l7::consistent_hash::{Algorithm, Source};
    let Some(balancer) = balancer else { return "least request".to_owned() };
    let Some(hash) = &balancer.consistent_hash else {
        return match balancer.simple() {
            l7::load_balancer::Simple::LeastRequest => "least request",
            l7::load_balancer::Simple::RoundRobin => "round robin",
            l7::load_balancer::Simple::Random => "random",
            l7::load_balancer::Simple::Passthrough => "as called",
        }
        .to_owned();
    };
    let table = if matches!(hash.algorithm, Some(Algorithm::MaglevTableSize(_))) { "Maglev" } else { "ring hash" };
    match &hash.source {
        Some(Source::Header(name)) => format!("{table} by header {name}"),
        Some(Source::Query(name)) => format!("{table} by query parameter {name}"),
        Some(Source::Cookie(cookie)) => format!("{table} by cookie {}", cookie.name),
        Some(Source::SourceIp(_)) => format!("{table} by source address"),
        None => table.to_owned(),
    }
}

/// TLS to endpoints, without keys.
fn tls(tls: &l7::ClientTls) -> Value {
    let mode = match tls.mode() {
        l7::client_tls::Mode::Disable => "DISABLE",
        l7::client_tls::Mode::Simple => "SIMPLE",
        l7::client_tls::Mode::Mutual => "MUTUAL",
    };
    json!({
        "mode": mode,
        "sni": tls.sni,
        "subjectAltNames": tls.subject_alt_names,
        "roots": if tls.roots.is_empty() { "the system's".to_owned() } else { certificate::count(&tls.roots).to_string() },
        "clientCertificate": tls.client.as_ref().map(|pair| certificate::of_pem(&pair.chain)),
        "insecureSkipVerify": tls.insecure_skip_verify,
    })
}

/// Limits that are set.
fn limits(pool: &l7::ConnectionPool) -> Value {
    let numbers = [
        ("connections", pool.max_connections),
        ("pendingRequests", pool.max_pending_requests),
        ("requests", pool.max_requests),
        ("retries", pool.max_retries),
        ("requestsPerConnection", pool.max_requests_per_connection),
        ("streamsPerConnection", pool.max_concurrent_streams),
    ];
    let numbers = numbers.into_iter().filter(|(_, value)| *value > 0).map(|(name, value)| (name, value.into()));
    let times = [
        ("connectTimeout", &pool.connect_timeout),
        ("httpIdleTimeout", &pool.http_idle_timeout),
        ("tcpIdleTimeout", &pool.tcp_idle_timeout),
        ("connectionAge", &pool.max_connection_duration),
    ];
    let times = times.into_iter().filter_map(|(name, value)| Some((name, duration(value.as_ref())?)));
    numbers.chain(times).map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn outliers(detection: &l7::OutlierDetection) -> Value {
    json!({
        "consecutive5xx": detection.consecutive_5xx,
        "consecutiveGatewayErrors": detection.consecutive_gateway_errors,
        "consecutiveLocalOrigin": detection.consecutive_local_origin,
        "interval": duration(detection.interval.as_ref()),
        "baseEjectionTime": duration(detection.base_ejection_time.as_ref()),
        "maxEjectionPercent": detection.max_ejection_percent,
        "minHealthPercent": detection.min_health_percent,
    })
}

fn duration(value: Option<&prost_types::Duration>) -> Option<Value> {
    let duration = std::time::Duration::try_from(*value?).ok()?;
    Some(format!("{duration:?}").into())
}

/// How endpoints are reached, all ways that there are.
fn transports(state: &[EndpointState], backend: Option<&Backend>) -> Vec<String> {
    let policy = backend.and_then(|backend| backend.config.policy.as_ref());
    let tls = match policy.and_then(|policy| policy.tls.as_ref()).map(l7::ClientTls::mode) {
        Some(l7::client_tls::Mode::Simple) => Some("TLS"),
        Some(l7::client_tls::Mode::Mutual) => Some("mutual TLS"),
        _ => None,
    };
    let way = |one: &EndpointState| match (&one.endpoint.transport, tls) {
        (Transport::Plain, None) => "plain".to_owned(),
        (Transport::Plain, Some(tls)) => tls.to_owned(),
        (Transport::Hbone { .. }, None) => "HBONE".to_owned(),
        (Transport::Hbone { .. }, Some(tls)) => format!("{tls} in HBONE"),
        (Transport::Nested { .. }, _) => "HBONE by network gateway".to_owned(),
    };
    state.iter().map(way).collect::<BTreeSet<_>>().into_iter().collect()
}

fn endpoint(state: &EndpointState) -> Value {
    let EndpointState { endpoint, active, ejected } = state;
    let transport = match &endpoint.transport {
        Transport::Plain => "plain".to_owned(),
        Transport::Hbone { proxy, .. } => format!("HBONE to {proxy}"),
        Transport::Nested { gateway, .. } => format!("HBONE through network gateway {gateway}"),
    };
    json!({
        "address": endpoint.address.to_string(),
        "hostname": endpoint.hostname.as_deref(),
        "id": &*endpoint.id,
        "status": status(endpoint),
        "ejected": ejected,
        "activeRequests": active,
        "weight": endpoint.weight,
        "transport": transport,
        "identity": endpoint.identity.as_ref().map(ToString::to_string),
        "locality": locality(endpoint),
        "node": &*endpoint.node,
    })
}

fn status(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint { healthy: false, .. } => "UNHEALTHY",
        Endpoint { weight: 0, .. } => "NO WEIGHT",
        _ => "HEALTHY",
    }
}

/// `region/zone/subzone`, without what is not known.
fn locality(endpoint: &Endpoint) -> String {
    let place = &endpoint.locality;
    format!("{}/{}/{}", place.region, place.zone, place.subzone).trim_end_matches('/').to_owned()
}
