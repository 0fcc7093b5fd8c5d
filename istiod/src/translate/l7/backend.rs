//! The backends of a resource: every port of a service, or subset of it, that its rules name, each once, with how it is
//! called.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::l7;

use super::onward;
use super::remarks::Remarks;
use super::rule::Rules;
use super::uses::Uses;
use super::{backend_tls, traffic};
use crate::translate::listener::{Owner, tls as listener_tls};
use crate::translate::waypoint::{self, Subject};
use crate::world::{HostKey, Kind, Material, Protocol, Resolution, ServiceEntry, TargetKind, Winner, World};

/// Whose backends they are.
#[derive(Clone, Debug)]
pub struct Client {
    /// The gateway.
    pub gateway: NamespacedName,
    /// It is at the edge: services may ask for their waypoint to be in between.
    pub edge: bool,
}

/// Why a backend cannot be called: nothing that exists is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// There is no service of that hostname.
    #[error("host {hostname:?} is no service that is known")]
    UnknownHost {
        /// As it was asked for.
        hostname: Arc<str>,
    },
    /// The service does not have the port.
    #[error("host {hostname:?} has no port {port}, its ports are {ports}")]
    UnknownPort {
        /// The service.
        hostname: Arc<str>,
        /// As it was asked for.
        port: u16,
        /// Those that there are.
        ports: Ports,
    },
    /// No destination rule defines the subset.
    #[error("no DestinationRule of host {hostname:?} defines subset {subset:?}")]
    UnknownSubset {
        /// The service.
        hostname: Arc<str>,
        /// As it was asked for.
        subset: Arc<str>,
    },
}

impl NoBackend {
    /// What whoever named it can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownHost { .. } => {
                "name a Service or ServiceEntry that exists, in full if it is of another namespace"
            }
            Self::UnknownPort { .. } => "name one of these",
            Self::UnknownSubset { .. } => "define it there, in the namespace of the proxy or of the service",
        }
    }
}

/// Numbers of ports, as a message tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<u16>);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Collects the backends of one resource, and what it read to do so.
#[derive(Debug)]
pub struct Backends<'a> {
    world: &'a World,
    client: Client,
    /// The service whose policies the resource has.
    own: Option<HostKey>,
    known: BTreeMap<(HostKey, u16, Arc<str>), Result<u32, NoBackend>>,
    /// Backends that are called otherwise than their ports say.
    variants: BTreeMap<(u32, Variant), u32>,
    list: Vec<l7::Backend>,
    uses: Uses,
    /// Something was asked for that has not been read yet.
    unread: bool,
    /// TLS was made without something that belongs to it.
    incomplete: bool,
    /// Backends with TLS of which something has not been read yet, and why they refuse beside that.
    waiting: BTreeMap<u32, String>,
    remarks: Remarks,
}

/// What was collected.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The backends.
    pub list: Vec<l7::Backend>,
    /// What was read.
    pub uses: Uses,
    /// What was found wrong with objects.
    pub remarks: Remarks,
}

/// How a backend is called otherwise than its port says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    Http2,
    Tls,
}

impl<'a> Backends<'a> {
    /// None yet.
    pub fn new(world: &'a World, client: Client) -> Self {
        Self {
            world,
            client,
            own: None,
            known: BTreeMap::new(),
            variants: BTreeMap::new(),
            list: Vec::new(),
            uses: Uses::default(),
            unread: false,
            incomplete: false,
            waiting: BTreeMap::new(),
            remarks: Remarks::default(),
        }
    }

    /// The resource is that of a port of this service: it has its policies already.
    #[must_use]
    pub fn of(self, host: &HostKey) -> Self {
        Self { own: Some(host.clone()), ..self }
    }

    /// What has not been read yet, of the TLS of some backends, does not cut them off: they are called as they were in
    /// `old`, the resource that was told last.
    pub fn keep(&mut self, old: impl FnOnce() -> Vec<l7::Backend>) {
        if self.waiting.is_empty() {
            return;
        }
        let old = old();
        for (index, refuse) in &self.waiting {
            let Some(backend) = usize::try_from(*index).ok().and_then(|at| self.list.get_mut(at)) else { continue };
            let same = |one: &&l7::Backend| {
                (&one.namespace, &one.hostname, one.port, &one.subset, one.http)
                    == (&backend.namespace, &backend.hostname, backend.port, &backend.subset, backend.http)
            };
            let before = old.iter().find(same).filter(|one| one.refuse.is_empty());
            // What was sent without TLS is not sent on that way.
            let Some(tls) = before.and_then(|one| one.policy.as_ref()?.tls.clone()) else { continue };
            backend.refuse.clone_from(refuse);
            backend.policy.get_or_insert_default().tls = Some(tls);
        }
    }

    /// What was collected.
    pub fn finish(self) -> Collected {
        Collected { list: self.list, uses: self.uses, remarks: self.remarks }
    }

    /// Something is wrong with an object that a backend, or its share of the traffic, was made from.
    pub fn remark(&mut self, kind: Kind, key: &NamespacedName, text: String) {
        self.remarks.add(kind, key, text);
    }

    /// The service that is meant by a hostname that something in `namespace` names.
    pub fn host(&mut self, hostname: &str, namespace: &str) -> Result<HostKey, NoBackend> {
        self.note(hostname);
        let found = self.world.resolve_host(hostname, namespace).map(|(key, _)| key);
        found.ok_or_else(|| NoBackend::UnknownHost { hostname: hostname.into() })
    }

    /// Index of a port of a service, or of a subset of it (empty: all endpoints), in the list.
    pub fn index(&mut self, host: &HostKey, port: u16, subset: &str) -> Result<u32, NoBackend> {
        let key = (host.clone(), port, Arc::from(subset));
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        self.note(&host.hostname);
        let found = self.make(host, port, subset);
        self.known.insert(key, found.clone());
        found
    }

    /// Index of the same backend, called over HTTP/2 whatever its port says.
    pub fn over_http2(&mut self, index: u32) -> u32 {
        self.like(index, Variant::Http2, |backend| backend.http = l7::backend::Http::Http2.into())
    }

    /// Index of the same backend, called over TLS where nothing says how; the certificate must be one of the system's
    /// authorities for the host of the request.
    pub fn over_tls(&mut self, index: u32) -> u32 {
        self.like(index, Variant::Tls, |backend| {
            let policy = backend.policy.get_or_insert_default();
            let simple = l7::ClientTls { mode: l7::client_tls::Mode::Simple.into(), ..l7::ClientTls::default() };
            policy.tls.get_or_insert(simple);
        })
    }

    /// Index of a variant of a backend.
    fn like(&mut self, index: u32, variant: Variant, change: impl FnOnce(&mut l7::Backend)) -> u32 {
        if let Some(known) = self.variants.get(&(index, variant)) {
            return *known;
        }
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(backend) = self.list.get(at) else { return index };
        let mut wanted = backend.clone();
        change(&mut wanted);
        // Its port says so itself, maybe.
        let place = if wanted == *backend { index } else { self.push(wanted, self.waiting.get(&index).cloned()) };
        self.variants.insert((index, variant), place);
        place
    }

    /// Appends a backend; `waiting` is why it refuses beside what has not been read yet.
    fn push(&mut self, backend: l7::Backend, waiting: Option<String>) -> u32 {
        let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(backend);
        self.waiting.extend(waiting.map(|refuse| (index, refuse)));
        index
    }

    /// Ports of a service.
    pub fn ports(&mut self, host: &HostKey) -> Vec<u16> {
        self.note(&host.hostname);
        let ports = self.world.winner(host).map(ports_of).unwrap_or_default();
        ports.into_iter().map(|port| port.number).collect()
    }

    /// The result depends on what a hostname stands for, and on how it is to be called.
    pub fn note(&mut self, hostname: &str) {
        self.uses.host(hostname);
    }

    /// A ConfigMap or Secret that the result depends on; `by` is the namespace of whoever names it.
    fn material(&mut self, kind: Kind, key: &NamespacedName, by: &Arc<str>) -> Option<&'a Arc<Material>> {
        self.uses.material(kind, key, by);
        self.unread |= self.world.is_unread(kind, key);
        self.world.material(kind, key)
    }

    fn make(&mut self, host: &HostKey, port: u16, subset: &str) -> Result<u32, NoBackend> {
        let world = self.world;
        let hostname = host.hostname.clone();
        let winner = world.winner(host).ok_or_else(|| NoBackend::UnknownHost { hostname: hostname.clone() })?;
        let ports = ports_of(winner);
        let Some(found) = ports.iter().find(|one| one.number == port) else {
            let ports = Ports(ports.iter().map(|one| one.number).collect());
            return Err(NoBackend::UnknownPort { hostname, port, ports });
        };
        let rules = Rules::find(world, host, &self.client);
        let unknown = || NoBackend::UnknownSubset { hostname: hostname.clone(), subset: subset.into() };
        let labels = rules.subset(subset).ok_or_else(unknown)?;
        rules.keys().for_each(|rule| self.remarks.note(Kind::DestinationRule, rule));
        let written = rules.policy(subset, port, world.settings());
        (self.unread, self.incomplete) = (false, false);
        let (tls, refused) = match self.tls(winner, &written, &found.name, rules.namespace()) {
            Ok(tls) => (tls, None),
            Err(reason) => (None, Some(reason)),
        };
        // Whatever is at the other end expects to be asked by CONNECT.
        let tunnel = written.tunnel.is_some() && !found.protocol.is_http();
        let tunnel = tunnel.then(|| "DestinationRule: tunnel is not served".to_owned());
        if let Some(reason) = refused.as_ref().filter(|_| !self.unread) {
            self.remark_rules(&rules, winner, &found.name, reason, &hostname);
        }
        let waiting = self.unread && (refused.is_some() || self.incomplete);
        let waiting = waiting.then(|| tunnel.clone().unwrap_or_default());
        let refusals: Vec<_> = refused.into_iter().chain(tunnel).collect();
        let mut policy = traffic::policy(&written, world.settings());
        policy.tls = tls;
        if let Some(budget) = self.budget(winner) {
            policy.retry_budget = Some(budget);
        }
        let via_waypoint = self.client.edge && waits_for_ingress(world, winner);
        let own = self.own.as_ref() == Some(host);
        let guard = || onward::guard_of(world, &self.client, host, winner, port, via_waypoint);
        let backend = l7::Backend {
            namespace: host.namespace.to_string(),
            hostname: host.hostname.to_string(),
            port: port.into(),
            subset: subset.to_owned(),
            subset_labels: labels.into_iter().collect(),
            http: traffic::http(found.protocol, &written, world.settings()).into(),
            policy: Some(policy),
            via_waypoint,
            dynamic_wildcard: dynamic(winner, &host.hostname),
            external: matches!(winner, Winner::Entry(entry) if !entry.internal),
            refuse: refusals.join("; "),
            guard: if own { None } else { guard() },
        };
        Ok(self.push(backend, waiting))
    }

    /// The destination rules whose TLS settings cut a backend off are told so.
    fn remark_rules(&mut self, rules: &Rules<'_>, winner: Winner<'_>, port: &str, reason: &str, hostname: &str) {
        let (kind, key) = target(winner);
        if backend_tls::policy_for(self.world, kind, key, port).is_some() {
            return;
        }
        // What can be seen without a gateway is told anyway.
        let reason = reason.strip_prefix(OF_RULE).unwrap_or(reason);
        for rule in rules.with_tls().filter(|rule| !super::report::tells(rule, reason)) {
            let text =
                format!("{reason}: gateways of namespace {} send nothing to {hostname}", self.client.gateway.namespace);
            self.remarks.add(Kind::DestinationRule, &rule.key, text);
        }
    }

    /// A policy that is attached to the service wins over a destination rule.
    fn tls(
        &mut self,
        winner: Winner<'_>,
        written: &mesh_api::networking::TrafficPolicy,
        port_name: &str,
        by: Option<&Arc<str>>,
    ) -> Result<Option<l7::ClientTls>, String> {
        let (kind, key) = target(winner);
        if let Some(policy) = backend_tls::policy_for(self.world, kind, key, port_name) {
            let read = |kind, key: &NamespacedName| self.material(kind, key, &policy.key.namespace);
            let judged = backend_tls::client_tls(policy, read);
            let judged = judged.map_err(|problem| format!("BackendTLSPolicy {}: {problem}", policy.key));
            return judged.map(|tls| Some(self.presenting(tls)));
        }
        let Some(tls) = &written.tls else { return Ok(None) };
        let namespace = self.client.gateway.namespace.clone();
        let external = matches!(winner, Winner::Entry(entry) if !entry.internal);
        let names = match winner {
            Winner::Entry(entry) => &*entry.subject_alt_names,
            Winner::Service(_) => &[],
        };
        let by = by.unwrap_or(&self.world.settings().root_namespace);
        super::tls::client_tls(tls, &namespace, external, names, |kind, key| self.material(kind, key, by))
            .map_err(|reason| format!("{OF_RULE}{reason}"))
    }

    /// The same with the certificate that the gateway presents to backends. One that cannot be used is told by the status
    /// of the gateway; backends that want one refuse the connection.
    fn presenting(&mut self, tls: l7::ClientTls) -> l7::ClientTls {
        let Some(gateway) = self.world.gateway(&self.client.gateway) else { return tls };
        let reference = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref()?.client_certificate_ref.as_ref());
        let Some(reference) = reference.filter(|_| self.client.edge) else { return tls };
        let owner = Owner::Gateway(gateway);
        let secret = listener_tls::secret_key(owner, reference);
        if listener_tls::may_refer(self.world, owner, Kind::Secret.name(), &secret) {
            self.material(Kind::Secret, &secret, &gateway.key.namespace);
        }
        match listener_tls::certificate(self.world, owner, reference) {
            Ok(pair) => l7::ClientTls { mode: l7::client_tls::Mode::Mutual.into(), client: Some(pair), ..tls },
            Err(_) => {
                self.incomplete = true;
                tls
            }
        }
    }

    /// Retry budget of the oldest policy that is attached to the service.
    fn budget(&self, winner: Winner<'_>) -> Option<l7::RetryBudget> {
        let (kind, key) = target(winner);
        let named = self.world.backend_policies(kind, key).filter(|(kind, _)| *kind == Kind::TrafficPolicy);
        let policies = named.filter_map(|(_, key)| self.world.traffic_policy(key));
        let policies =
            policies.filter(|one| self.world.visible(&one.key.namespace) && !backend_tls::is_ignored(&one.annotations));
        let oldest = policies.min_by(|a, b| a.age().cmp(&b.age()))?;
        oldest.spec.retry_constraint.as_ref().map(traffic::constraint)
    }
}

/// A port of whatever gives a service.
#[derive(Clone, Debug)]
pub(super) struct ServedPort {
    pub(super) number: u16,
    pub(super) name: Arc<str>,
    pub(super) protocol: Protocol,
}

/// Ports of a service.
pub(super) fn ports_of(winner: Winner<'_>) -> Vec<ServedPort> {
    match winner {
        Winner::Service(service) => {
            let ports = service.ports.iter();
            ports.map(|one| ServedPort { number: one.port, name: one.name.clone(), protocol: one.protocol }).collect()
        }
        Winner::Entry(entry) => {
            let ports = entry.ports.iter();
            ports.map(|one| ServedPort { number: one.number, name: one.name.clone(), protocol: one.protocol }).collect()
        }
    }
}

/// What policies name.
pub(super) fn target(winner: Winner<'_>) -> (TargetKind, &NamespacedName) {
    match winner {
        Winner::Service(service) => (TargetKind::Service, &service.key),
        Winner::Entry(entry) => (TargetKind::ServiceEntry, &entry.key),
    }
}

/// Whether ingress traffic goes through the service's waypoint.
pub(super) fn waits_for_ingress(world: &World, winner: Winner<'_>) -> bool {
    let subject = match winner {
        Winner::Service(service) => Subject::of_service(service),
        Winner::Entry(entry) => Subject::of_entry(world, entry),
    };
    let bound = waypoint::for_service(world, subject);
    bound.ingress && bound.waypoint.is_some()
}

/// The wildcard whose hosts are resolved from the request.
fn dynamic(winner: Winner<'_>, hostname: &str) -> String {
    match winner {
        Winner::Entry(entry) if hostname.starts_with('*') && is_dynamic(entry) => hostname.to_owned(),
        _ => String::new(),
    }
}

fn is_dynamic(entry: &ServiceEntry) -> bool {
    entry.resolution == Resolution::DynamicDns
}

/// Before what a destination rule says that cannot be honoured.
const OF_RULE: &str = "DestinationRule: ";
