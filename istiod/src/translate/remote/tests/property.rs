//! After any changes of any cluster in any order, what was computed along the way is what is computed from the objects
//! alone. `PROPERTY_SEEDS` sets how many sequences are tried, `PROPERTY_SEED` tries a single one again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::labels as names;
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use mesh_xds::server::Resource;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::settings;
use crate::translate::Model;
use crate::world::gateway::{Gateway, GatewayAddress, Listener, ListenerProtocol};
use crate::world::{
    Change, Families, Kind, Labels, MeshSettings, Namespace, Object, PeerAuthentication, Pod, Protocol, RemoteChange,
    Selector, Service, ServicePort, Slice, TargetPort,
};

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a test may
enum Step {
    Upsert(usize, Object),
    Delete(usize, Kind, NamespacedName),
    /// A new connection, over which these are all the objects.
    Connect(usize, Vec<Object>),
    Leave(usize),
    Settings(MeshSettings),
    Flush,
}

/// The first is ours.
const CLUSTERS: [&str; 3] = ["c1", "c2", "c3"];
const CHANGES: usize = 500;

struct Random(StdRng);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn key(&mut self) -> NamespacedName {
        NamespacedName::new(self.pick(&["a", "b"]), self.pick(&["x", "y"]))
    }

    fn ip(&mut self, net: u8) -> IpAddr {
        IpAddr::from([10, net, 0, u8::try_from(self.below(3)).unwrap()])
    }

    fn app(&mut self) -> Labels {
        [("app", self.pick(&["x", "y"]))].into_iter().collect()
    }

    fn step(&mut self) -> Step {
        let cluster = self.below(CLUSTERS.len());
        match self.below(30) {
            0..18 => Step::Upsert(cluster, self.object()),
            18..22 => {
                let object = self.object();
                Step::Delete(cluster, object.kind(), object.key())
            }
            22 => Step::Connect(cluster.max(1), (0..self.below(12)).map(|_| self.object()).collect()),
            23 if self.below(3) == 0 => Step::Leave(cluster.max(1)),
            24 if self.below(3) == 0 => Step::Settings(self.settings()),
            _ => Step::Flush,
        }
    }

    fn object(&mut self) -> Object {
        match self.below(12) {
            0 => Object::Namespace(self.namespace("istio-system", names::NETWORK, &["n1", "n2", "n3"])),
            1 => {
                let name = self.pick(&["a", "b"]);
                Object::Namespace(self.namespace(name, "share", &["yes", "no"]))
            }
            2..5 => Object::Service(self.service()),
            5..9 => Object::Pod(self.pod()),
            9 => Object::Slice(Slice {
                key: self.key(),
                service: self.key(),
                ports: [("p".into(), 9000)].into(),
                pods: Box::default(),
                addresses: [(self.ip(9), self.coin())].into(),
            }),
            10 => Object::Gateway(self.gateway()),
            _ => Object::Peer(PeerAuthentication {
                key: self.key(),
                created_s: 0,
                generation: 1,
                selector: Some(self.app()),
                mode: mesh_api::security::Mode::Strict,
                ports: BTreeMap::new(),
            }),
        }
    }

    fn namespace(&mut self, name: &str, label: &str, values: &[&str]) -> Namespace {
        let labels =
            if self.below(4) == 0 { Labels::default() } else { [(label, self.pick(values))].into_iter().collect() };
        Namespace { name: name.into(), labels, distribution: None, binding: None }
    }

    fn service(&mut self) -> Service {
        let global = [("istio.io/global", self.pick(&["true", "true", "false"]))];
        Service {
            key: self.key(),
            cluster_ips: [self.ip(96)].into(),
            families: Families::default(),
            ports: [ServicePort {
                name: "p".into(),
                port: self.pick(&[80, 81]),
                target: TargetPort::Number(8080),
                protocol: Protocol::default(),
            }]
            .into(),
            selector: (self.below(4) > 0).then(|| self.app()),
            node_local: false,
            distribution: None,
            distribution_annotation: None,
            publish_not_ready: false,
            load_balancer: false,
            external: Box::default(),
            labels: global.into_iter().collect(),
            binding: None,
        }
    }

    fn pod(&mut self) -> Pod {
        Pod {
            key: self.key(),
            uid: "u".into(),
            service_account: self.pick(&["", "s1", "s2"]).into(),
            node: "".into(),
            labels: self.app(),
            workload_name: "w".into(),
            ips: if self.below(5) == 0 { Box::default() } else { [self.ip(1)].into() },
            ready: self.coin(),
            host_network: false,
            redirected: self.coin(),
            ports: Box::default(),
            binding: None,
        }
    }

    fn gateway(&mut self) -> Gateway {
        let hostname = self.below(4) == 0;
        let address =
            if hostname { GatewayAddress::Hostname("gw.example".into()) } else { GatewayAddress::Ip(self.ip(7)) };
        Gateway {
            key: self.key(),
            class: self.pick(&["istio-east-west", "istio-remote", "istio-waypoint"]).into(),
            created_s: 0,
            generation: 1,
            waypoint_for: None,
            inbound_binding: None,
            network: (self.below(6) > 0).then(|| self.pick(&["n1", "n2", "n3"]).into()),
            service_account: None,
            listeners: [Listener {
                name: "mesh".into(),
                port: 15008,
                protocol: ListenerProtocol::Hbone,
                terminates: self.below(5) > 0,
                allowed: Default::default(),
            }]
            .into(),
            addresses: if self.below(5) == 0 { Box::default() } else { [address].into() },
            ..Gateway::default()
        }
    }

    fn settings(&mut self) -> MeshSettings {
        let mut settings = settings();
        settings.trust_domain = TrustDomain::new(self.pick(&["cluster.local", "td.acme"])).unwrap();
        let share = [("share".to_owned(), "yes".to_owned())].into();
        match self.below(3) {
            0 => settings.scopes.clear(),
            1 => settings.scopes[0].namespace_selector = Selector { match_labels: share, ..Selector::default() },
            _ => {}
        }
        if self.below(4) == 0 {
            settings.discovery_selectors =
                vec![Selector { match_labels: [("share".into(), "yes".into())].into(), ..Selector::default() }];
        }
        settings
    }
}

/// Runs steps, and keeps what a fresh model has to be told at the end.
struct Run {
    model: Model,
    objects: [BTreeMap<(Kind, NamespacedName), Object>; CLUSTERS.len()],
    epochs: [u64; CLUSTERS.len()],
    connected: [bool; CLUSTERS.len()],
    settings: MeshSettings,
    client: BTreeMap<Arc<str>, Arc<Resource>>,
}

impl Run {
    fn new() -> Self {
        let mut model = Model::default();
        model.apply(Change::Settings(settings().into()));
        let settings = settings();
        Self {
            model,
            objects: Default::default(),
            epochs: Default::default(),
            connected: [true, false, false],
            settings,
            client: BTreeMap::new(),
        }
    }

    fn tell(&mut self, cluster: usize, change: Change) {
        let epoch = self.epochs[cluster];
        self.model.apply(wrap(cluster, epoch, change));
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Upsert(cluster, object) if self.connected[cluster] => {
                self.objects[cluster].insert((object.kind(), object.key()), object.clone());
                self.tell(cluster, Change::Upsert(object));
            }
            Step::Delete(cluster, kind, key) if self.connected[cluster] => {
                self.objects[cluster].remove(&(kind, key.clone()));
                self.tell(cluster, Change::Delete(kind, key));
            }
            Step::Connect(cluster, objects) => {
                self.epochs[cluster] += 1;
                self.connected[cluster] = true;
                self.objects[cluster].clear();
                for object in objects.into_iter().filter(|one| one.kind() != Kind::Peer) {
                    self.objects[cluster].insert((object.kind(), object.key()), object.clone());
                    self.tell(cluster, Change::Upsert(object));
                }
                // An empty cluster says at least that.
                self.tell(cluster, Change::Synced(Kind::Pod));
                self.model.apply(complete(cluster, self.epochs[cluster]));
            }
            Step::Leave(cluster) => {
                self.connected[cluster] = false;
                self.objects[cluster].clear();
                self.model.apply(Change::Remote(CLUSTERS[cluster].into(), Box::new(RemoteChange::Gone)));
            }
            Step::Settings(settings) => {
                self.settings = settings.clone();
                self.model.apply(Change::Settings(settings.into()));
            }
            Step::Flush => return self.flush(),
            Step::Upsert(..) | Step::Delete(..) => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        for change in self.model.flush().changes {
            match change.resource {
                _ if change.type_url != mesh_wire::type_url::ADDRESS => {}
                Some(resource) => drop(self.client.insert(change.name, resource)),
                None => drop(self.client.remove(&change.name)),
            }
        }
        let mut fresh = Model::default();
        fresh.apply(Change::Settings(self.settings.clone().into()));
        for (cluster, objects) in self.objects.iter().enumerate().filter(|(cluster, _)| self.connected[*cluster]) {
            fresh.apply(wrap(cluster, 1, Change::Synced(Kind::Pod)));
            for object in objects.values() {
                fresh.apply(wrap(cluster, 1, Change::Upsert(object.clone())));
            }
            fresh.apply(complete(cluster, 1));
        }
        fresh.flush();
        same("incremental", self.model.addresses(), fresh.addresses())?;
        same("client", &self.client, fresh.addresses())
    }
}

fn wrap(cluster: usize, epoch: u64, change: Change) -> Change {
    match cluster {
        0 => change,
        // Configuration comes from our cluster only, and its source asks for nothing else.
        _ if matches!(&change, Change::Upsert(Object::Peer(_)) | Change::Delete(Kind::Peer, _)) => {
            Change::Synced(Kind::Peer)
        }
        _ => Change::Remote(CLUSTERS[cluster].into(), Box::new(RemoteChange::Told { epoch, change })),
    }
}

fn complete(cluster: usize, epoch: u64) -> Change {
    match cluster {
        0 => Change::Synced(Kind::Pod),
        _ => Change::Remote(CLUSTERS[cluster].into(), Box::new(RemoteChange::Complete { epoch })),
    }
}

fn same(
    what: &str,
    found: &BTreeMap<Arc<str>, Arc<Resource>>,
    wanted: &BTreeMap<Arc<str>, Arc<Resource>>,
) -> Result<(), String> {
    let name = found.keys().chain(wanted.keys()).find(|name| found.get(*name) != wanted.get(*name));
    let show = |one: Option<&Arc<Resource>>| one.map(|one| crate::debug::view::address(one));
    name.map_or(Ok(()), |name| {
        Err(format!("{what}: {name}\nfound  {:?}\nwanted {:?}", show(found.get(name)), show(wanted.get(name))))
    })
}

fn run(steps: &[Step]) -> Result<(), String> {
    let mut run = Run::new();
    for step in steps {
        run.step(step.clone())?;
    }
    run.flush()
}

/// Leaves out whatever the failure does not need.
fn shrink(mut steps: Vec<Step>) -> Vec<Step> {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            if run(&fewer).is_err() {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    steps
}

#[test]
fn clusters_in_any_order_give_what_their_objects_give() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PROPERTY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PROPERTY_SEEDS").unwrap_or(40),
    };
    for seed in seeds {
        let mut random = Random(StdRng::seed_from_u64(seed));
        let steps: Vec<_> = (0..CHANGES).map(|_| random.step()).collect();
        if run(&steps).is_err() {
            let steps = shrink(steps);
            panic!("PROPERTY_SEED={seed}: {}\nafter {steps:#?}", run(&steps).unwrap_err());
        }
    }
}
