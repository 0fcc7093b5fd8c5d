//! Labels of the TCP metrics: names and order are contracts with dashboards.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

use super::flow::{End, Flow};
use super::{Direction, ResponseFlag};
use crate::state::Workload;

/// Label value of what is not known.
const UNKNOWN: &str = "unknown";
/// Flag of a connection that went well.
const NO_FLAG: &str = "-";

/// Between `reporter` and the labels that follow from how the connection went.
const NAMES: [&str; 19] = [
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
];
/// Labels that describe the source alone; the first of [`NAMES`].
const SOURCE_NAMES: usize = 8;
/// All four, or none when no place is known.
const PLACES: [&str; 4] = ["source_region", "source_zone", "destination_region", "destination_zone"];

type Value = Option<Arc<str>>;

/// What tells one series from another, but for the flag.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub(super) direction: Direction,
    mutual_tls: bool,
    values: [Value; NAMES.len()],
    places: Option<Box<[Value; PLACES.len()]>>,
}

impl Labels {
    pub(super) fn of(flow: &Flow) -> Self {
        let (source, destination) = (flow.source.described(), flow.destination.described());
        let principal = flow.source.identity.as_ref().filter(|_| flow.mutual_tls);
        let service = flow.service.as_deref();
        let values = [
            source.workload,
            source.canonical_service,
            source.canonical_revision.clone(),
            source.namespace,
            principal.map(text),
            source.app,
            source.canonical_revision,
            source.cluster,
            service.map(|service| Arc::clone(service.hostname())),
            service.map(|service| Arc::clone(service.namespace())),
            service.map(|service| Arc::clone(&service.name)),
            destination.workload,
            destination.canonical_service,
            destination.canonical_revision.clone(),
            destination.namespace,
            destination_principal(&flow.destination),
            destination.app,
            destination.canonical_revision,
            destination.cluster,
        ];
        let places = [source.region, source.zone, destination.region, destination.zone];
        let places = places.iter().any(Option::is_some).then(|| Box::new(places));
        Self { direction: flow.direction, mutual_tls: flow.mutual_tls, values, places }
    }

    /// Namespace and workload name of the source and of the destination, as far as known.
    pub(super) fn ends(&self) -> [Option<(&str, &str)>; 2] {
        let value = |name: &str| {
            let (_, value) = NAMES.iter().zip(&self.values).find(|(known, _)| **known == name)?;
            value.as_deref()
        };
        [
            value("source_workload_namespace").zip(value("source_workload")),
            value("destination_workload_namespace").zip(value("destination_workload")),
        ]
    }

    /// The same, in memory of the calling thread; values that others hold as well are shared with them as before.
    pub(super) fn moved(&self) -> Self {
        let moved = |value: &Value| {
            let text = value.as_ref()?;
            let own = self.all().filter(|other| Arc::ptr_eq(other, text)).count();
            Some(if Arc::strong_count(text) > own { Arc::clone(text) } else { Arc::from(&**text) })
        };
        Self {
            direction: self.direction,
            mutual_tls: self.mutual_tls,
            values: self.values.each_ref().map(moved),
            places: self.places.as_ref().map(|places| Box::new(places.each_ref().map(moved))),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        let places = self.places.iter().flat_map(|places| places.iter());
        self.values.iter().chain(places).flatten()
    }

    /// Where everything is counted that finds no room of its own.
    pub(super) fn crowd(direction: Direction) -> Self {
        Self { direction, mutual_tls: false, values: Default::default(), places: None }
    }
}

/// Also without mutual TLS: it says whom the control plane describes.
fn destination_principal(destination: &End) -> Value {
    match &destination.workload {
        Some(workload) => Some(text(&workload.identity)),
        None => destination.identity.as_ref().map(text),
    }
}

fn text(value: &impl ToString) -> Arc<str> {
    value.to_string().into()
}

/// Names and values of one end.
#[derive(Default)]
struct Described {
    workload: Value,
    namespace: Value,
    canonical_service: Value,
    canonical_revision: Value,
    app: Value,
    cluster: Value,
    region: Value,
    zone: Value,
}

impl Described {
    fn of(workload: &Workload) -> Self {
        let some = |text: &Arc<str>| (!text.is_empty()).then(|| Arc::clone(text));
        Self {
            workload: some(&workload.workload_name),
            namespace: some(&workload.namespace),
            canonical_service: some(&workload.canonical_name),
            canonical_revision: some(&workload.canonical_revision),
            app: some(&workload.canonical_name),
            cluster: some(&workload.cluster_id),
            region: some(&workload.locality.region),
            zone: some(&workload.locality.zone),
        }
    }
}

impl End {
    fn described(&self) -> Described {
        let named = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Arc::from);
        match (&self.workload, &self.baggage) {
            (Some(workload), _) => Described::of(workload),
            (None, Some(baggage)) => Described {
                workload: named(&baggage.workload_name),
                namespace: named(&baggage.namespace),
                canonical_service: named(&baggage.canonical_name),
                canonical_revision: named(&baggage.canonical_revision),
                app: named(&baggage.workload_name),
                cluster: named(&baggage.cluster_id),
                region: named(&baggage.region),
                zone: named(&baggage.zone),
            },
            (None, None) => Described::default(),
        }
    }
}

/// The labels of one line of the exposition.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) labels: &'a Labels,
    pub(super) flag: Option<ResponseFlag>,
}

impl EncodeLabelSet for Shown<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { labels, flag } = self;
        let value = |value: &Value| value.as_deref().unwrap_or(UNKNOWN).to_owned();
        let mut put = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        put("reporter", labels.direction.reporter())?;
        for (name, known) in NAMES.iter().zip(&labels.values) {
            put(name, &value(known))?;
        }
        put("request_protocol", "tcp")?;
        put("response_flags", flag.map_or(NO_FLAG, ResponseFlag::as_str))?;
        put("connection_security_policy", if labels.mutual_tls { "mutual_tls" } else { UNKNOWN })?;
        for (name, known) in PLACES.iter().zip(labels.places.iter().flat_map(|places| places.iter())) {
            put(name, &value(known))?;
        }
        Ok(())
    }
}

/// The labels of a source alone, and a host name that was looked up for it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Lookup {
    source: [Value; SOURCE_NAMES],
    hostname: Arc<str>,
}

impl Lookup {
    pub(super) fn new(source: &Workload, hostname: &str) -> Self {
        let described = Described::of(source);
        let source = [
            described.workload,
            described.canonical_service,
            described.canonical_revision.clone(),
            described.namespace,
            Some(text(&source.identity)),
            described.app,
            described.canonical_revision,
            described.cluster,
        ];
        Self { source, hostname: hostname.into() }
    }
}

impl EncodeLabelSet for Lookup {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, known) in NAMES.iter().zip(&self.source) {
            (*name, known.as_deref().unwrap_or(UNKNOWN)).encode(encoder.encode_label())?;
        }
        ("hostname", &*self.hostname).encode(encoder.encode_label())
    }
}
