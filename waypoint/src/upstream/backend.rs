//! A backend as the wire has it, compiled: how its endpoints are called.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_sys::socket::Keepalive;
use mesh_wire::l7;
use mesh_wire::l7::consistent_hash::Algorithm as HashAlgorithm;

use super::balance::is_prime;
use super::hash::HashSource;
use super::proxy_protocol::Version;
use super::tls::ClientTls;
use super::warmup::Warmup;
use super::{failover, outlier};

/// A field of a backend that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?}, expected {expected}")]
pub struct BackendError {
    /// Path of the field within the backend.
    pub field: &'static str,
    /// The value as it came; never a secret.
    pub value: String,
    /// What would have been fine.
    pub expected: &'static str,
}

/// How the endpoints of a backend are picked and called. Immutable.
pub struct BackendPolicy {
    pub(super) name: Arc<str>,
    label: Arc<str>,
    /// The host is whatever a client asks for.
    pub(super) by_client: bool,
    /// Labels that endpoints must have.
    pub(super) subset: Vec<(Arc<str>, Arc<str>)>,
    pub(super) http: Http,
    pub(super) algorithm: Algorithm,
    pub(super) hash: Option<HashSource>,
    pub(super) warmup: Option<Warmup>,
    pub(super) localities: failover::Rules,
    pub(super) outlier: Option<outlier::Policy>,
    /// Percentage of healthy endpoints below which all are used; zero: never.
    pub(super) panic_below: u32,
    pub(super) limits: Limits,
    pub(super) tls: Option<ClientTls>,
    pub(super) proxy_protocol: Option<Version>,
    pub(super) refuse: Option<Arc<str>>,
    pub(super) retry_budget: Option<l7::RetryBudget>,
}

/// Which HTTP the endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http {
    One,
    Two,
    AsClient,
}

/// How one of equals is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    LeastRequest,
    RoundRobin,
    Random,
    /// The endpoint that was called, any if it was none of them.
    AsCalled,
    /// Points at least.
    Ring(u64),
    /// Slots.
    Maglev(usize),
}

/// Limits and times of a backend's connections. `None` and zero: none.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    pub(super) connections: u32,
    pub(super) pending: u32,
    pub(super) requests: u32,
    pub(super) retries: u32,
    pub(super) requests_per_connection: Option<u32>,
    pub(super) streams_per_connection: Option<usize>,
    pub(super) connect: Option<Duration>,
    pub(super) connection_age: Option<Duration>,
    pub(super) http_idle: Duration,
    pub(super) tcp_idle: Option<Duration>,
    pub(super) http2_keepalive: Option<(Duration, Duration)>,
    pub(super) tcp_keepalive: Option<Keepalive>,
}

impl BackendPolicy {
    /// Checks and compiles.
    ///
    /// # Errors
    /// [`BackendError`]: the field that cannot be used.
    pub(super) fn of(backend: &l7::Backend) -> Result<Self, BackendError> {
        let policy = backend.policy.clone().unwrap_or_default();
        let balancer = policy.load_balancer.clone().unwrap_or_default();
        let hash = balancer.consistent_hash.as_ref();
        if !(1..=u32::from(u16::MAX)).contains(&backend.port) {
            return Err(BackendError::new("port", backend.port, "1 to 65535"));
        }
        Ok(Self {
            name: name(backend).into(),
            label: label(backend).into(),
            by_client: !backend.dynamic_wildcard.is_empty(),
            subset: subset(backend),
            http: match backend.http() {
                l7::backend::Http::Http1 => Http::One,
                l7::backend::Http::Http2 => Http::Two,
                l7::backend::Http::Same => Http::AsClient,
            },
            algorithm: Algorithm::of(&balancer)?,
            hash: hash.map(HashSource::of).transpose()?.flatten(),
            warmup: balancer.warmup.as_ref().map(warmup).transpose()?.flatten(),
            localities: failover::Rules::of(balancer.locality.as_ref(), policy.outlier_detection.is_some()),
            outlier: policy.outlier_detection.as_ref().map(outlier::Policy::of),
            panic_below: policy.outlier_detection.as_ref().map_or(0, |detection| detection.min_health_percent),
            limits: Limits::of(&policy.connection_pool.unwrap_or_default())?,
            tls: policy.tls.as_ref().map(|tls| ClientTls::of(tls, &backend.hostname)).transpose()?.flatten(),
            proxy_protocol: match policy.proxy_protocol {
                0 => None,
                1 => Some(Version::One),
                2 => Some(Version::Two),
                other => return Err(BackendError::new("policy.proxy_protocol", other, "0, 1 or 2")),
            },
            refuse: (!backend.refuse.is_empty()).then(|| backend.refuse.as_str().into()),
            retry_budget: policy.retry_budget,
        })
    }
}

impl Algorithm {
    fn of(balancer: &l7::LoadBalancer) -> Result<Self, BackendError> {
        let field = "policy.load_balancer.consistent_hash.maglev_table_size";
        let Some(hash) = &balancer.consistent_hash else {
            return Ok(match balancer.simple() {
                l7::load_balancer::Simple::LeastRequest => Self::LeastRequest,
                l7::load_balancer::Simple::RoundRobin => Self::RoundRobin,
                l7::load_balancer::Simple::Random => Self::Random,
                l7::load_balancer::Simple::Passthrough => Self::AsCalled,
            });
        };
        match hash.algorithm {
            None | Some(HashAlgorithm::RingSizeMin(0)) => Ok(Self::Ring(RING_SIZE_MIN)),
            Some(HashAlgorithm::RingSizeMin(size)) => Ok(Self::Ring(size)),
            Some(HashAlgorithm::MaglevTableSize(0)) => Ok(Self::Maglev(MAGLEV_SIZE)),
            Some(HashAlgorithm::MaglevTableSize(size)) if size < MAGLEV_SIZE_MAX && is_prime(size) => {
                Ok(Self::Maglev(usize::try_from(size).unwrap_or(MAGLEV_SIZE)))
            }
            Some(HashAlgorithm::MaglevTableSize(size)) => {
                Err(BackendError::new(field, size, "a prime number below 5000011"))
            }
        }
    }
}

impl Limits {
    fn of(pool: &l7::ConnectionPool) -> Result<Self, BackendError> {
        let field = |name, value: &Option<prost_types::Duration>| duration(name, value.as_ref());
        let interval = field("policy.connection_pool.keepalive_interval", &pool.keepalive_interval)?;
        let timeout = field("policy.connection_pool.keepalive_timeout", &pool.keepalive_timeout)?;
        Ok(Self {
            connections: pool.max_connections,
            pending: pool.max_pending_requests,
            requests: pool.max_requests,
            retries: pool.max_retries,
            requests_per_connection: (pool.max_requests_per_connection > 0).then_some(pool.max_requests_per_connection),
            streams_per_connection: usize::try_from(pool.max_concurrent_streams).ok().filter(|streams| *streams > 0),
            connect: field("policy.connection_pool.connect_timeout", &pool.connect_timeout)?,
            connection_age: field("policy.connection_pool.max_connection_duration", &pool.max_connection_duration)?,
            http_idle: field("policy.connection_pool.http_idle_timeout", &pool.http_idle_timeout)?.unwrap_or(HTTP_IDLE),
            tcp_idle: field("policy.connection_pool.tcp_idle_timeout", &pool.tcp_idle_timeout)?,
            http2_keepalive: interval.map(|interval| (interval, timeout.unwrap_or(KEEPALIVE_TIMEOUT))),
            tcp_keepalive: pool.tcp_keepalive.as_ref().map(keepalive).transpose()?,
        })
    }
}

impl BackendPolicy {
    /// Its name in metrics.
    pub(super) fn label(&self) -> &Arc<str> {
        &self.label
    }
}

impl BackendError {
    pub(super) fn new(field: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self { field, value: value.to_string(), expected }
    }
}

impl fmt::Debug for BackendPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendPolicy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// As [`name`], for metrics: without what clients choose. Pools of a wildcard's hosts are one, and so are those of workloads
/// that are called by address.
fn label(backend: &l7::Backend) -> String {
    if backend.hostname.parse::<std::net::IpAddr>().is_ok() {
        return "workload".to_owned();
    }
    match backend.dynamic_wildcard.as_str() {
        "" => name(backend),
        wildcard => format!("outbound|{}|{}|{wildcard}", backend.port, backend.subset),
    }
}

/// `outbound|<port>|<subset>|<hostname>`
fn name(backend: &l7::Backend) -> String {
    format!("outbound|{}|{}|{}", backend.port, backend.subset, backend.hostname)
}

fn subset(backend: &l7::Backend) -> Vec<(Arc<str>, Arc<str>)> {
    let mut labels: Vec<_> =
        backend.subset_labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
    labels.sort();
    labels
}

fn warmup(warmup: &l7::Warmup) -> Result<Option<Warmup>, BackendError> {
    let window = duration("policy.load_balancer.warmup.duration", warmup.duration.as_ref())?;
    let or = |value: f64, default| if value > 0.0 { value } else { default };
    Ok(window.map(|window| Warmup {
        window,
        minimum: (or(warmup.minimum_percent, 10.0) / 100.0).min(1.0),
        aggression: or(warmup.aggression, 1.0),
    }))
}

fn keepalive(keepalive: &l7::TcpKeepalive) -> Result<Keepalive, BackendError> {
    let default = Keepalive::default();
    Ok(Keepalive {
        time: duration("policy.connection_pool.tcp_keepalive.time", keepalive.time.as_ref())?.unwrap_or(default.time),
        interval: duration("policy.connection_pool.tcp_keepalive.interval", keepalive.interval.as_ref())?
            .unwrap_or(default.interval),
        retries: if keepalive.probes > 0 { keepalive.probes } else { default.retries },
        user_timeout: false,
    })
}

/// Zero is none.
fn duration(field: &'static str, value: Option<&prost_types::Duration>) -> Result<Option<Duration>, BackendError> {
    let Some(value) = value else { return Ok(None) };
    let bad =
        |_| BackendError::new(field, format!("{}s {}ns", value.seconds, value.nanos), "a duration of zero or more");
    Ok(Some(Duration::try_from(*value).map_err(bad)?).filter(|duration| !duration.is_zero()))
}

/// Points of a ring, where the policy says nothing.
const RING_SIZE_MIN: u64 = 1024;
/// Slots of a table, where the policy says nothing. Prime.
const MAGLEV_SIZE: usize = 65_537;
/// The largest that the API allows.
const MAGLEV_SIZE_MAX: u64 = 5_000_011;
/// Connections without requests are closed after this, where the policy says nothing.
const HTTP_IDLE: Duration = Duration::from_secs(3_600);
/// An unanswered ping ends the connection after this, where the policy says nothing.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(edit: impl FnOnce(&mut l7::TrafficPolicy)) -> Result<BackendPolicy, BackendError> {
        let mut policy = l7::TrafficPolicy::default();
        edit(&mut policy);
        BackendPolicy::of(&l7::Backend { hostname: "a.b".into(), port: 80, policy: Some(policy), ..Default::default() })
    }

    #[test]
    fn nothing_given_is_the_reference_default() {
        let policy = compile(|_| ()).unwrap();
        assert_eq!(&*policy.name, "outbound|80||a.b");
        assert_eq!((policy.algorithm, policy.http), (Algorithm::LeastRequest, Http::One));
        assert!(policy.outlier.is_none() && policy.tls.is_none() && policy.warmup.is_none());
        assert_eq!(policy.limits.http_idle, HTTP_IDLE);
    }

    #[test]
    fn errors_name_the_field() {
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let pool = l7::ConnectionPool { connect_timeout: negative, ..Default::default() };
        let error = compile(|policy| policy.connection_pool = Some(pool)).unwrap_err();
        assert_eq!(error.field, "policy.connection_pool.connect_timeout");
        let error = compile(|policy| policy.proxy_protocol = 3).unwrap_err();
        assert_eq!(error.to_string(), "policy.proxy_protocol: \"3\", expected 0, 1 or 2");
        let hash = l7::ConsistentHash { source: None, algorithm: Some(HashAlgorithm::MaglevTableSize(1000)) };
        let balancer = l7::LoadBalancer { consistent_hash: Some(hash), ..Default::default() };
        let error = compile(|policy| policy.load_balancer = Some(balancer)).unwrap_err();
        assert_eq!(error.expected, "a prime number below 5000011");
        assert!(BackendPolicy::of(&l7::Backend::default()).is_err(), "no port");
    }
}
