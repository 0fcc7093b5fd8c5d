//! A traffic policy as the proxy is told it: defaults are filled in, and zero means no limit.

use std::time::Duration;

use mesh_api::duration::DurationText;
use mesh_api::gateway::RetryConstraint;
use mesh_api::networking::{
    ConnectionPool, ConsistentHash, H2UpgradePolicy, LoadBalancer, LocalityLoadBalancing, OutlierDetection,
    SimpleLoadBalancer, TcpKeepalive, TrafficPolicy,
};
use mesh_wire::l7;
use mesh_wire::l7::backend::Http;
use mesh_wire::l7::consistent_hash::{Algorithm, Source};
use mesh_wire::l7::load_balancer::Simple;

use crate::world::{MeshSettings, Protocol};

/// Everything but TLS.
pub(super) fn policy(written: &TrafficPolicy, settings: &MeshSettings) -> l7::TrafficPolicy {
    let balancer = written.load_balancer.clone().unwrap_or_default();
    let proxy_protocol = written.proxy_protocol.as_ref();
    l7::TrafficPolicy {
        load_balancer: Some(load_balancer(&balancer, settings)),
        connection_pool: Some(connection_pool(&written.connection_pool.clone().unwrap_or_default(), settings)),
        outlier_detection: written.outlier_detection.as_ref().map(outlier_detection),
        tls: None,
        proxy_protocol: proxy_protocol.map_or(0, |one| if one.version.as_deref() == Some("V2") { 2 } else { 1 }),
        retry_budget: written.retry_budget.as_ref().map(|budget| l7::RetryBudget {
            percent: budget.percent.unwrap_or(20.0),
            min_concurrency: budget.min_retry_concurrency.unwrap_or(3),
            interval: optional(budget.budget_interval.as_ref()),
            ..l7::RetryBudget::default()
        }),
    }
}

/// The HTTP version towards the endpoints of a port.
///
/// # Source
/// spec of waypoints, section 4.2.
pub(super) fn http(protocol: Protocol, written: &TrafficPolicy, settings: &MeshSettings) -> Http {
    let pool = written.connection_pool.as_ref().and_then(|pool| pool.http.as_ref());
    if pool.and_then(|pool| pool.use_client_protocol).unwrap_or_default() {
        return Http::Same;
    }
    let upgrade = match pool.and_then(|pool| pool.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Default => settings.l7.h2_upgrade,
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
    };
    match protocol {
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => Http::Http2,
        Protocol::Http if upgrade => Http::Http2,
        Protocol::Http | Protocol::Tcp | Protocol::Tls | Protocol::Stream | Protocol::Wss => Http::Http1,
        Protocol::Unknown | Protocol::Udp => Http::Same,
    }
}

/// The budget of an XBackendTrafficPolicy.
pub(super) fn constraint(written: &RetryConstraint) -> l7::RetryBudget {
    let budget = written.budget.clone().unwrap_or_default();
    let rate = written.min_retry_rate.clone().unwrap_or_default();
    let or = |text: Option<&DurationText>, usual| wire(text.and_then(DurationText::parse).unwrap_or(usual));
    l7::RetryBudget {
        percent: f64::from(budget.percent.unwrap_or(20)),
        min_concurrency: 0,
        interval: or(budget.interval.as_ref(), Duration::from_secs(10)),
        min_rate: rate.count.unwrap_or(10),
        min_rate_interval: or(rate.interval.as_ref(), Duration::from_secs(1)),
    }
}

fn load_balancer(written: &LoadBalancer, settings: &MeshSettings) -> l7::LoadBalancer {
    let simple = match written.simple.unwrap_or_default() {
        SimpleLoadBalancer::Unspecified | SimpleLoadBalancer::LeastConn | SimpleLoadBalancer::LeastRequest => {
            Simple::LeastRequest
        }
        SimpleLoadBalancer::RoundRobin => Simple::RoundRobin,
        SimpleLoadBalancer::Random => Simple::Random,
        SimpleLoadBalancer::Passthrough => Simple::Passthrough,
    };
    let warmup = match (&written.warmup, &written.warmup_duration_secs) {
        (Some(warmup), _) => Some(l7::Warmup {
            duration: optional(Some(&warmup.duration)),
            minimum_percent: warmup.minimum_percent.unwrap_or(10.0),
            aggression: warmup.aggression.unwrap_or(1.0),
        }),
        (None, Some(duration)) => {
            Some(l7::Warmup { duration: optional(Some(duration)), minimum_percent: 10.0, aggression: 1.0 })
        }
        (None, None) => None,
    };
    let locality = written.locality_lb_setting.as_ref().or(settings.l7.locality.as_ref());
    l7::LoadBalancer {
        simple: simple.into(),
        consistent_hash: written.consistent_hash.as_ref().and_then(consistent_hash),
        warmup,
        locality: locality.map(self::locality),
    }
}

fn consistent_hash(written: &ConsistentHash) -> Option<l7::ConsistentHash> {
    let source = if unusable_hash(written).is_some() {
        return None;
    } else if let Some(name) = &written.http_header_name {
        Source::Header(name.to_ascii_lowercase())
    } else if let Some(name) = &written.http_query_parameter_name {
        Source::Query(name.clone())
    } else if let Some(cookie) = &written.http_cookie {
        let attributes = cookie.attributes.iter().map(|one| l7::Header {
            name: one.name.clone(),
            value: one.value.clone().unwrap_or_default(),
            template: false,
        });
        Source::Cookie(l7::HashCookie {
            name: cookie.name.clone(),
            path: cookie.path.clone().unwrap_or_default(),
            ttl: optional(cookie.ttl.as_ref()),
            attributes: attributes.collect(),
        })
    } else if written.use_source_ip.unwrap_or_default() {
        Source::SourceIp(true)
    } else {
        return None;
    };
    let ring = || {
        let size = written.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size).or(written.minimum_ring_size);
        Algorithm::RingSizeMin(size.unwrap_or(1024))
    };
    let size = |size: Option<u64>| size.filter(|size| is_table_size(*size)).unwrap_or(65537);
    let algorithm = written.maglev.as_ref().map(|one| Algorithm::MaglevTableSize(size(one.table_size)));
    Some(l7::ConsistentHash { source: Some(source), algorithm: Some(algorithm.unwrap_or_else(ring)) })
}

/// Why a hash cannot be made; then there is none.
pub(super) fn unusable_hash(written: &ConsistentHash) -> Option<String> {
    let header = written.http_header_name.as_deref();
    if let Some(name) = header.filter(|name| http::HeaderName::from_bytes(name.as_bytes()).is_err()) {
        return Some(format!("httpHeaderName {name:?} is no name of a header"));
    }
    let cookie = written.http_cookie.as_ref().filter(|_| header.is_none())?;
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != ';' && c != ',');
    let texts = cookie.attributes.iter().flat_map(|one| [Some(&one.name), one.value.as_ref()]).flatten();
    let named = http::HeaderName::from_bytes(cookie.name.as_bytes()).is_ok();
    let fits = named && texts.chain(&cookie.path).all(|text| plain(text));
    (!fits).then(|| format!("httpCookie {:?} cannot stand in a header", cookie.name))
}

/// Whether a table of Maglev can have this size: a prime number below a limit.
pub(super) fn is_table_size(size: u64) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= size);
    (2..MAGLEV_SIZE_MAX).contains(&size) && divisors.all(|divisor| !size.is_multiple_of(divisor))
}

fn locality(written: &LocalityLoadBalancing) -> l7::Locality {
    l7::Locality {
        disabled: written.enabled == Some(false),
        distribute: written
            .distribute
            .iter()
            .map(|one| l7::locality::Distribute {
                from: one.from.clone().unwrap_or_default(),
                to: one.to.clone().into_iter().collect(),
            })
            .collect(),
        failover: written
            .failover
            .iter()
            .map(|one| l7::locality::Failover {
                from: one.from.clone().unwrap_or_default(),
                to: one.to.clone().unwrap_or_default(),
            })
            .collect(),
        failover_priority: written.failover_priority.clone(),
    }
}

fn connection_pool(written: &ConnectionPool, settings: &MeshSettings) -> l7::ConnectionPool {
    let tcp = written.tcp.clone().unwrap_or_default();
    let http = written.http.clone().unwrap_or_default();
    let or = |text: Option<&DurationText>, usual| wire(text.and_then(DurationText::parse).unwrap_or(usual));
    let keepalive = http.http2_keep_alive.as_ref();
    l7::ConnectionPool {
        max_connections: limit(tcp.max_connections),
        connect_timeout: or(tcp.connect_timeout.as_ref(), settings.l7.connect_timeout),
        max_connection_duration: optional(tcp.max_connection_duration.as_ref()),
        tcp_idle_timeout: or(tcp.idle_timeout.as_ref(), IDLE),
        max_pending_requests: limit(http.http1_max_pending_requests),
        max_requests: limit(http.http2_max_requests),
        max_requests_per_connection: limit(http.max_requests_per_connection),
        max_retries: limit(http.max_retries),
        http_idle_timeout: or(http.idle_timeout.as_ref(), IDLE),
        max_concurrent_streams: limit(http.max_concurrent_streams),
        keepalive_interval: keepalive.and_then(|one| optional(one.interval.as_ref())),
        keepalive_timeout: keepalive.and_then(|one| optional(one.timeout.as_ref())),
        tcp_keepalive: tcp.tcp_keepalive.as_ref().or(settings.l7.tcp_keepalive.as_ref()).map(tcp_keepalive),
    }
}

fn tcp_keepalive(written: &TcpKeepalive) -> l7::TcpKeepalive {
    l7::TcpKeepalive {
        probes: written.probes.unwrap_or_default(),
        time: optional(written.time.as_ref()),
        interval: optional(written.interval.as_ref()),
    }
}

fn outlier_detection(written: &OutlierDetection) -> l7::OutlierDetection {
    let old = written.consecutive_errors.and_then(|one| u32::try_from(one).ok());
    let or = |text: Option<&DurationText>, secs| {
        wire(text.and_then(DurationText::parse).unwrap_or(Duration::from_secs(secs)))
    };
    let percent = |value: Option<i32>, usual| value.and_then(|one| u32::try_from(one).ok()).unwrap_or(usual).min(100);
    l7::OutlierDetection {
        consecutive_5xx: written.consecutive_5xx_errors.or(old).unwrap_or(5),
        consecutive_gateway_errors: written.consecutive_gateway_errors.unwrap_or_default(),
        split_local_origin: written.split_external_local_origin_errors.unwrap_or_default(),
        consecutive_local_origin: written.consecutive_local_origin_failures.unwrap_or(5),
        interval: or(written.interval.as_ref(), 10),
        base_ejection_time: or(written.base_ejection_time.as_ref(), 30),
        max_ejection_percent: percent(written.max_ejection_percent, 10),
        min_health_percent: percent(written.min_health_percent, 0),
        error_codes: written.outlier_detection_http_error_codes.clone(),
    }
}

/// Zero means no limit, as in the API; so does a negative number, which admission refuses.
fn limit(written: Option<i32>) -> u32 {
    written.and_then(|one| u32::try_from(one).ok()).unwrap_or_default()
}

/// A length of time, where it is given and can be read.
pub(super) fn optional(text: Option<&DurationText>) -> Option<prost_types::Duration> {
    text.and_then(DurationText::parse).and_then(wire)
}

/// A length of time.
pub(super) fn wire(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}

/// The API allows no larger tables.
const MAGLEV_SIZE_MAX: u64 = 5_000_011;
/// Connections without traffic are kept so long.
const IDLE: Duration = Duration::from_secs(3600);
