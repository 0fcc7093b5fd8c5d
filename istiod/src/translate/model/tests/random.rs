//! Random objects of a small cluster: few names, so that objects meet.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mesh_api::labels as names;
use mesh_api::security::{Action, AuthorizationPolicySpec, Mode, TargetRef};
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::world::binding::{Canary, GatewayRef, WaypointChoice};
use crate::world::gateway::{InboundBinding, TrafficType};
use crate::world::settings::{VisibilityPolicy, VisibilityRule, VisibilityRules};
use crate::world::*;

/// A source of choices; equal seeds make equal choices.
pub(super) struct Random(StdRng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub(super) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn coin(&mut self) -> bool {
        self.once_in(2)
    }

    pub(super) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.coin().then(|| make(self))
    }

    pub(super) fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    pub(super) fn namespace(&mut self) -> Arc<str> {
        self.pick(&["a", "b", "istio-system"]).into()
    }

    fn name(&mut self) -> Arc<str> {
        self.pick(&["x", "y", "z"]).into()
    }

    pub(super) fn key(&mut self) -> NamespacedName {
        NamespacedName::new(self.namespace(), self.name())
    }

    /// Hostnames of ServiceEntries; some are those of Services.
    fn host(&mut self) -> Arc<str> {
        self.pick(&["x.example", "y.example", "*.example", "x.a.svc.cluster.local", "y.b.svc.cluster.local"]).into()
    }

    fn labels(&mut self) -> Labels {
        let pairs = self.some(2, |random| (random.pick(&["app", "tier", "mesh"]), random.pick(&["web", "db"])));
        pairs.into_iter().collect()
    }

    fn selector(&mut self) -> Option<Labels> {
        Some(self.labels()).filter(|labels| !labels.is_empty())
    }

    fn distribution(&mut self) -> Option<Distribution> {
        self.maybe(|random| random.pick(&[Distribution::SameZone, Distribution::SameNode, Distribution::Any]))
    }

    fn gateway_ref(&mut self) -> GatewayRef {
        GatewayRef { namespace: self.maybe(Self::namespace), name: self.name() }
    }

    fn binding(&mut self) -> Option<Box<Binding>> {
        if !self.once_in(3) {
            return None;
        }
        let waypoint = match self.below(4) {
            0 => None,
            1 => Some(WaypointChoice::OptOut),
            _ => Some(WaypointChoice::Named(self.gateway_ref())),
        };
        let canary = self.once_in(3).then(|| Canary {
            gateway: self.gateway_ref(),
            weight: if self.once_in(5) { Err("much".into()) } else { Ok(30) },
        });
        let ingress = self.maybe(Self::coin);
        Some(Box::new(Binding { waypoint, canary, ingress, gateway: self.once_in(9) }))
    }

    pub(super) fn ip(&mut self, third: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, third, 1 + u8::try_from(self.below(4)).unwrap()).into()
    }

    fn locality(&mut self) -> Locality {
        Locality { zone: self.pick(&["", "z1", "z2"]).into(), ..Locality::default() }
    }

    fn network(&mut self) -> Arc<str> {
        self.pick(&["", "", "net1", "net2"]).into()
    }

    fn named_ports(&mut self) -> Box<[(Arc<str>, u16)]> {
        let number = 8000 + u16::try_from(self.below(3)).unwrap();
        self.maybe(|random| (random.pick(&["named", "p"]).into(), number)).into_iter().collect()
    }

    fn pod(&mut self) -> Pod {
        let mut labels: Vec<_> = self.labels().iter().cloned().collect();
        if self.once_in(6) {
            labels.push((names::GATEWAY_NAME.into(), self.name()));
        }
        Pod {
            key: self.key(),
            uid: self.pick(&["u1", "u2"]).into(),
            service_account: self.pick(&["", "sa", "wp"]).into(),
            node: self.pick(&["", "n1", "n2"]).into(),
            labels: labels.into_iter().collect(),
            workload_name: "w".into(),
            ips: self.maybe(|random| random.ip(0)).into_iter().collect(),
            ready: self.coin(),
            host_network: self.once_in(9),
            redirected: self.coin(),
            ports: self.named_ports(),
            binding: self.binding(),
        }
    }

    fn service(&mut self) -> Service {
        let target = match self.coin() {
            true => TargetPort::Name("named".into()),
            false => TargetPort::Number(8080),
        };
        Service {
            key: self.key(),
            cluster_ips: self.maybe(|random| random.ip(1)).into_iter().collect(),
            families: Families::default(),
            ports: [ServicePort { name: "p".into(), port: 80, target, protocol: Protocol::default() }].into(),
            selector: self.selector(),
            node_local: self.once_in(5),
            distribution: self.distribution(),
            distribution_annotation: self.distribution(),
            publish_not_ready: self.once_in(5),
            load_balancer: false,
            external: Box::default(),
            labels: Default::default(),
            binding: self.binding(),
        }
    }

    fn slice(&mut self) -> Slice {
        let key = self.key();
        let mut pods = self.some(2, |random| {
            (NamespacedName::new(key.namespace.clone(), random.name()), Arc::from(random.pick(&["u1", "u2"])))
        });
        pods.sort();
        pods.dedup();
        let mut addresses = self.some(2, |random| (random.ip(2), random.coin()));
        addresses.sort();
        addresses.dedup_by_key(|(ip, _)| *ip);
        Slice {
            service: NamespacedName::new(key.namespace.clone(), self.name()),
            ports: [("p".into(), 8000 + u16::try_from(self.below(2)).unwrap())].into(),
            pods: pods.into(),
            addresses: addresses.into(),
            key,
        }
    }

    fn cluster_namespace(&mut self) -> Namespace {
        let network = self.once_in(3).then(|| (Arc::from(names::NETWORK), Arc::from(self.pick(&["net1", "net2"]))));
        let labels = self.labels();
        Namespace {
            name: self.namespace(),
            labels: labels.iter().cloned().chain(network).collect(),
            distribution: self.distribution(),
            binding: self.binding(),
        }
    }

    fn address(&mut self) -> WorkloadAddress {
        match self.below(4) {
            0 => WorkloadAddress::Host("vm.example".into()),
            1 => WorkloadAddress::None,
            _ => WorkloadAddress::Ip(self.ip(3)),
        }
    }

    fn workload_entry(&mut self) -> WorkloadEntry {
        WorkloadEntry {
            key: self.key(),
            uid: "u".into(),
            created_s: 0,
            generation: 1,
            labels: self.labels(),
            address: self.address(),
            network: self.network(),
            locality: self.locality(),
            weight: self.pick(&[0, 0, 7]),
            ports: self.named_ports(),
            service_account: self.pick(&["", "sa"]).into(),
            workload_name: "vm".into(),
            redirected: self.coin(),
            unhealthy: self.once_in(3),
            registered: None,
            binding: self.binding(),
        }
    }

    fn endpoint(&mut self) -> EntryEndpoint {
        EntryEndpoint {
            address: self.address(),
            ports: self.named_ports(),
            network: self.network(),
            locality: self.locality(),
            weight: self.pick(&[0, 3]),
            service_account: "sa".into(),
            binding: self.binding(),
        }
    }

    fn service_entry(&mut self) -> ServiceEntry {
        let mut hosts = self.some(2, Self::host);
        hosts.sort();
        hosts.dedup();
        let block = || "10.9.8.0/24".parse().unwrap();
        let port = EntryPort {
            name: "p".into(),
            number: 443,
            target: self.maybe(|random| random.pick(&[8443, 9443])),
            protocol: Protocol::Tls,
        };
        let all =
            [Resolution::None, Resolution::Static, Resolution::Dns, Resolution::DnsRoundRobin, Resolution::DynamicDns];
        ServiceEntry {
            key: self.key(),
            uid: "u".into(),
            created_s: i64::try_from(self.below(3)).unwrap(),
            generation: 1,
            labels: self.labels(),
            auto_addresses: hosts.iter().map(|host| (host.clone(), self.ip(4))).collect(),
            hosts: hosts.into(),
            addresses: if self.once_in(3) { [block()].into() } else { Box::default() },
            ports: [port].into(),
            resolution: self.pick(&all),
            internal: self.coin(),
            endpoints: self.some(2, Self::endpoint).into(),
            selector: self.selector(),
            subject_alt_names: Box::default(),
            export_to: if self.once_in(4) { [".".into()].into() } else { Box::default() },
            distribution_annotation: self.distribution(),
            redirected: self.coin(),
            binding: self.binding(),
        }
    }

    pub(super) fn traffic_type(&mut self) -> TrafficType {
        self.pick(&[TrafficType::Service, TrafficType::Workload, TrafficType::All, TrafficType::None])
    }

    fn gateway_class(&mut self) -> GatewayClass {
        GatewayClass {
            name: self.pick(&["istio-waypoint", "istio-east-west", "other"]).into(),
            controller: self
                .pick(&["istio.io/mesh-controller", "istio.io/eastwest-controller", "example.com/other"])
                .into(),
            generation: 1,
            waypoint_for: self.maybe(Self::traffic_type),
            inbound_binding: self.once_in(4).then_some(InboundBinding::Proxy(0)),
        }
    }

    fn target(&mut self) -> TargetRef {
        let (group, kind, name) = self.pick(&[
            ("", "Service", "x"),
            ("networking.istio.io", "ServiceEntry", "x"),
            ("gateway.networking.k8s.io", "Gateway", "y"),
            ("gateway.networking.k8s.io", "GatewayClass", "istio-waypoint"),
            ("example.com", "Thing", "z"),
        ]);
        TargetRef { group: group.into(), kind: kind.into(), name: name.into(), namespace: None }
    }

    fn targets(&mut self) -> Vec<TargetRef> {
        if self.once_in(3) { self.some(2, Self::target) } else { Vec::new() }
    }

    pub(super) fn authorization(&mut self) -> AuthorizationPolicy {
        let action = self.pick(&[Action::Allow, Action::Deny, Action::Audit, Action::Custom]);
        let spec = AuthorizationPolicySpec { action: Some(action), target_refs: self.targets(), ..Default::default() };
        AuthorizationPolicy {
            key: self.key(),
            generation: 1 + i64::try_from(self.below(2)).unwrap(),
            dry_run: self.once_in(4),
            selector: self.selector(),
            spec: Arc::new(spec),
        }
    }

    fn mode(&mut self) -> Mode {
        self.pick(&[Mode::Unset, Mode::Disable, Mode::Permissive, Mode::Strict])
    }

    pub(super) fn peer(&mut self) -> PeerAuthentication {
        let ports = self.some(2, |random| (80 + u16::try_from(random.below(2)).unwrap(), random.mode()));
        PeerAuthentication {
            key: self.key(),
            created_s: i64::try_from(self.below(3)).unwrap(),
            generation: 1,
            selector: self.selector(),
            mode: self.mode(),
            ports: ports.into_iter().collect(),
        }
    }

    pub(super) fn request(&mut self) -> RequestAuthentication {
        RequestAuthentication {
            key: self.key(),
            generation: 1,
            targets: self.targets().into(),
            selector: self.selector(),
        }
    }

    pub(super) fn object(&mut self) -> Object {
        match self.below(50) {
            0..7 => Object::Pod(self.pod()),
            7..10 => Object::Service(self.service()),
            10 => {
                let service = self.service();
                Object::Service(self.gateway_service(service))
            }
            11..14 => Object::Slice(self.slice()),
            14..16 => Object::Namespace(self.cluster_namespace()),
            16 => Object::Node(Node { name: self.pick(&["n1", "n2"]).into(), locality: self.locality() }),
            17..19 => Object::Authorization(self.authorization()),
            19..21 => Object::Peer(self.peer()),
            21..25 => Object::ServiceEntry(self.service_entry()),
            25..27 => Object::WorkloadEntry(self.workload_entry()),
            27..29 => Object::Gateway(self.gateway()),
            29 => Object::GatewayClass(self.gateway_class()),
            30 => Object::Request(self.request()),
            _ => self.l7_object(),
        }
    }

    pub(super) fn settings(&mut self) -> MeshSettings {
        let visibility = self.maybe(|random| VisibilityRules {
            default_visibility: random.pick(&[Visibility::Public, Visibility::Namespace, Visibility::None]),
            policies: vec![VisibilityPolicy {
                visibility: random.pick(&[Visibility::Public, Visibility::Namespace, Visibility::None]),
                matching_rules: vec![VisibilityRule { namespace_selector: Some(web_mesh()) }],
            }],
        });
        let scopes = self.maybe(|random| ScopeRule {
            namespace_selector: random.maybe(|_| web_mesh()).unwrap_or_default(),
            services_selector: random.maybe(|_| web_mesh()).unwrap_or_default(),
            scope: Scope::Global,
        });
        let promise = |strict: bool| if strict { Promise::Strict } else { Promise::Reference };
        MeshSettings {
            domain: self.pick(&["cluster.local", "cluster.local", "other.local"]).into(),
            trust_domain: TrustDomain::new(self.pick(&["cluster.local", "td.acme"])).unwrap(),
            root_namespace: self.pick(&["istio-system", "a"]).into(),
            l7_deny_at_l4: self.coin(),
            promises: Promises { waypoint_required: promise(self.coin()), ..Promises::default() },
            implicit_waypoint_allow: self.once_in(3),
            dry_run: self.coin(),
            discovery_selectors: self.once_in(3).then(web_mesh).into_iter().collect(),
            entry_visibility: visibility,
            multi_network: self.coin(),
            scopes: scopes.into_iter().collect(),
            entries_select_pods: !self.once_in(4),
            services_select_workload_entries: !self.once_in(4),
            ..self.l7_settings()
        }
    }

    pub(super) fn network_gateways(&mut self) -> NetworkGateways {
        let gateways = self.some(2, |random| {
            let address = match random.coin() {
                true => NetworkGatewayAddress::Ip("net1".into(), random.ip(6)),
                false => NetworkGatewayAddress::Hostname("a".into(), "gw.example".into()),
            };
            (random.pick(&["", "net1", "net2"]).into(), NetworkGateway { address, port: 15008 })
        });
        gateways.into_iter().collect()
    }
}

pub(super) fn web_mesh() -> Selector {
    Selector { match_labels: [("mesh".to_owned(), "web".to_owned())].into(), ..Selector::default() }
}
