//! After any changes in any order, what was computed along the way is what is computed from the objects alone; and whoever
//! was sent every difference holds just that.
//!
//! `PROPERTY_SEEDS` sets how many sequences are tried, `PROPERTY_SEED` tries a single one again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_core::names::NamespacedName;
use mesh_xds::server::{self, Resource};

use super::super::{Delta, Model};
use super::random::Random;
use crate::translate::{ObjectStatus, StatusTarget, listener};
use crate::world::{Change, Kind, MeshSettings, NetworkGateways, Object};

#[derive(Clone, Debug)]
enum Step {
    Upsert(Object),
    /// Part of the object could not be read.
    Partial(Object),
    Delete(Kind, NamespacedName),
    /// Relist: what `stays` does not keep vanished unseen.
    Relist(Kind),
    /// Unreadable; this stands in where nothing is known.
    Broken(Object),
    Settings(Box<MeshSettings>),
    Networks(NetworkGateways),
    Flush,
}

fn step(random: &mut Random) -> Step {
    match random.below(40) {
        0..24 => Step::Upsert(random.object()),
        24 => Step::Partial(random.object()),
        25..30 => {
            let object = random.object();
            Step::Delete(object.kind(), object.key())
        }
        30 => Step::Relist(random.pick(&Kind::ALL)),
        31 => Step::Broken(Object::Authorization(random.authorization())),
        32 => Step::Broken(Object::Peer(random.peer())),
        // Everything is computed again after this one.
        33 if random.once_in(3) => Step::Settings(Box::new(random.settings())),
        34 => Step::Networks(random.network_gateways()),
        _ => Step::Flush,
    }
}

fn steps(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = Vec::new();
    let mut changes = 0;
    // Where networks are joined, their gateways are found among the objects.
    let joined = seed % 2 == 1;
    while changes < CHANGES {
        let step = match step(&mut random) {
            Step::Networks(_) if joined => continue,
            Step::Settings(mut settings) => {
                settings.multi_network &= joined;
                Step::Settings(settings)
            }
            step => step,
        };
        changes += usize::from(!matches!(step, Step::Flush));
        steps.push(step);
    }
    steps
}

/// Runs the steps, and keeps what a fresh model has to be told at the end.
#[derive(Default)]
struct Run {
    model: Model,
    objects: BTreeMap<(Kind, NamespacedName), Change>,
    broken: BTreeMap<(Kind, NamespacedName), Change>,
    /// ConfigMaps and Secrets of which it is known that they do not exist.
    absent: BTreeSet<(Kind, NamespacedName)>,
    settings: Option<Arc<MeshSettings>>,
    networks: NetworkGateways,
    /// What a client that was sent every difference holds.
    client: BTreeMap<(&'static str, Arc<str>), Arc<Resource>>,
    statuses: BTreeMap<StatusTarget, Arc<ObjectStatus>>,
}

impl Run {
    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Upsert(object) => self.upsert((object.kind(), object.key()), Change::Upsert(object)),
            Step::Partial(object) => {
                self.upsert((object.kind(), object.key()), Change::Partial { object, reason: "half".into() });
            }
            Step::Delete(kind, key) => {
                self.broken.remove(&(kind, key.clone()));
                self.objects.remove(&(kind, key.clone()));
                if Kind::REFERENCED.contains(&kind) {
                    self.absent.insert((kind, key.clone()));
                }
                self.model.apply(Change::Delete(kind, key));
            }
            Step::Relist(kind) => {
                let stays = |key: &NamespacedName| key.name.len() + key.namespace.len() > 2;
                self.objects.retain(|(have, key), _| *have != kind || stays(key));
                self.broken.retain(|(have, key), _| *have != kind || stays(key));
                let listed = self.objects.keys().chain(self.broken.keys()).filter(|(have, _)| *have == kind);
                let keep: HashSet<_> = listed.map(|(_, key)| key.clone()).collect();
                self.absent.retain(|(have, key)| *have != kind || keep.contains(key));
                self.model.apply(Change::Retain(kind, keep));
            }
            Step::Broken(stand_in) => {
                let (kind, key) = (stand_in.kind(), stand_in.key());
                let stand_in = Some(Box::new(stand_in));
                let change = Change::Broken { kind, key: key.clone(), generation: 7, reason: "bad".into(), stand_in };
                self.broken.insert((kind, key), change.clone());
                self.model.apply(change);
            }
            Step::Settings(settings) => {
                let settings = Arc::new(*settings);
                self.settings = Some(settings.clone());
                self.model.apply(Change::Settings(settings));
            }
            Step::Networks(gateways) => {
                self.networks = gateways.clone();
                self.model.set_network_gateways(gateways);
            }
            Step::Flush => return self.flush(),
        }
        Ok(())
    }

    fn upsert(&mut self, key: (Kind, NamespacedName), change: Change) {
        self.broken.remove(&key);
        self.absent.remove(&key);
        self.objects.insert(key, change.clone());
        self.model.apply(change);
    }

    fn flush(&mut self) -> Result<(), String> {
        let Delta { changes, statuses } = self.model.flush();
        for server::Change { type_url, name, resource } in changes {
            let key = (type_url, name);
            let sent = match resource.clone() {
                Some(resource) => self.client.insert(key.clone(), resource),
                None => self.client.remove(&key),
            };
            if sent == resource {
                return Err(format!("{key:?} was sent without being different"));
            }
        }
        for (target, status) in statuses {
            match status {
                Some(status) => self.statuses.insert(target, status),
                None => self.statuses.remove(&target),
            };
        }
        Ok(())
    }

    /// Whatever is named is looked for sooner or later: what is not there is known not to be.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            let world = self.model.world();
            let by_backends = self.model.layer7().materials(world).into_iter().map(|(material, _)| material);
            let named = by_backends.chain(listener::references(world).into_keys());
            let unread: Vec<_> = named.filter(|(kind, key)| world.is_unread(*kind, key)).collect();
            if unread.is_empty() {
                return Ok(());
            }
            unread.into_iter().try_for_each(|(kind, key)| self.step(Step::Delete(kind, key)))?;
            self.flush()?;
        }
    }

    /// A model that is told the objects in another order.
    fn scratch(&self, random: &mut Random) -> Model {
        let mut model = Model::default();
        let mut told: Vec<_> = self.objects.values().cloned().collect();
        let settings = self.settings.clone().map(Change::Settings);
        told.extend(settings);
        while !told.is_empty() {
            model.apply(told.swap_remove(random.below(told.len())));
        }
        self.broken.values().for_each(|change| model.apply(change.clone()));
        self.absent.iter().for_each(|(kind, key)| model.apply(Change::Delete(*kind, key.clone())));
        model.set_network_gateways(self.networks.clone());
        model.flush();
        model
    }
}

/// What is wrong after these steps.
fn fault(seed: u64, steps: &[Step]) -> Option<String> {
    let run = AssertUnwindSafe(|| check(seed, steps));
    match catch_unwind(run) {
        Ok(result) => result.err(),
        Err(_) => Some("panicked".into()),
    }
}

fn check(seed: u64, steps: &[Step]) -> Result<(), String> {
    let mut run = Run::default();
    steps.iter().cloned().try_for_each(|step| run.step(step))?;
    run.flush()?;
    run.settle()?;
    let fresh = run.scratch(&mut Random::new(seed));
    same(run.model.addresses(), fresh.addresses())?;
    same(run.model.authorizations(), fresh.authorizations())?;
    same(run.model.layer7().resources(), fresh.layer7().resources())?;
    same(run.model.statuses(), fresh.statuses())?;
    same(&run.statuses, fresh.statuses())?;
    let of = |url: &'static str| {
        let held = run.client.iter().filter(move |((have, _), _)| *have == url);
        held.map(|((_, name), resource)| (name.clone(), resource.clone())).collect::<BTreeMap<_, _>>()
    };
    same(&of(mesh_wire::type_url::ADDRESS), fresh.addresses())?;
    same(&of(mesh_wire::type_url::AUTHORIZATION), fresh.authorizations())?;
    same(&of(mesh_wire::type_url::L7), fresh.layer7().resources())
}

/// The first entry that differs.
fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    have: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Result<(), String> {
    let keys = have.keys().chain(expected.keys());
    match keys.into_iter().find(|key| have.get(key) != expected.get(key)) {
        Some(key) => Err(format!("{key:?} is\n  {:?}\nexpected\n  {:?}", have.get(key), expected.get(key))),
        None => Ok(()),
    }
}

/// Fewest steps that still go wrong: ever smaller parts are left out.
fn shrink(seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    let mut part = steps.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < steps.len() {
            let end = (at + part).min(steps.len());
            let fewer: Vec<_> = steps[..at].iter().chain(&steps[end..]).cloned().collect();
            match fault(seed, &fewer) {
                Some(_) => steps = fewer,
                None => at = end,
            }
        }
        part /= 2;
    }
    steps
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn incremental_equals_from_scratch_in_any_order() {
    let seeds = match number("PROPERTY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PROPERTY_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let steps = steps(seed);
                    if fault(seed, &steps).is_some() {
                        let fewest = shrink(seed, steps);
                        let fault = fault(seed, &fewest).unwrap_or_default();
                        panic!("PROPERTY_SEED={seed}, {} steps: {fewest:#?}\n{fault}", fewest.len());
                    }
                }
            });
        }
    });
}

/// Changes of one sequence.
const CHANGES: usize = 500;
/// Sequences in `make test`.
const SEEDS: u64 = 1_000;
