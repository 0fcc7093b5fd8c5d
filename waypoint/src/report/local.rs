//! What a worker keeps for itself, so that workers do not meet at a lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue};
use mesh_core::Identity;
use mesh_hbone::Baggage;

use super::ends::{End, Service};
use super::flags::Flags;
use super::series::{Counts, Kind, Labels, Logged, Report, add};
use super::{Request, access};
use crate::connection::PeerInfo;

/// One worker's part of a [`Report`].
pub struct Local {
    report: Arc<Report>,
    series: RefCell<HashMap<Key, Known>>,
    /// Ends of clients, by what they say.
    ends: RefCell<HashMap<Said, Arc<End>>>,
    /// How many of them each client has.
    told: RefCell<HashMap<Option<Identity>, usize>>,
    /// Series that name nobody, for when there are too many.
    nameless: RefCell<HashMap<Labels, Arc<Counts>>>,
}

/// Who a client is, and how it describes itself.
type Said = (Option<Identity>, Option<Box<[u8]>>);

/// Labels by the addresses of their parts, which [`Known`] keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: usize,
    destination: usize,
    service: usize,
    mutual_tls: bool,
    flags: Flags,
    kind: Kind,
}

struct Known {
    counts: Arc<Counts>,
    _labels: Labels,
}

impl Local {
    /// A worker's part of `report`.
    #[must_use]
    pub fn new(report: &Arc<Report>) -> Self {
        Self {
            report: report.clone(),
            series: RefCell::default(),
            ends: RefCell::default(),
            told: RefCell::default(),
            nameless: RefCell::default(),
        }
    }

    /// Counts a request that has ended, and logs it where that is wanted.
    pub fn request(&self, request: &Request<'_>) {
        // Upstreams may say any number: those that mean nothing are one.
        let grpc_status =
            request.grpc_status.map(|status| if status <= GRPC_STATUS_MAX { status } else { GRPC_UNKNOWN });
        let kind = Kind::Http { status: request.status, grpc: request.grpc, grpc_status };
        let labels = Facts { peer: request.peer, destination: request.destination, service: request.service };
        let counts = self.counts(labels, request.flags, kind);
        add(&counts.first, 1);
        add(&counts.received, request.request_messages);
        add(&counts.sent, request.response_messages);
        if let Some([duration, received, sent]) = counts.histograms.as_deref() {
            duration.observe(u64::try_from(request.duration.as_micros()).unwrap_or(u64::MAX));
            received.observe(request.request_bytes.saturating_mul(1000));
            sent.observe(request.response_bytes.saturating_mul(1000));
        }
        let failed = !request.flags.is_empty() || request.log.denial.is_some();
        if self.logs(failed) {
            access::request(request, failed);
        }
    }

    /// Whether a request or connection would be logged.
    #[must_use]
    pub fn logs(&self, failed: bool) -> bool {
        match self.report.logged {
            Logged::Nothing => false,
            Logged::Failures => failed,
            Logged::All => true,
        }
    }

    /// A connection of bytes whose endpoint was picked; `opened` counts.
    #[must_use]
    pub fn connection(&self, opening: Opening) -> Connection {
        let facts =
            Facts { peer: &opening.peer, destination: opening.destination.as_ref(), service: opening.service.as_ref() };
        let counts = self.counts(facts, Flags::NONE, Kind::Tcp);
        add(&counts.first, 1);
        Connection { opening, counts, started: Instant::now(), at: SystemTime::now(), received: 0, sent: 0 }
    }

    /// The end of a connection of bytes: counts it as closed, and logs it where that is wanted.
    pub fn closed(&self, connection: &Connection, flags: Flags, details: &str) {
        self.count_closed(connection, flags);
        if self.logs(!flags.is_empty()) {
            access::connection(connection, flags, details);
        }
    }

    /// A connection that came to nothing: counted as opened and closed, and logged where failures are.
    pub fn refused(&self, opening: Opening, flags: Flags, details: &str) {
        let connection = self.connection(opening);
        self.count_closed(&connection, flags);
        if self.logs(true) {
            access::refused(&connection, flags, details);
        }
    }

    fn count_closed(&self, connection: &Connection, flags: Flags) {
        let Opening { peer, destination, service, .. } = &connection.opening;
        let facts = Facts { peer, destination: destination.as_ref(), service: service.as_ref() };
        add(&self.counts(facts, flags, Kind::Tcp).closed, 1);
    }

    /// The end of a client that has proven to be `identity`, described by the baggage of its request.
    #[must_use]
    pub fn source(&self, identity: Option<&Identity>, headers: &HeaderMap) -> Arc<End> {
        let said = said(headers);
        let key = (identity.cloned(), said.map(|value| value.as_bytes().into()));
        if let Some(known) = self.ends.borrow().get(&key) {
            return known.clone();
        }
        if self.ends.borrow().len() >= ENDS_MAX {
            self.ends.borrow_mut().clear();
            self.told.borrow_mut().clear();
        }
        let end = match said {
            // Whoever says something else each time is believed nothing more: it would drown everybody's metrics.
            Some(_) if !self.may_say_more(identity) => return self.source(identity, &HeaderMap::new()),
            Some(_) => described(identity, headers),
            None => End::proven(identity),
        };
        let end = Arc::new(end);
        self.ends.borrow_mut().insert(key, end.clone());
        end
    }

    /// Counts the descriptions that a client has given of itself.
    fn may_say_more(&self, identity: Option<&Identity>) -> bool {
        let mut told = self.told.borrow_mut();
        let count = told.entry(identity.cloned()).or_default();
        *count += 1;
        *count <= ENDS_OF_ONE_MAX
    }

    /// The end of a client that has proven nothing.
    #[must_use]
    pub fn stranger(&self) -> Arc<End> {
        self.source(None, &HeaderMap::new())
    }

    /// When there are too many series, all further ones of this worker count under labels that name nobody.
    fn nameless(&self, labels: &Labels) -> Arc<Counts> {
        let labels = Labels { source: Arc::default(), destination: None, service: None, ..labels.clone() };
        let mut nameless = self.nameless.borrow_mut();
        if nameless.len() >= LOCAL_SERIES_MAX {
            nameless.clear();
        }
        let join = || self.report.table.join_anyway(&labels);
        nameless.entry(labels.clone()).or_insert_with(join).clone()
    }

    /// How many sets of labels are remembered.
    #[cfg(test)]
    pub(super) fn series_known(&self) -> usize {
        self.series.borrow().len()
    }

    fn counts(&self, facts: Facts<'_>, flags: Flags, kind: Kind) -> Arc<Counts> {
        fn address<T>(of: Option<&Arc<T>>) -> usize {
            of.map_or(0, |arc| Arc::as_ptr(arc) as usize)
        }
        let mutual_tls = facts.peer.via_hbone && facts.peer.source_identity.is_some();
        let key = Key {
            source: address(Some(&facts.peer.source)),
            destination: address(facts.destination),
            service: address(facts.service),
            mutual_tls,
            flags,
            kind,
        };
        if let Some(known) = self.series.borrow().get(&key) {
            return known.counts.clone();
        }
        let labels = Labels {
            source: facts.peer.source.clone(),
            destination: facts.destination.cloned(),
            service: facts.service.cloned(),
            mutual_tls,
            flags,
            kind,
        };
        let counts = self.report.table.join(&labels).unwrap_or_else(|| self.nameless(&labels));
        let mut series = self.series.borrow_mut();
        if series.len() >= LOCAL_SERIES_MAX {
            // What is in use comes back at once; the rest goes with its workloads.
            series.clear();
        }
        series.insert(key, Known { counts: counts.clone(), _labels: labels });
        counts
    }
}

/// What a client says of itself, where it is worth reading.
fn said(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(mesh_hbone::baggage::BAGGAGE).iter();
    let only = values.next().filter(|_| values.next().is_none());
    only.filter(|value| value.len() <= BAGGAGE_BYTES_MAX)
}

/// What labels are made of.
#[derive(Clone, Copy)]
struct Facts<'a> {
    peer: &'a PeerInfo,
    destination: Option<&'a Arc<End>>,
    service: Option<&'a Arc<Service>>,
}

/// What is known of a connection of bytes when it begins.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Who calls whom.
    pub peer: Rc<PeerInfo>,
    /// The service that was called or routed to.
    pub service: Option<Arc<Service>>,
    /// The endpoint that was picked.
    pub destination: Option<Arc<End>>,
    /// Its address.
    pub upstream: Option<SocketAddr>,
    /// Which rule.
    pub route: Arc<str>,
    /// What failed on the way to the endpoint, or why the client was refused.
    pub failure: Option<Arc<str>>,
}

impl Opening {
    /// Of a connection that was refused.
    #[must_use]
    pub fn nowhere(peer: Rc<PeerInfo>, reason: &str) -> Self {
        let failure = Some(reason.into());
        Self { peer, service: None, destination: None, upstream: None, route: Arc::default(), failure }
    }
}

/// A connection of bytes that is open.
#[derive(Debug)]
pub struct Connection {
    pub(super) opening: Opening,
    counts: Arc<Counts>,
    pub(super) started: Instant,
    pub(super) at: SystemTime,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Connection {
    /// So many more bytes came from the client, and went to it.
    pub fn moved(&mut self, received: u64, sent: u64) {
        self.received += received;
        self.sent += sent;
        add(&self.counts.received, received);
        add(&self.counts.sent, sent);
    }

    pub(super) fn duration(&self) -> Duration {
        self.started.elapsed()
    }
}

fn described(identity: Option<&Identity>, headers: &HeaderMap) -> End {
    let baggage = Baggage::decode(headers).unwrap_or_default();
    // What is visible in a header is ASCII; names in Kubernetes are shorter.
    let text = |value: Option<&str>| -> Arc<str> {
        let value = value.unwrap_or_default();
        value.get(..BAGGAGE_TEXT_BYTES_MAX).unwrap_or(value).into()
    };
    let said = baggage.namespace.as_deref();
    End {
        workload: text(baggage.workload.as_deref()),
        namespace: text(identity.map(Identity::namespace).or(said)),
        identity: identity.cloned(),
        app: text(baggage.service.as_deref()),
        version: text(baggage.revision.as_deref()),
        canonical_service: text(baggage.service.as_deref()),
        canonical_revision: text(baggage.revision.as_deref()),
        cluster: text(baggage.cluster.as_deref()),
    }
}

/// Ends of clients that a worker remembers.
const ENDS_MAX: usize = 4_096;
/// Of one identity: a service account may have many workloads.
const ENDS_OF_ONE_MAX: usize = 256;
/// Of a header that is read; proxies send some 300.
const BAGGAGE_BYTES_MAX: usize = 1 << 10;
/// Of one name in it.
const BAGGAGE_TEXT_BYTES_MAX: usize = 128;
/// The last status that gRPC knows, and the one for those that it does not know.
const GRPC_STATUS_MAX: u32 = 16;
const GRPC_UNKNOWN: u32 = 2;
/// Series that a worker remembers.
const LOCAL_SERIES_MAX: usize = 8_192;
