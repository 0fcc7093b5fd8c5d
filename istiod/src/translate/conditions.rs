//! What the statuses of objects should say.

mod closed;
mod gateway;
mod parts;
pub mod words;

use mesh_api::status::{
    REASON_ACCEPTED, REASON_NO_WAYPOINT_FOR_WILDCARD, REASON_UNSUPPORTED_VALUE, SERVED, VISIBILITY_APPLIED,
    WAYPOINT_ACCEPTED, WAYPOINT_BOUND, WAYPOINT_MISSING, ZTUNNEL_ACCEPTED,
};
use mesh_core::names::NamespacedName;

use super::l7::remarks::Board;
use super::required::{decides, guarded};
use super::waypoint::{self, Subject};
use super::{attach, backend_policy, extension, l7, peer, policy, route};
pub use parts::{Attached, GatewayParts, ListenerPart, Parts};

use crate::world::{
    AuthorizationPolicy, HostSource, Kind, PeerAuthentication, RequestAuthentication, Service, ServiceEntry,
    Visibility, WorkloadEntry, World,
};

/// One condition of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is judged.
    pub type_: &'static str,
    /// True or False.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// For humans.
    pub message: String,
}

impl Condition {
    /// Something of the object is not served as written.
    pub(super) fn unsupported(type_: &'static str, holds: bool, message: String) -> Self {
        Self { type_, holds, reason: REASON_UNSUPPORTED_VALUE, message }
    }

    /// Whether it says that something was asked for and is not done.
    pub fn refuses(&self) -> bool {
        match self.type_ {
            WAYPOINT_MISSING | words::CONFLICTED | words::INSECURE_FRONTEND => self.holds,
            _ => !self.holds,
        }
    }
}

/// Conditions of one object that belong together: one field manager writes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusTarget {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub key: NamespacedName,
    /// The field manager.
    pub manager: &'static str,
}

/// What one field manager says about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectStatus {
    /// Generation that was judged; 0 where the API gives none.
    pub generation: i64,
    /// The conditions of the object as a whole; at least one where nothing else is said.
    pub conditions: Vec<Condition>,
    /// What is said of its parts.
    pub parts: Parts,
}

impl ObjectStatus {
    /// Of conditions alone.
    pub fn new(generation: i64, conditions: Vec<Condition>) -> Self {
        Self { generation, conditions, parts: Parts::None }
    }

    /// The same, to change them.
    pub(super) fn all_conditions_mut(&mut self) -> Vec<&mut Condition> {
        self.conditions.iter_mut().chain(self.parts.conditions_mut()).collect()
    }

    /// Every condition, of whatever part.
    pub fn all_conditions(&self) -> Vec<&Condition> {
        self.conditions.iter().chain(self.parts.conditions()).collect()
    }
}

/// Part of an object that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Generation that could not be read.
    pub generation: i64,
    /// Field and value.
    pub reason: String,
    /// The rest of it is in force.
    pub partial: bool,
}

/// Conditions of an object, by field manager.
pub(super) type Judged = Vec<(&'static str, Option<ObjectStatus>)>;

/// Field manager of conditions on Services and ServiceEntries.
pub const SERVICE_MANAGER: &str = "istio-ambient-service";
/// Field manager of conditions on WorkloadEntries.
pub const WORKLOAD_ENTRY_MANAGER: &str = "istio-ambient-workloadentry";
/// Field manager of what node proxies enforce.
pub const ZTUNNEL_MANAGER: &str = "istio-ambient-ztunnel-policy";
/// Field manager of what waypoints enforce.
pub const WAYPOINT_MANAGER: &str = "istio-ambient-waypoint-policy";
/// Field manager of the status of routes.
pub const ROUTE_MANAGER: &str = "istio-gateway-routes";
/// Field manager of the status of Gateways, ListenerSets and GatewayClasses.
pub const GATEWAY_MANAGER: &str = "istio-gateway-controller";
/// Field manager of what is said of VirtualServices and DestinationRules.
pub const CONFIG_MANAGER: &str = "istio-ambient-config";
/// Field manager of the status of policies towards backends.
pub const BACKEND_POLICY_MANAGER: &str = "istio-gateway-backend-policies";

/// Kinds that have a status of ours, with the condition types that each field manager writes.
pub const MANAGED: &[(Kind, &str, &[&str])] = &[
    (Kind::Service, SERVICE_MANAGER, &[WAYPOINT_BOUND]),
    (Kind::ServiceEntry, SERVICE_MANAGER, &[WAYPOINT_BOUND, WAYPOINT_MISSING, VISIBILITY_APPLIED, SERVED]),
    (Kind::WorkloadEntry, WORKLOAD_ENTRY_MANAGER, &[WAYPOINT_BOUND, SERVED]),
    (Kind::Authorization, ZTUNNEL_MANAGER, &[ZTUNNEL_ACCEPTED]),
    (Kind::Authorization, WAYPOINT_MANAGER, &[WAYPOINT_ACCEPTED]),
    (Kind::Request, WAYPOINT_MANAGER, &[WAYPOINT_ACCEPTED]),
    (Kind::Peer, ZTUNNEL_MANAGER, &[ZTUNNEL_ACCEPTED]),
    (Kind::Gateway, GATEWAY_MANAGER, GATEWAY_TYPES),
    (Kind::ListenerSet, GATEWAY_MANAGER, &[words::ACCEPTED, words::PROGRAMMED]),
    (Kind::GatewayClass, GATEWAY_MANAGER, &[words::ACCEPTED]),
    (Kind::HttpRoute, ROUTE_MANAGER, ROUTE_TYPES),
    (Kind::GrpcRoute, ROUTE_MANAGER, ROUTE_TYPES),
    (Kind::TlsRoute, ROUTE_MANAGER, ROUTE_TYPES),
    (Kind::TcpRoute, ROUTE_MANAGER, ROUTE_TYPES),
    (Kind::UdpRoute, ROUTE_MANAGER, ROUTE_TYPES),
    (Kind::BackendTlsPolicy, BACKEND_POLICY_MANAGER, &[words::ACCEPTED, words::RESOLVED_REFS]),
    (Kind::TrafficPolicy, BACKEND_POLICY_MANAGER, &[words::ACCEPTED]),
    (Kind::VirtualService, CONFIG_MANAGER, &[SERVED]),
    (Kind::DestinationRule, CONFIG_MANAGER, &[SERVED]),
    (Kind::WasmPlugin, WAYPOINT_MANAGER, &[WAYPOINT_ACCEPTED]),
    (Kind::TrafficExtension, WAYPOINT_MANAGER, &[WAYPOINT_ACCEPTED]),
    (Kind::EnvoyFilter, WAYPOINT_MANAGER, &[WAYPOINT_ACCEPTED]),
];

/// What is said of a Gateway.
const GATEWAY_TYPES: &[&str] = &[words::ACCEPTED, words::PROGRAMMED, words::RESOLVED_REFS, words::INSECURE_FRONTEND];

/// What is said of a route at a parent.
const ROUTE_TYPES: &[&str] = &[words::ACCEPTED, words::RESOLVED_REFS, words::RESOLVED_WAYPOINTS];

/// What the status of an object should say. `remarks` are what the making of resources found wrong; `unreadable` is what
/// cannot be read of it.
///
/// # Source
/// spec of the workload model, sections 8.7, 9.4 and 9.6.
pub fn of(
    world: &World,
    remarks: &Board,
    (kind, key): (Kind, &NamespacedName),
    unreadable: Option<&Unreadable>,
) -> Judged {
    let seen = world.visible(&key.namespace);
    let unreadable = unreadable.filter(|_| seen);
    match kind {
        Kind::Service => {
            let service = world.service(key).filter(|_| seen);
            vec![(SERVICE_MANAGER, service.and_then(|service| of_service(world, service)))]
        }
        Kind::ServiceEntry => {
            let entry = world.entry(key).filter(|_| seen).map(|entry| (&**entry, of_entry(world, entry)));
            vec![(SERVICE_MANAGER, served(entry.map(|(entry, conditions)| (entry.generation, conditions)), unreadable))]
        }
        Kind::WorkloadEntry => {
            let entry = world.workload_entry(key).filter(|_| seen);
            let judged = entry.map(|entry| (entry.generation, of_workload_entry(world, entry)));
            vec![(WORKLOAD_ENTRY_MANAGER, served(judged, unreadable))]
        }
        Kind::Authorization => {
            let policy = world.authorization(key).filter(|_| seen);
            let stand_in = world.is_stand_in(kind, key);
            of_authorization((world, remarks), policy.map(|policy| &**policy), stand_in, unreadable)
        }
        Kind::Request => {
            let policy = world.request(key).filter(|_| seen);
            vec![(WAYPOINT_MANAGER, policy.map(|policy| of_request(world, remarks, policy)))]
        }
        Kind::Peer => {
            let policy = world.peer(key).filter(|_| seen);
            let stand_in = world.is_stand_in(kind, key);
            vec![(ZTUNNEL_MANAGER, of_peer(world, policy.map(|policy| &**policy), stand_in, unreadable))]
        }
        Kind::Gateway => {
            let gateway = world.gateway(key).filter(|_| seen);
            let status = gateway.and_then(|gateway| gateway::gateway(world, gateway));
            vec![(GATEWAY_MANAGER, status.map(|status| closed::gateway(remarks, key, status)))]
        }
        Kind::ListenerSet => {
            let set = world.listener_set(key).filter(|_| seen);
            vec![(GATEWAY_MANAGER, set.and_then(|set| gateway::listener_set(world, set)))]
        }
        Kind::GatewayClass => {
            let class = world.gateway_class(&key.name);
            vec![(GATEWAY_MANAGER, class.and_then(|class| gateway::class(world, class)))]
        }
        Kind::Pod | Kind::Slice | Kind::Namespace | Kind::Node => Vec::new(),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            vec![(ROUTE_MANAGER, route::status_of(world, kind, key, unreadable))]
        }
        Kind::BackendTlsPolicy | Kind::TrafficPolicy => {
            vec![(BACKEND_POLICY_MANAGER, backend_policy::status_of(world, kind, key, unreadable))]
        }
        Kind::ReferenceGrant | Kind::WorkloadGroup => Vec::new(),
        Kind::VirtualService => {
            let one = world.virtual_service(key).filter(|_| seen);
            let found = remarks.texts(kind, key);
            let judged = one.map(|one| (one.generation, vec![l7::report::virtual_service(world, one, found)]));
            vec![(CONFIG_MANAGER, served(judged, unreadable))]
        }
        Kind::DestinationRule => {
            let rule = world.destination_rule(key).filter(|_| seen);
            let judged = rule.map(|rule| (rule.generation, vec![l7::report::destination_rule(world, rule, remarks)]));
            vec![(CONFIG_MANAGER, served(judged, unreadable))]
        }
        Kind::WasmPlugin | Kind::TrafficExtension | Kind::EnvoyFilter => {
            let one = world.extension(kind, key).filter(|_| seen);
            vec![(WAYPOINT_MANAGER, one.map(|one| extension::status(world, one, unreadable)))]
        }
        Kind::ConfigMap | Kind::Secret => Vec::new(),
    }
}

fn of_service(world: &World, service: &Service) -> Option<ObjectStatus> {
    let condition = waypoint::for_service(world, Subject::of_service(service)).condition?;
    let condition = with_consequence(world, condition, &HostSource::Service(service.key.clone()));
    // The API gives Services no generation.
    Some(ObjectStatus::new(0, vec![condition]))
}

/// Says what comes of a waypoint that is asked for and not used.
fn with_consequence(world: &World, condition: Condition, object: &HostSource) -> Condition {
    if condition.holds || !guarded(world, object) {
        return condition;
    }
    let message =
        format!("{}; a policy needs it, so node proxies refuse connections to the service", condition.message);
    Condition { message, ..condition }
}

fn of_entry(world: &World, entry: &ServiceEntry) -> Vec<Condition> {
    let visibility = world.entry_visibility(&entry.key.namespace);
    let bound = waypoint::for_service(world, Subject::of_entry(world, entry));
    let source = HostSource::Entry(entry.key.clone());
    let bound_condition = bound.condition.map(|condition| with_consequence(world, condition, &source));
    let mut conditions: Vec<_> = bound_condition.into_iter().collect();
    let wildcard = entry.hosts.iter().find(|host| host.starts_with('*'));
    if let Some(host) = wildcard.filter(|_| bound.waypoint.is_none()) {
        conditions.push(Condition {
            type_: WAYPOINT_MISSING,
            holds: true,
            reason: REASON_NO_WAYPOINT_FOR_WILDCARD,
            message: format!("host {host} needs a waypoint to be served; label the entry with istio.io/use-waypoint"),
        });
    }
    if world.settings().entry_visibility.is_some() {
        let (reason, who) = match visibility {
            Visibility::Public => ("Public", "every namespace sees it"),
            Visibility::Namespace => ("Namespace", "only its own namespace sees it"),
            Visibility::None => ("None", "it is not published"),
        };
        let message = format!("serviceEntryVisibility of the mesh configuration: {who}");
        conditions.push(Condition { type_: VISIBILITY_APPLIED, holds: true, reason, message });
    }
    if entry.is_kept_back() && world.settings().promises.unserved_fields.is_strict() {
        let message = "exportTo is not honoured in ambient mode, but for routes of gateways: every namespace sees the \
                       entry, unless serviceEntryVisibility of the mesh configuration says otherwise";
        conditions.push(Condition::unsupported(SERVED, true, message.to_owned()));
    }
    let losses = l7::losses(world, entry);
    if !losses.is_empty() {
        conditions.retain(|condition| condition.type_ != SERVED);
        let message = format!("{}: calls of it are not for this entry", losses.join(", "));
        conditions.push(Condition::unsupported(SERVED, false, message));
    }
    conditions
}

fn of_workload_entry(world: &World, entry: &WorkloadEntry) -> Vec<Condition> {
    waypoint::for_workload(world, Subject::of_workload_entry(entry)).condition.into_iter().collect()
}

/// Adds what cannot be read.
fn served(judged: Option<(i64, Vec<Condition>)>, unreadable: Option<&Unreadable>) -> Option<ObjectStatus> {
    let known = judged.is_some();
    let (generation, mut conditions) = judged.unwrap_or_default();
    let mut latest = generation;
    if let Some(unreadable) = unreadable {
        latest = latest.max(unreadable.generation);
        let effect = match (unreadable.partial, known) {
            (true, _) => "part of it cannot be used",
            (false, true) => "it cannot be read; its last readable version stays in force",
            (false, false) => "it cannot be read and has no effect",
        };
        conditions.retain(|condition| condition.type_ != SERVED);
        conditions.push(Condition::unsupported(SERVED, false, format!("{effect}: {}", unreadable.reason)));
    }
    (!conditions.is_empty()).then_some(ObjectStatus::new(latest, conditions))
}

fn of_authorization(
    (world, remarks): (&World, &Board),
    policy: Option<&AuthorizationPolicy>,
    stand_in: bool,
    unreadable: Option<&Unreadable>,
) -> Judged {
    let status = |condition, generation| Some(ObjectStatus::new(generation, vec![condition]));
    if let Some(unreadable) = unreadable {
        let generation = unreadable.generation;
        if policy.is_some_and(|policy| policy.targets().next().is_some()) {
            let condition = policy::unreadable_targets(&unreadable.reason, stand_in);
            return vec![(ZTUNNEL_MANAGER, None), (WAYPOINT_MANAGER, status(condition, generation))];
        }
        let action = policy.map(|policy| policy.spec.action.unwrap_or_default());
        let condition = policy::unreadable(&unreadable.reason, action, stand_in);
        return vec![(ZTUNNEL_MANAGER, status(condition, generation)), (WAYPOINT_MANAGER, None)];
    }
    let Some(policy) = policy else { return vec![(ZTUNNEL_MANAGER, None), (WAYPOINT_MANAGER, None)] };
    let ztunnel = policy::authorization(policy, world.settings()).condition;
    let targets: Vec<_> = policy.spec.target_ref.iter().chain(&policy.spec.target_refs).cloned().collect();
    let waypoint = match l7::unenforceable(policy) {
        // It may be for gateways at the edge.
        _ if targets.is_empty() => closed::by(remarks, Kind::Authorization, &policy.key),
        Some(reason) => {
            Some(Condition::unsupported(WAYPOINT_ACCEPTED, false, format!("not enforced as written: {reason}")))
        }
        None => Some(attach::waypoint_accepted(world, &policy.key.namespace, &targets, decides(policy))),
    };
    let generation = policy.generation;
    vec![
        (ZTUNNEL_MANAGER, ztunnel.and_then(|one| status(one, generation))),
        (WAYPOINT_MANAGER, waypoint.and_then(|one| status(one, generation))),
    ]
}

fn of_request(world: &World, remarks: &Board, policy: &RequestAuthentication) -> ObjectStatus {
    if policy.targets.is_empty() {
        let idle = || {
            let message = "no effect: no gateway at the edge is selected, and node proxies know of no tokens; give it \
                           targetRefs";
            Condition::unsupported(WAYPOINT_ACCEPTED, false, message.to_owned())
        };
        let condition = closed::by(remarks, Kind::Request, &policy.key).unwrap_or_else(idle);
        return ObjectStatus::new(policy.generation, vec![condition]);
    }
    let mut condition = attach::waypoint_accepted(world, &policy.key.namespace, &policy.targets, true);
    if condition.holds {
        let message = format!("{}; tokens are not verified yet, so nothing is let through there", condition.message);
        condition = Condition::unsupported(WAYPOINT_ACCEPTED, false, message);
    }
    ObjectStatus::new(policy.generation, vec![condition])
}

fn of_peer(
    world: &World,
    policy: Option<&PeerAuthentication>,
    stand_in: bool,
    unreadable: Option<&Unreadable>,
) -> Option<ObjectStatus> {
    let (generation, condition) = match (unreadable, policy) {
        (None, None) => return None,
        (None, Some(policy)) => (policy.generation, peer::condition(policy, world)),
        (Some(unreadable), policy) => {
            let effect = match (policy, unreadable.partial, stand_in) {
                (None, ..) => "it cannot be read and has no effect",
                (_, true, _) => "part of it cannot be used (more restrictive than requested)",
                (_, false, true) => "it cannot be read; what may have been STRICT is STRICT until it can be",
                (_, false, false) => "it cannot be read; its last readable version stays in force",
            };
            let message = format!("{effect}: {}", unreadable.reason);
            (unreadable.generation, Condition::unsupported(ZTUNNEL_ACCEPTED, unreadable.partial, message))
        }
    };
    Some(ObjectStatus::new(generation, vec![condition]))
}

/// A policy that is enforced as written.
pub(super) fn accepted(message: impl Into<String>) -> Condition {
    Condition { type_: ZTUNNEL_ACCEPTED, holds: true, reason: REASON_ACCEPTED, message: message.into() }
}
