//! What is told about queries: counters, and a log line each when that is asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_telemetry::metrics::{Counter, Family, Histogram, Registry};

use super::answer::Transport;
use super::lookup::Answer;
use super::message::RecordType;
use crate::state::Workload;

type Labels = Vec<(&'static str, String)>;

/// The metrics of all pods. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    forwarded: Family<Labels, Counter>,
    failed: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            forwarded: Family::default(),
            failed: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS)),
        };
        let Self { requests, forwarded, failed, seconds } = metrics.clone();
        registry.register("istio_dns_requests", "Total number of DNS requests", requests);
        registry.register(
            "istio_dns_upstream_requests",
            "Total number of DNS requests forwarded to upstream resolvers",
            forwarded,
        );
        registry.register(
            "istio_dns_upstream_failures",
            "Total number of DNS requests that no upstream resolver answered",
            failed,
        );
        registry.register(
            "istio_dns_upstream_request_duration_seconds",
            "Time until an upstream resolver answered a DNS request",
            seconds,
        );
        metrics
    }
}

/// The metrics of one pod. Stays on its worker.
#[derive(Debug)]
pub(super) struct PodMetrics {
    all: Metrics,
    cached: RefCell<Cached>,
}

/// Counters that were looked up, for the record that their labels came from.
#[derive(Debug, Default)]
struct Cached {
    workload: Option<Arc<Workload>>,
    counters: HashMap<(&'static str, Transport), Rc<Counters>>,
}

/// Of one kind of query.
#[derive(Debug)]
pub(super) struct Counters {
    requests: Counter,
    upstream: std::cell::OnceCell<UpstreamCounters>,
    labels: Labels,
}

#[derive(Debug)]
struct UpstreamCounters {
    forwarded: Counter,
    seconds: Histogram,
}

impl PodMetrics {
    pub(super) fn new(all: Metrics) -> Self {
        Self { all, cached: RefCell::default() }
    }

    pub(super) fn request(&self, kind: Option<RecordType>, transport: Transport, client: Option<&Arc<Workload>>) {
        self.counters(kind, transport, client).requests.inc();
    }

    /// A query was passed on; `answered_after`: unless nobody answered.
    pub(super) fn forwarded(
        &self,
        kind: Option<RecordType>,
        transport: Transport,
        client: Option<&Arc<Workload>>,
        answered_after: Option<Duration>,
    ) {
        let counters = self.counters(kind, transport, client);
        let upstream = counters.upstream.get_or_init(|| UpstreamCounters {
            forwarded: self.all.forwarded.get_or_create_owned(&counters.labels),
            seconds: self.all.seconds.get_or_create_owned(&counters.labels),
        });
        upstream.forwarded.inc();
        match answered_after {
            Some(duration) => upstream.seconds.observe(duration.as_secs_f64()),
            None => {
                self.all.failed.get_or_create_owned(&counters.labels).inc();
            }
        }
    }

    fn counters(&self, kind: Option<RecordType>, transport: Transport, client: Option<&Arc<Workload>>) -> Rc<Counters> {
        let mut cached = self.cached.borrow_mut();
        let same = match (&cached.workload, client) {
            (None, None) => true,
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            _ => false,
        };
        if !same {
            *cached = Cached { workload: client.cloned(), counters: HashMap::new() };
        }
        let kind = kind.map_or(UNKNOWN, RecordType::label);
        let counters = cached.counters.entry((kind, transport)).or_insert_with(|| {
            let labels = labels(kind, transport, client);
            let requests = self.all.requests.get_or_create_owned(&labels);
            Rc::new(Counters { requests, upstream: std::cell::OnceCell::new(), labels })
        });
        Rc::clone(counters)
    }
}

fn labels(kind: &str, transport: Transport, client: Option<&Arc<Workload>>) -> Labels {
    let known = |text: Option<&Arc<str>>| match text {
        Some(text) if !text.is_empty() => text.to_string(),
        _ => UNKNOWN.to_owned(),
    };
    vec![
        ("request_query_type", kind.to_owned()),
        ("request_protocol", transport.label().to_owned()),
        ("source_canonical_service", known(client.map(|client| &client.canonical_name))),
        ("source_canonical_revision", known(client.map(|client| &client.canonical_revision))),
    ]
}

/// What became of a query, for the log.
pub(super) enum Outcome<'a> {
    /// The mesh knew.
    Answered(&'a Answer),
    /// A name server was asked.
    Forwarded(&'a Result<Vec<u8>, super::upstream::UpstreamError>),
    /// Nobody was asked.
    Refused(&'a str),
}

/// Who asked for what.
pub(super) struct Asked<'a> {
    pub(super) pod: &'a str,
    pub(super) namespace: &'a str,
    pub(super) kind: Option<RecordType>,
    pub(super) name: Option<&'a str>,
}

pub(super) fn log(asked: &Asked<'_>, outcome: &Outcome<'_>) {
    if !tracing::enabled!(target: DNS, tracing::Level::DEBUG) {
        return;
    }
    let (result, endpoints) = match outcome {
        Outcome::Answered(answer) => {
            let list: Vec<String> = answer.addresses.iter().map(ToString::to_string).collect();
            ("answered".to_owned(), Some(list.join(",")))
        }
        Outcome::Forwarded(Ok(_)) => ("forwarded".to_owned(), None),
        Outcome::Forwarded(Err(error)) => (error.to_string(), None),
        Outcome::Refused(why) => ((*why).to_owned(), None),
    };
    tracing::debug!(
        target: DNS,
        {
            src.workload = asked.pod,
            src.namespace = asked.namespace,
            query = asked.kind.map(RecordType::label),
            domain = asked.name,
            result,
            endpoints,
        },
        "query complete"
    );
}

/// Target of the log line.
const DNS: &str = "dns";
const UNKNOWN: &str = "unknown";
const SECONDS_BUCKETS: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];
