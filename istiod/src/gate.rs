//! Who may open an xDS stream, and as which node.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use mesh_wire::discovery::Node;
use mesh_wire::meltemi;
use mesh_xds::server::{Attendant, Gatekeeper};
use prost_types::value::Kind;
use tokio::time::Instant;
use tonic::Status;

use crate::auth::{Authenticator, Caller, Credentials, TokenReviewer};
use crate::ca::service::unauthenticated;
use crate::listen::Peer;
use crate::registration::{Claim, Refusal, Registry};
use crate::world::Promises;

/// Admits streams to one listener.
#[derive(Debug)]
pub struct Gate<R> {
    /// Who reviews tokens; none on a listener without authentication.
    pub authenticator: Option<Arc<Authenticator<R>>>,
    /// Whether a node must be of its caller's namespace (and account, when it names one).
    pub identity_check: bool,
    /// New streams, over all listeners.
    pub limiter: Arc<RateLimiter>,
    /// Which promises hold at the moment.
    pub promises: CurrentPromises,
    /// Who registers workloads that are no pods; none where nobody is registered.
    pub workloads: Option<Arc<Registry>>,
}

/// Tells which promises hold at the moment.
#[derive(Clone)]
pub struct CurrentPromises(Arc<dyn Fn() -> Promises + Send + Sync>);

impl CurrentPromises {
    /// Those that `current` says.
    pub fn new(current: impl Fn() -> Promises + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }
}

impl Default for CurrentPromises {
    fn default() -> Self {
        Self::new(Promises::default)
    }
}

impl fmt::Debug for CurrentPromises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurrentPromises").finish_non_exhaustive()
    }
}

impl<R: TokenReviewer> Gatekeeper for Gate<R> {
    /// None on a listener without authentication.
    type Caller = Option<Caller>;

    async fn admit(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Option<Caller>, Status> {
        // Who is not authenticated takes no turn from those who are.
        let caller = match &self.authenticator {
            None => {
                if let Some(peer) = extensions.get::<Arc<Peer>>() {
                    peer.know();
                }
                None
            }
            Some(authenticator) => {
                let caller = authenticator.authenticate(Credentials::of(headers, extensions)).await;
                Some(caller.map_err(|error| unauthenticated(&error))?)
            }
        };
        match self.limiter.take(Instant::now()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(Status::resource_exhausted("too many new streams, try again later")),
        }
        Ok(caller)
    }

    fn address(&self, extensions: &Extensions) -> Option<SocketAddr> {
        extensions.get::<Arc<Peer>>().map(|peer| peer.addr())
    }

    fn greeting(&self, headers: &HeaderMap) -> HeaderMap {
        greeting(headers, (self.promises.0)())
    }

    /// Only whom our own API server vouches for: those of other clusters are not the service accounts of ours, and a
    /// certificate, which workloads of the same name get in every cluster, does not tell of which cluster its holder is.
    fn principal(&self, caller: &Option<Caller>) -> Option<Arc<str>> {
        let ours = |caller: &&Caller| caller.cluster.is_none() && caller.trust_domain.is_none();
        let caller = caller.as_ref().filter(ours)?;
        Some(format!("{}/{}", caller.namespace, caller.service_account).into())
    }

    fn check(&self, caller: &Option<Caller>, node: &Node) -> Result<(), Status> {
        let claimed = NodeId::parse(node).map_err(Status::invalid_argument)?;
        match caller {
            Some(caller) if self.identity_check => claimed.belongs_to(caller).map_err(|reason| {
                tracing::warn!(node = node.id, reason, "node refused");
                Status::permission_denied(reason)
            }),
            _ => Ok(()),
        }
    }

    async fn attend(&self, caller: &Option<Caller>, node: &Node) -> Result<Option<Box<dyn Attendant>>, Status> {
        let claimed = NodeId::parse(node).map_err(Status::invalid_argument)?;
        let registered = match &self.workloads {
            Some(workloads) => workloads.register(caller.as_ref(), node, &claimed.namespace).await,
            None if Claim::of(node, &claimed.namespace)?.is_some() => Err(Refusal::Off),
            None => Ok(None),
        };
        Ok(registered?.map(|attendance| Box::new(attendance) as Box<dyn Attendant>))
    }
}

/// Which promises hold, for clients that say that they can be told. Others know of none and get the same resources: what
/// they do not know of those, they ignore, and so every client shares one serialisation and one version.
fn greeting(headers: &HeaderMap, promises: Promises) -> HeaderMap {
    let told = headers.get_all(meltemi::EXTENSIONS_HEADER).iter().filter_map(|value| value.to_str().ok());
    let asks = told.flat_map(|list| list.split(',')).any(|one| one.trim() == meltemi::PROMISES_EXTENSION);
    let text = format!(
        "waypointRequired={},policyBeforeTraffic={}",
        promises.waypoint_required.name(),
        promises.policy_before_traffic.name()
    );
    let value = HeaderValue::try_from(text).ok().filter(|_| asks);
    value.map(|value| (HeaderName::from_static(meltemi::PROMISES_HEADER), value)).into_iter().collect()
}

/// What a node says of itself.
#[derive(Debug, PartialEq, Eq)]
struct NodeId {
    namespace: String,
    service_account: Option<String>,
}

impl NodeId {
    /// Reads `type~ip~pod.namespace~domain` and metadata.
    fn parse(node: &Node) -> Result<Self, String> {
        let parts: Vec<_> = node.id.split('~').collect();
        let [kind, ip, name, _domain] = parts.as_slice() else {
            return Err(format!("node id {:?}: expected type~ip~name.namespace~domain", node.id));
        };
        if !NODE_TYPES.contains(kind) {
            return Err(format!(
                "node id {:?}: type {kind:?} is unknown, expected one of {}",
                node.id,
                NODE_TYPES.join(", ")
            ));
        }
        let text = |key: &str| match &node.metadata.as_ref()?.fields.get(key)?.kind {
            Some(Kind::StringValue(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let told = text("INSTANCE_IPS");
        let valid = |one: &str| one.trim().parse::<std::net::IpAddr>().is_ok();
        if !told.as_deref().is_some_and(|ips| ips.split(',').any(valid)) && !valid(ip) {
            return Err(format!("node id {:?}: {ip:?} is no address", node.id));
        }
        let namespace = text("NAMESPACE").or_else(|| name.rsplit_once('.').map(|(_, namespace)| namespace.to_owned()));
        Ok(Self { namespace: namespace.unwrap_or_default(), service_account: text("SERVICE_ACCOUNT") })
    }

    fn belongs_to(&self, caller: &Caller) -> Result<(), String> {
        if self.namespace != *caller.namespace {
            return Err(format!("node of namespace {:?}, caller of namespace {:?}", self.namespace, caller.namespace));
        }
        match &self.service_account {
            Some(account) if **account != *caller.service_account => {
                Err(format!("node of service account {account:?}, caller is {:?}", caller.service_account))
            }
            _ => Ok(()),
        }
    }
}

/// A token bucket that lets callers wait a little.
#[derive(Debug)]
pub struct RateLimiter {
    /// Time that one token takes to come.
    interval: Duration,
    /// When the bucket was, or will be, empty.
    empty_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// So many a second, and as many at once.
    pub fn new(per_second: usize) -> Self {
        let per_second = u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        Self { interval: Duration::from_secs(1) / per_second, empty_at: Mutex::new(None) }
    }

    /// How long to wait for a turn, or none when that would be too long.
    pub fn take(&self, now: Instant) -> Option<Duration> {
        let mut empty_at = self.empty_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A full bucket holds a second's worth.
        let start = empty_at.map_or(now, |at| at.max(now));
        let next = start + self.interval;
        let wait = next.saturating_duration_since(now + BURST);
        if wait > WAIT_MAX {
            return None;
        }
        *empty_at = Some(next);
        Some(wait)
    }
}

const NODE_TYPES: [&str; 4] = ["sidecar", "router", "waypoint", "ztunnel"];
/// Tokens of this time may be taken at once.
const BURST: Duration = Duration::from_secs(1);
/// A new stream waits at most this long.
const WAIT_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
        let value = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.into())) };
        let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
        Node { id: id.into(), metadata: Some(prost_types::Struct { fields }), ..Node::default() }
    }

    fn outcome(id: &str, metadata: &[(&str, &str)]) -> Result<(), String> {
        let (cluster, trust_domain) = (None, None);
        let caller =
            Caller { namespace: "ns-a".into(), service_account: "sa1".into(), pod: None, cluster, trust_domain };
        NodeId::parse(&node(id, metadata))?.belongs_to(&caller)
    }

    #[test]
    fn promises_are_told_to_those_who_ask() {
        use crate::world::Promise;
        let headers = |value: &'static str| {
            [(HeaderName::from_static(meltemi::EXTENSIONS_HEADER), HeaderValue::from_static(value))]
                .into_iter()
                .collect()
        };
        let told = |headers: HeaderMap, promises| {
            greeting(&headers, promises).get(meltemi::PROMISES_HEADER).map(|value| value.to_str().unwrap().to_owned())
        };
        let relaxed = Promises { waypoint_required: Promise::Reference, ..Promises::default() };
        assert_eq!(told(HeaderMap::new(), relaxed), None);
        assert_eq!(told(headers("waypoint-required"), relaxed), None);
        assert_eq!(
            told(headers("waypoint-required, promises"), relaxed).unwrap(),
            "waypointRequired=reference,policyBeforeTraffic=strict"
        );
        assert_eq!(
            told(headers("promises"), Promises::default()).unwrap(),
            "waypointRequired=strict,policyBeforeTraffic=strict"
        );
    }

    #[test]
    fn what_is_for_one_account_is_for_nobody_of_another_cluster_nor_for_a_certificate_and_for_nobody_unknown() {
        let gate = Gate::<crate::offline::Nobody> {
            authenticator: None,
            identity_check: true,
            limiter: Arc::new(RateLimiter::new(1)),
            promises: CurrentPromises::default(),
            workloads: None,
        };
        let caller = |cluster: Option<&str>| {
            let cluster = cluster.map(Arc::from);
            Some(Caller { namespace: "a".into(), service_account: "wp".into(), pod: None, cluster, trust_domain: None })
        };
        assert_eq!(gate.principal(&caller(None)).as_deref(), Some("a/wp"));
        assert_eq!(gate.principal(&caller(Some("other"))), None);
        // What the authority issues to that caller is of the mesh's one trust domain.
        let trust_domain = mesh_core::identity::TrustDomain::new("cluster.local").ok();
        assert!(trust_domain.is_some());
        let issued = caller(None).map(|caller| Caller { trust_domain, ..caller });
        assert_eq!(gate.principal(&issued), None);
        assert_eq!(gate.principal(&None), None);
        assert!(NodeId::parse(&node("waypoint~1.1.1.1~wp.ns-a~ns-a.svc", &[])).is_ok());
        assert!(NodeId::parse(&node("router~1.1.1.1~gw.ns-a~ns-a.svc", &[])).is_ok());
    }

    #[test]
    fn xds_row_11_a_node_of_another_namespace_is_refused() {
        let error = outcome("ztunnel~1.1.1.1~zt.ns-b~ns-b.svc.cluster.local", &[]).unwrap_err();
        assert!(error.contains("\"ns-b\"") && error.contains("\"ns-a\""), "{error}");
        assert!(outcome("ztunnel~1.1.1.1~zt.x.ns-a~ns-a.svc", &[]).is_ok());
        assert!(outcome("ztunnel~1.1.1.1~zt.ns-a~ns-a.svc", &[("NAMESPACE", "ns-b")]).is_err());
        assert!(outcome("ztunnel~1.1.1.1~zt.ns-b~x", &[("NAMESPACE", "ns-a"), ("SERVICE_ACCOUNT", "sa1")]).is_ok());
        assert!(outcome("ztunnel~1.1.1.1~zt.ns-a~x", &[("SERVICE_ACCOUNT", "sa2")]).unwrap_err().contains("\"sa2\""));
    }

    #[test]
    fn malformed_node_ids_are_named() {
        for (id, part) in [
            ("", "expected type~ip"),
            ("a~b~c", "expected type~ip"),
            ("envoy~1.1.1.1~a.b~c", "\"envoy\""),
            ("ztunnel~x~a.b~c", "\"x\""),
        ] {
            let error = NodeId::parse(&node(id, &[])).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(NodeId::parse(&node("ztunnel~~a.b~c", &[("INSTANCE_IPS", "10.0.0.1,fd00::1")])).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_callers_wait_then_they_are_refused() {
        let limiter = RateLimiter::new(10);
        let now = Instant::now();
        let waits: Vec<_> = (0..25).map(|_| limiter.take(now)).collect();
        assert!(waits[..10].iter().all(|wait| *wait == Some(Duration::ZERO)));
        assert_eq!(waits[10], Some(Duration::from_millis(100)));
        assert_eq!(waits[19], Some(Duration::from_secs(1)));
        assert!(waits[20..].iter().all(Option::is_none));
        assert_eq!(limiter.take(now + Duration::from_secs(5)), Some(Duration::ZERO));
    }
}
