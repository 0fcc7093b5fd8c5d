//! Whatever changes and whenever a client comes back: what guards a workload before and after guards it in between.
//!
//! A simulated client applies one response after the other. Policies are wide (they guard every workload by themselves)
//! or narrow (they guard the workloads that name them).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use mesh_wire::discovery::DeltaDiscoveryResponse;
use proptest::prelude::*;
use prost::Message;
use tokio::time::Instant;

use super::*;
use crate::server::exchange::Exchange;
use crate::server::wire::{Push, Writing};

const POLICIES: usize = 3;
const WORKLOADS: usize = 3;

/// What is published, or what a client holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    /// Policy to whether it is wide.
    policies: BTreeMap<String, bool>,
    /// Workload to the policies that it names.
    workloads: BTreeMap<String, BTreeSet<String>>,
}

impl State {
    fn guards(&self, policy: &str, workload: &str) -> bool {
        let named = self.workloads.get(workload).is_some_and(|names| names.contains(policy));
        self.workloads.contains_key(workload) && self.policies.get(policy).is_some_and(|wide| *wide || named)
    }

    fn resources(&self) -> BTreeMap<(&'static str, String), Resource> {
        let policies = self.policies.iter().map(|(name, wide)| {
            let body = Bytes::from_static(if *wide { b"wide" } else { b"narrow" });
            ((AUTHORIZATION, name.clone()), Resource { referenced: !wide, body, ..policy(name) })
        });
        let workloads = self.workloads.iter().map(|(name, refs)| {
            let body = refs.iter().cloned().collect::<Vec<_>>().join(",");
            let body = Bytes::from(body);
            let version = content_version(&body);
            ((ADDRESS, name.clone()), Resource { body, version, ..workload(name, "", None) })
        });
        policies.chain(workloads).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The state becomes this; the client is busy.
    Publish(State),
    /// The client takes what there is.
    Read,
    /// The client comes back; it asks for both types, and this may be published in between.
    Reconnect { workloads_first: bool, between: Option<State> },
}

fn state() -> impl Strategy<Value = State> {
    let policies = prop::collection::vec(0_u8..3, POLICIES);
    let workloads = prop::collection::vec(prop::option::weighted(0.8, 0_u8..1 << POLICIES), WORKLOADS);
    (policies, workloads).prop_map(|(policies, workloads)| {
        let kinds = policies.into_iter().enumerate().filter(|(_, kind)| *kind > 0);
        let policies: BTreeMap<_, _> = kinds.map(|(at, kind)| (format!("p{at}"), kind == 1)).collect();
        let narrow = |at: usize| policies.get(&format!("p{at}")) == Some(&false);
        let named = |mask: u8| {
            let meant = (0..POLICIES).filter(|at| mask & (1 << at) != 0 && narrow(*at));
            meant.map(|at| format!("p{at}")).collect()
        };
        let present = workloads.iter().enumerate().filter_map(|(at, mask)| Some((format!("w{at}"), named((*mask)?))));
        let workloads = present.collect();
        State { policies, workloads }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => state().prop_map(Step::Publish),
        2 => Just(Step::Read),
        2 => (any::<bool>(), prop::option::of(state()))
            .prop_map(|(workloads_first, between)| Step::Reconnect { workloads_first, between }),
    ]
}

struct World {
    hub: Arc<Hub>,
    /// Every state since the client had all.
    history: Vec<State>,
    exchange: Exchange,
    client: State,
    versions: BTreeMap<&'static str, HashMap<String, String>>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let hub = Hub::new(&TYPES, HubOptions::default(), Box::new(Unobserved));
        let exchange = Exchange::new(hub.connect(String::new(), false, std::time::SystemTime::UNIX_EPOCH));
        let mut world = Self {
            hub,
            history: vec![State::default()],
            exchange,
            client: State::default(),
            versions: BTreeMap::new(),
            now: Instant::now(),
        };
        world.subscribe(false, None);
        world
    }

    fn publish(&mut self, next: State) {
        let (old, new) = (self.history.last().unwrap().resources(), next.resources());
        let names: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
        let differing = names.into_iter().filter(|name| old.get(name) != new.get(name));
        let changes: Vec<_> = differing
            .map(|(type_url, name)| Change {
                type_url,
                name: name.as_str().into(),
                resource: new.get(&(type_url, name.clone())).cloned().map(Arc::new),
            })
            .collect();
        self.hub.publish("v".into(), &changes);
        self.history.push(next);
    }

    fn subscribe(&mut self, workloads_first: bool, mut between: Option<State>) {
        let mut types = [AUTHORIZATION, ADDRESS];
        if workloads_first {
            types.reverse();
        }
        for type_url in types {
            let request = DeltaDiscoveryRequest {
                type_url: type_url.into(),
                initial_resource_versions: self.versions.get(type_url).cloned().unwrap_or_default(),
                ..Default::default()
            };
            let pushes = self.exchange.on_request(request, self.now).unwrap();
            self.apply(pushes);
            if let Some(state) = between.take() {
                self.publish(state);
                let pushes = self.exchange.on_changed();
                self.apply(pushes);
            }
        }
        self.read();
    }

    fn read(&mut self) {
        let pushes = self.exchange.on_changed();
        self.apply(pushes);
        let now = self.history.last().unwrap().clone();
        assert_eq!(self.client, now, "the client has everything");
        self.history = vec![now];
    }

    fn apply(&mut self, pushes: Vec<Push>) {
        for mut push in pushes {
            self.exchange.stamp(&mut push);
            let mut writing = Writing::new(push).unwrap();
            let pieces: Vec<_> = std::iter::from_fn(|| writing.piece()).flatten().collect();
            self.take(DeltaDiscoveryResponse::decode(&pieces[5..]).unwrap());
            self.check();
        }
    }

    fn take(&mut self, response: DeltaDiscoveryResponse) {
        let type_url = if response.type_url == ADDRESS { ADDRESS } else { AUTHORIZATION };
        let versions = self.versions.entry(type_url).or_default();
        for one in response.resources {
            versions.insert(one.name.clone(), one.version);
            let body = String::from_utf8(one.resource.unwrap().value).unwrap();
            if type_url == ADDRESS {
                let refs = body.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                self.client.workloads.insert(one.name, refs);
            } else {
                self.client.policies.insert(one.name, body == "wide");
            }
        }
        for name in response.removed_resources {
            versions.remove(&name);
            self.client.workloads.remove(&name);
            if type_url == AUTHORIZATION {
                self.client.policies.remove(&name);
            }
        }
    }

    fn check(&self) {
        for workload in self.client.workloads.keys() {
            for policy in (0..POLICIES).map(|at| format!("p{at}")) {
                let always = self.history.iter().all(|state| state.guards(&policy, workload));
                assert!(
                    !always || self.client.guards(&policy, workload),
                    "{policy} guards {workload} all the time, but not at the client: {:?}",
                    self.client
                );
            }
            for policy in &self.client.workloads[workload] {
                assert!(self.client.policies.contains_key(policy), "{workload} names {policy}, which is unknown");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// No gap, in any sequence of changes, reads and reconnects.
    #[test]
    fn what_guards_before_and_after_guards_in_between(steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Publish(state) => world.publish(state),
                Step::Read => world.read(),
                Step::Reconnect { workloads_first, between } => {
                    let registration = world.hub.connect(String::new(), false, std::time::SystemTime::UNIX_EPOCH);
                    world.exchange = Exchange::new(registration);
                    world.subscribe(workloads_first, between);
                }
            }
        }
        world.read();
    }
}

#[test]
fn a_client_that_never_asks_for_workloads_is_told_of_removed_policies_in_the_end() {
    let mut world = World::new();
    world.publish(State { policies: [("p0".to_owned(), true)].into(), ..State::default() });
    world.read();
    world.exchange = Exchange::new(world.hub.connect(String::new(), false, std::time::SystemTime::UNIX_EPOCH));
    world.publish(State::default());
    let request = DeltaDiscoveryRequest {
        type_url: AUTHORIZATION.into(),
        initial_resource_versions: world.versions[AUTHORIZATION].clone(),
        ..Default::default()
    };
    let pushes = world.exchange.on_request(request, world.now).unwrap();
    world.apply(pushes);
    assert!(world.client.policies.contains_key("p0"), "kept until the workloads are known");
    let at = world.exchange.deadline().unwrap();
    let pushes = world.exchange.on_time(at);
    world.apply(pushes);
    assert!(world.client.policies.is_empty() && world.exchange.deadline().is_none());
    assert!(at - world.now <= Duration::from_secs(5));
}
