//! Who is connected to this replica, and what is still to be written about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use mesh_core::names::NamespacedName;
use mesh_wire::discovery::{DeltaDiscoveryRequest, Node};
use mesh_xds::server::Attendant;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::health::Health;
use super::place::{Done, Next, Order, Outcome, Phase, Place, What};
use super::{Claim, Refusal, RegistrationMetrics, entry};
use crate::auth::Caller;
use crate::translate::Model;
use crate::world::World;

/// How many workloads are registered here, and for how long after they left.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Workloads in all.
    pub total: usize,
    /// Workloads of one group. One whose entry is there already makes the group no larger, and is let in beyond it.
    pub group: usize,
    /// How long an entry stays after its workload left. `PILOT_WORKLOAD_ENTRY_GRACE_PERIOD`.
    pub grace: Duration,
    /// How long a stream waits until its entry is written. Later it is served without.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 10_000, group: 2_000, grace: Duration::from_secs(10), wait: Duration::from_secs(5) }
    }
}

/// The workloads that this replica looks after.
pub struct Registry {
    pub(super) model: Arc<RwLock<Model>>,
    /// Name of this replica.
    pub(super) me: Arc<str>,
    pub(super) limits: Limits,
    pub(super) metrics: RegistrationMetrics,
    state: Mutex<State>,
    /// Something became due.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    places: BTreeMap<NamespacedName, Place>,
    /// When to write about whom; at most once each.
    due: BTreeSet<(Instant, NamespacedName)>,
    /// How many workloads there are of each group, those that are leaving included.
    groups: HashMap<NamespacedName, usize>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("me", &self.me).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// For callers of the gate.
impl Registry {
    /// Nobody is registered yet. `me` is the name of this replica.
    pub fn new(
        model: Arc<RwLock<Model>>,
        me: impl Into<Arc<str>>,
        limits: Limits,
        metrics: RegistrationMetrics,
    ) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { model, me: me.into(), limits, metrics, state, changed })
    }

    /// Registers the workload of a new stream, if it wants to be. It stays registered until the answer is dropped.
    ///
    /// # Errors
    /// It may not be registered, or its entry cannot be had. That the API server does not answer is no error.
    ///
    /// # Cancel safety
    /// Cancel-safe: who does not wait for the end has left.
    pub async fn register(
        self: &Arc<Self>,
        caller: Option<&Caller>,
        node: &Node,
        namespace: &str,
    ) -> Result<Option<Attendance>, Refusal> {
        let registered = self.try_register(caller, node, namespace).await;
        if let Err(refusal) = &registered {
            self.metrics.refused.inc();
            tracing::warn!(node = node.id, reason = %refusal, "workload not registered");
        }
        registered
    }

    async fn try_register(
        self: &Arc<Self>,
        caller: Option<&Caller>,
        node: &Node,
        namespace: &str,
    ) -> Result<Option<Attendance>, Refusal> {
        let Some(claim) = Claim::of(node, namespace)? else { return Ok(None) };
        let key = entry::name(&claim);
        let has_entry = self.judge(&claim, &key, caller)?;
        let (attendance, seq, mut written) = self.join(claim, key, has_entry, (Timestamp::now(), Instant::now()))?;
        let outcome = written.wait_for(|done| done.as_ref().is_some_and(|(have, _)| *have >= seq));
        let outcome = match tokio::time::timeout(self.limits.wait, outcome).await {
            Ok(Ok(done)) => done.as_ref().map(|(_, outcome)| outcome.clone()),
            // It is written as soon as it can be; the proxy is served meanwhile.
            Err(_) | Ok(Err(_)) => None,
        };
        outcome.unwrap_or(Ok(())).map(|()| Some(attendance))
    }

    /// Whether it may, and if so whether its entry is there already.
    fn judge(&self, claim: &Claim, key: &NamespacedName, caller: Option<&Caller>) -> Result<bool, Refusal> {
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        let world = model.world();
        let group = claim.judge(caller, world)?;
        let network = claim.network(&group);
        if claim.is_elsewhere(key, network, world) {
            return Err(Refusal::AddressTaken { address: claim.address, network: network.into() });
        }
        let registered = world.workload_entry(key).and_then(|entry| entry.registered.as_ref());
        Ok(registered.is_some_and(|registered| registered.group == claim.group.name))
    }

    fn join(
        self: &Arc<Self>,
        claim: Claim,
        key: NamespacedName,
        has_entry: bool,
        (now, at): (Timestamp, Instant),
    ) -> Result<(Attendance, u64, watch::Receiver<Outcome>), Refusal> {
        let mut state = self.lock();
        let group = claim.group.clone();
        if let Some(place) = state.places.get(&key) {
            // Different claims can make the same name: who came first has it.
            let other = |have: &Arc<Claim>| !have.is_of_same(&claim);
            if place.of != group || place.claim.as_ref().is_some_and(other) {
                return Err(Refusal::ByHand { entry: key });
            }
        } else {
            let of_group = state.groups.get(&group).copied().unwrap_or_default();
            if of_group >= self.limits.group && !has_entry {
                return Err(Refusal::Full { max: self.limits.group, of: "of this group" });
            }
            if state.places.len() >= self.limits.total {
                return Err(Refusal::Full { max: self.limits.total, of: "at this replica" });
            }
        }
        let place = state.place(&key, || Place::new(group, Phase::fresh(now)));
        place.claim = Some(Arc::new(claim));
        place.streams += 1;
        place.seq += 1;
        place.failures = 0;
        place.phase = Phase::fresh(now);
        let (seq, written) = (place.seq, place.written.subscribe());
        let due = place.not_before(at);
        state.mark(&key, due);
        drop(state);
        self.wake();
        Ok((Attendance { registry: self.clone(), key }, seq, written))
    }

    /// A stream ended.
    fn leave(&self, key: &NamespacedName, now: Timestamp, at: Instant) {
        let mut state = self.lock();
        let Some(place) = state.places.get_mut(key) else { return };
        place.streams = place.streams.saturating_sub(1);
        if place.streams > 0 {
            return;
        }
        place.phase = Phase::Leaving { at: now, from: self.me.clone(), gone_at: at + self.limits.grace, told: false };
        place.failures = 0;
        let due = place.not_before(at);
        state.mark(key, due);
        drop(state);
        self.wake();
    }

    fn tell(&self, key: &NamespacedName, health: Health, at: Instant) {
        let mut state = self.lock();
        let Some(place) = state.places.get_mut(key) else { return };
        if place.health.as_ref() == Some(&health) {
            return;
        }
        place.health = Some(health);
        let due = place.not_before(at);
        state.mark(key, due);
        drop(state);
        self.wake();
    }
}

/// For the writer.
impl Registry {
    /// The next thing to write, if one is due.
    pub(super) fn take(&self, now: Instant) -> Option<Order> {
        let mut state = self.lock();
        loop {
            let free = |(at, key): &&(Instant, NamespacedName)| {
                *at <= now && state.places.get(key).is_none_or(|place| !place.busy)
            };
            let (at, key) = state.due.iter().take_while(|(at, _)| *at <= now).find(free)?.clone();
            state.due.remove(&(at, key.clone()));
            let Some(place) = state.places.get_mut(&key) else { continue };
            place.due = None;
            if let Some(what) = place.what(now) {
                place.busy = true;
                return Some(Order { key, what, health: place.health.clone(), seq: place.seq });
            }
            if let Phase::Leaving { gone_at, .. } = place.phase {
                state.mark(&key, gone_at);
            }
        }
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let state = self.lock();
        let free = |key| state.places.get(key).is_none_or(|place: &Place| !place.busy);
        state.due.iter().find(|(_, key)| free(key)).map(|(at, _)| *at)
    }

    /// Whether nothing is to be written, now or because somebody leaves.
    pub(super) fn is_idle(&self) -> bool {
        let untold = |place: &Place| match place.phase {
            Phase::Connected { .. } => true,
            Phase::Leaving { told, .. } => !told || place.busy,
        };
        !self.lock().places.values().any(untold)
    }

    /// Takes note of what came of an order.
    pub(super) fn done(&self, order: &Order, done: Done, now: Instant) {
        let mut state = self.lock();
        let Some(place) = state.places.get_mut(&order.key) else { return };
        place.busy = false;
        place.wrote = Some(now);
        let told = match &done {
            Done::Refused(refusal) => Some(Err(refusal.clone())),
            Done::Written { .. } | Done::NotOurs => Some(Ok(())),
            Done::Failed => None,
        };
        if let Some(told) = told.filter(|_| matches!(order.what, What::Connected { .. })) {
            place.written.send_replace(Some((order.seq, told)));
        }
        if matches!(done, Done::Failed | Done::Refused(_)) {
            place.failures += 1;
        } else {
            place.failures = 0;
        }
        match place.after(order, done, now) {
            Next::Rest => {}
            Next::At(at) => state.mark(&order.key, at),
            Next::Forget => state.remove(&order.key),
        }
        self.metrics.known.set(state.places.len().try_into().unwrap_or(i64::MAX));
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.changed.notify_one();
    }
}

/// For the upkeep.
impl Registry {
    /// Has everything written again whose entry is not what it should be, as far as the world knows.
    pub(super) fn check(&self, world: &World, now: Instant) {
        let mut state = self.lock();
        let settled = |place: &Place| {
            let pause = SETTLE + place.pause();
            !place.busy && place.due.is_none() && place.wrote.is_some_and(|wrote| now >= wrote + pause)
        };
        let wrong = state.places.iter().filter(|(_, place)| settled(place));
        let wrong: Vec<_> =
            wrong.filter(|(key, place)| place.differs(key, &self.me, world)).map(|(key, _)| key.clone()).collect();
        wrong.iter().for_each(|key| state.mark(key, now));
        drop(state);
        if !wrong.is_empty() {
            self.wake();
        }
    }

    /// Whether somebody is looked after here.
    pub(super) fn knows(&self, key: &NamespacedName) -> bool {
        self.lock().places.contains_key(key)
    }

    /// Looks after an entry of a group whose workload was connected to `from` and is no longer: it goes after the grace
    /// time.
    pub(super) fn adopt(
        &self,
        key: &NamespacedName,
        (group, from): (NamespacedName, Arc<str>),
        now: Timestamp,
        at: Instant,
    ) {
        let mut state = self.lock();
        if state.places.contains_key(key) || state.places.len() >= self.limits.total {
            return;
        }
        let phase = Phase::Leaving { at: now, from, gone_at: at + self.limits.grace, told: false };
        state.place(key, || Place::new(group, phase));
        state.mark(key, at);
        drop(state);
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The place of a workload; a new one counts for its group at once.
    fn place(&mut self, key: &NamespacedName, new: impl FnOnce() -> Place) -> &mut Place {
        self.places.entry(key.clone()).or_insert_with(|| {
            let place = new();
            *self.groups.entry(place.of.clone()).or_default() += 1;
            place
        })
    }

    /// Has something written then, or before.
    fn mark(&mut self, key: &NamespacedName, at: Instant) {
        let Some(place) = self.places.get_mut(key) else { return };
        let at = place.due.map_or(at, |due| due.min(at));
        if let Some(due) = place.due.replace(at) {
            self.due.remove(&(due, key.clone()));
        }
        self.due.insert((at, key.clone()));
    }

    fn remove(&mut self, key: &NamespacedName) {
        let Some(place) = self.places.remove(key) else { return };
        if let Some(due) = place.due {
            self.due.remove(&(due, key.clone()));
        }
        if let Some(count) = self.groups.get_mut(&place.of) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.groups.remove(&place.of);
            }
        }
    }
}

/// A registered workload's stream. The workload leaves when this is dropped.
#[derive(Debug)]
pub struct Attendance {
    registry: Arc<Registry>,
    key: NamespacedName,
}

impl Attendance {
    /// Its entry.
    pub fn entry(&self) -> &NamespacedName {
        &self.key
    }
}

impl Attendant for Attendance {
    fn on_request(&mut self, request: &DeltaDiscoveryRequest) {
        if let Some(health) = Health::of(request) {
            self.registry.tell(&self.key, health, Instant::now());
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.registry.leave(&self.key, Timestamp::now(), Instant::now());
    }
}

/// The world lags behind what we write: for so long it is not believed.
const SETTLE: Duration = Duration::from_secs(2);
