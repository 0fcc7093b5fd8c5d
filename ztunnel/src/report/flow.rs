//! The TCP metrics, with one set of counters per pair of ends that is looked up, not rebuilt.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use mesh_core::Identity;
use mesh_telemetry::metrics::{Counter, Family, Registry};

use super::{BaggagePeer, ConnectionInfo, Direction, Outcome, Peer, ResponseFlag};
use crate::state::{Service, Workload};

type Labels = Vec<(&'static str, String)>;

/// Label value of what is not known.
const UNKNOWN: &str = "unknown";
/// Flag of a connection that went well.
const NO_FLAG: &str = "-";
/// Cached pairs; beyond that the cache starts over. Pairs of pods that talk at one time, per node.
const FLOWS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Flows {
    families: Families,
    cache: RwLock<HashMap<Key, Arc<Flow>>>,
}

#[derive(Clone, Debug, Default)]
struct Families {
    opened: Family<Labels, Counter>,
    closed: Family<Labels, Counter>,
    failed: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
}

/// Counters of one pair of ends.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) opened: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    /// By outcome: none, then each flag. Made when first needed, so that zeros are not exported.
    ended: [OnceLock<Ended>; ResponseFlag::ALL.len() + 1],
    labels: Labels,
    families: Families,
}

#[derive(Debug)]
struct Ended {
    closed: Counter,
    failed: Option<Counter>,
}

impl Flows {
    pub(super) fn new(registry: &Registry) -> Self {
        let families = Families::default();
        let Families { opened, closed, failed, received, sent } = families.clone();
        registry.register("istio_tcp_connections_opened", "The total number of TCP connections opened", opened);
        registry.register("istio_tcp_connections_closed", "The total number of TCP connections closed", closed);
        registry.register("istio_tcp_connections_failed", "The total number of TCP connections that failed", failed);
        registry.register(
            "istio_tcp_received_bytes",
            "The size of total bytes received during request in case of a TCP connection",
            received,
        );
        registry.register(
            "istio_tcp_sent_bytes",
            "The size of total bytes sent during response in case of a TCP connection",
            sent,
        );
        Self { families, cache: RwLock::default() }
    }

    pub(super) fn of(&self, info: &ConnectionInfo) -> Arc<Flow> {
        let key = Key::new(info);
        if let Some(flow) = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(flow);
        }
        let flow = Arc::new(self.make(info));
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= FLOWS_MAX {
            cache.clear();
        }
        Arc::clone(cache.entry(key).or_insert(flow))
    }

    fn make(&self, info: &ConnectionInfo) -> Flow {
        let labels = labels(info, NO_FLAG);
        Flow {
            opened: self.families.opened.get_or_create_owned(&labels),
            received: self.families.received.get_or_create_owned(&labels),
            sent: self.families.sent.get_or_create_owned(&labels),
            ended: Default::default(),
            labels,
            families: self.families.clone(),
        }
    }
}

impl Flow {
    pub(super) fn ended(&self, outcome: &Outcome) {
        let flag = match outcome {
            Outcome::Complete => None,
            Outcome::Failed { flag, .. } => Some(*flag),
        };
        let slot = flag.map_or(0, |flag| 1 + ResponseFlag::ALL.iter().position(|known| *known == flag).unwrap_or(0));
        let Some(slot) = self.ended.get(slot) else { return };
        let ended = slot.get_or_init(|| self.make_ended(flag));
        ended.closed.inc();
        if let Some(failed) = &ended.failed {
            failed.inc();
        }
    }

    fn make_ended(&self, flag: Option<ResponseFlag>) -> Ended {
        let mut labels = self.labels.clone();
        for (name, value) in &mut labels {
            if *name == "response_flags" {
                *value = flag.map_or(NO_FLAG, ResponseFlag::as_str).to_owned();
            }
        }
        Ended {
            closed: self.families.closed.get_or_create_owned(&labels),
            failed: flag.map(|_| self.families.failed.get_or_create_owned(&labels)),
        }
    }
}

/// Which ends. Workloads and services are compared as objects: an update makes a new object, and
/// the key keeps the old one alive for as long as it is compared with.
#[derive(Debug)]
struct Key {
    direction: Direction,
    mutual_tls: bool,
    source: PeerKey,
    destination: PeerKey,
    service: Option<Arc<Service>>,
}

#[derive(Debug)]
struct PeerKey {
    workload: Option<Arc<Workload>>,
    baggage: Option<BaggagePeer>,
    identity: Option<Identity>,
}

impl Key {
    fn new(info: &ConnectionInfo) -> Self {
        Self {
            direction: info.direction,
            mutual_tls: info.mutual_tls,
            source: PeerKey::new(&info.source),
            destination: PeerKey::new(&info.destination),
            service: info.service.clone(),
        }
    }
}

impl PeerKey {
    fn new(peer: &Peer) -> Self {
        // Baggage counts only where there is no record; leaving it out otherwise keeps keys equal.
        let baggage = if peer.workload.is_none() { peer.baggage.clone() } else { None };
        Self { workload: peer.workload.clone(), baggage, identity: peer.identity.clone() }
    }
}

fn address<T>(object: Option<&Arc<T>>) -> usize {
    object.map_or(0, |object| Arc::as_ptr(object).addr())
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.direction == other.direction
            && self.mutual_tls == other.mutual_tls
            && self.source == other.source
            && self.destination == other.destination
            && address(self.service.as_ref()) == address(other.service.as_ref())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.direction, self.mutual_tls, address(self.service.as_ref())).hash(state);
        self.source.hash(state);
        self.destination.hash(state);
    }
}

impl PartialEq for PeerKey {
    fn eq(&self, other: &Self) -> bool {
        address(self.workload.as_ref()) == address(other.workload.as_ref())
            && self.identity == other.identity
            && self.baggage == other.baggage
    }
}

impl Eq for PeerKey {}

impl Hash for PeerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (address(self.workload.as_ref()), &self.identity, &self.baggage).hash(state);
    }
}

/// Names and values of one end.
struct Described<'a> {
    workload: Option<&'a str>,
    namespace: Option<&'a str>,
    canonical_service: Option<&'a str>,
    canonical_revision: Option<&'a str>,
    app: Option<&'a str>,
    cluster: Option<&'a str>,
    region: Option<&'a str>,
    zone: Option<&'a str>,
}

impl<'a> Described<'a> {
    fn new(peer: &'a Peer) -> Self {
        match (&peer.workload, &peer.baggage) {
            (Some(workload), _) => Self {
                workload: some(&workload.workload_name),
                namespace: some(&workload.namespace),
                canonical_service: some(&workload.canonical_name),
                canonical_revision: some(&workload.canonical_revision),
                app: some(&workload.canonical_name),
                cluster: some(&workload.cluster_id),
                region: some(&workload.locality.region),
                zone: some(&workload.locality.zone),
            },
            (None, Some(baggage)) => Self {
                workload: baggage.workload_name.as_deref(),
                namespace: baggage.namespace.as_deref(),
                canonical_service: baggage.canonical_name.as_deref(),
                canonical_revision: baggage.canonical_revision.as_deref(),
                app: baggage.workload_name.as_deref(),
                cluster: baggage.cluster_id.as_deref(),
                region: baggage.region.as_deref(),
                zone: baggage.zone.as_deref(),
            },
            (None, None) => Self {
                workload: None,
                namespace: None,
                canonical_service: None,
                canonical_revision: None,
                app: None,
                cluster: None,
                region: None,
                zone: None,
            },
        }
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// All labels, in the order of the specification.
fn labels(info: &ConnectionInfo, flag: &str) -> Labels {
    let (source, destination) = (Described::new(&info.source), Described::new(&info.destination));
    let source_principal = info.source.identity.as_ref().filter(|_| info.mutual_tls).map(ToString::to_string);
    // Also without mutual TLS: it says whom the control plane describes.
    let destination_principal = info.destination.workload.as_ref().map(|workload| workload.identity.to_string());
    let service = info.service.as_deref();
    let value = |value: Option<&str>| value.unwrap_or(UNKNOWN).to_owned();
    let mut labels = vec![
        ("reporter", info.direction.reporter().to_owned()),
        ("source_workload", value(source.workload)),
        ("source_canonical_service", value(source.canonical_service)),
        ("source_canonical_revision", value(source.canonical_revision)),
        ("source_workload_namespace", value(source.namespace)),
        ("source_principal", value(source_principal.as_deref())),
        ("source_app", value(source.app)),
        ("source_version", value(source.canonical_revision)),
        ("source_cluster", value(source.cluster)),
        ("destination_service", value(service.map(|service| &**service.hostname()))),
        ("destination_service_namespace", value(service.map(|service| &**service.namespace()))),
        ("destination_service_name", value(service.map(|service| &*service.name))),
        ("destination_workload", value(destination.workload)),
        ("destination_canonical_service", value(destination.canonical_service)),
        ("destination_canonical_revision", value(destination.canonical_revision)),
        ("destination_workload_namespace", value(destination.namespace)),
        ("destination_principal", value(destination_principal.as_deref())),
        ("destination_app", value(destination.app)),
        ("destination_version", value(destination.canonical_revision)),
        ("destination_cluster", value(destination.cluster)),
        ("request_protocol", "tcp".to_owned()),
        ("response_flags", flag.to_owned()),
        ("connection_security_policy", if info.mutual_tls { "mutual_tls" } else { UNKNOWN }.to_owned()),
    ];
    let places = [source.region, source.zone, destination.region, destination.zone];
    if places.iter().any(Option::is_some) {
        let names = ["source_region", "source_zone", "destination_region", "destination_zone"];
        labels.extend(names.into_iter().zip(places.into_iter().map(value)));
    }
    labels
}
