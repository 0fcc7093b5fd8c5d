//! Looks after what no stream tells of: entries that somebody changed, and those whose replica is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use mesh_api::validate::is_object_name;
use mesh_core::drain::DrainWatch;
use mesh_core::names::NamespacedName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Registry;
use super::turn::Turn;
use crate::source::chain;
use crate::world::Registered;

/// The upkeep of one replica.
pub struct Upkeep {
    /// The API server.
    pub client: Client,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// Told after the first complete picture of the cluster was made, and with every change.
    pub publications: watch::Receiver<()>,
    /// Whether we look after the entries of replicas that are gone.
    pub leading: watch::Receiver<bool>,
    /// Streams are ended after this time: an older connection is none.
    pub max_age: Option<Duration>,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// What an entry that is not known to the registry needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// It was connected to an earlier process of ours, or to a replica that left it: it is to go.
    Adoption,
    /// It goes if this replica is no more.
    Question(Arc<str>),
}

/// The group and the replica that an entry names.
type Names = (NamespacedName, Arc<str>);

/// Entries that the registry does not know, and that nobody seems to look after.
#[derive(Debug, Default)]
struct LeftOver {
    adopted: BTreeMap<NamespacedName, Names>,
    /// By the replica that they name.
    questions: BTreeMap<Arc<str>, Vec<(NamespacedName, Names)>>,
}

/// Whose turn it is in the next sweep. Of replicas that run, and of entries that cannot be deleted, some are there in every
/// sweep: nobody has to wait behind them for ever.
#[derive(Debug, Default)]
struct Turns {
    replicas: Turn<Arc<str>>,
    entries: Turn<NamespacedName>,
}

impl Upkeep {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        tokio::select! {
            _ = drain.signaled() => return,
            known = self.publications.changed() => if known.is_err() { return },
        }
        // Who was connected to the process before us comes back first.
        let adopts_at = Instant::now() + RETURN;
        let mut sweeps_at = adopts_at;
        let mut turns = Turns::default();
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = drain.signaled() => return,
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            self.check(now);
            if now >= adopts_at && now >= sweeps_at {
                sweeps_at = now + SWEEP_EVERY;
                tokio::select! {
                    _ = drain.signaled() => return,
                    () = self.sweep(&mut turns) => {}
                }
            }
        }
    }

    fn check(&self, now: Instant) {
        let model = self.registry.model.read().unwrap_or_else(PoisonError::into_inner);
        self.registry.check(model.world(), now);
    }

    /// Takes over what is left over, some at a time.
    async fn sweep(&self, turns: &mut Turns) {
        let LeftOver { mut adopted, questions } = self.left_over();
        for (controller, entries) in turns.replicas.next(questions, REPLICAS_MAX) {
            match self.is_gone(&controller).await {
                Ok(true) => adopted.extend(entries),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(replica = &*controller, error = %chain(&error), "whether a replica runs is not known");
                }
            }
        }
        for (key, names) in turns.entries.next(adopted, ADOPTED_MAX) {
            tracing::info!(entry = %key, replica = &*names.1, "the replica of a registered workload is gone");
            self.registry.adopt(&key, names, Timestamp::now(), Instant::now());
        }
    }

    /// Looks at all entries.
    fn left_over(&self) -> LeftOver {
        let mut found = LeftOver::default();
        let leads = *self.leading.borrow();
        let now = Timestamp::now();
        let model = self.registry.model.read().unwrap_or_else(PoisonError::into_inner);
        for entry in model.world().workload_entries() {
            let Some(one) = entry.registered.as_deref() else { continue };
            if self.registry.knows(&entry.key) {
                continue;
            }
            let key = entry.key.clone();
            let names = (NamespacedName::new(key.namespace.clone(), one.group.clone()), one.controller.clone());
            match need(one, &self.registry.me, leads, (self.registry.limits.grace, self.max_age), now) {
                Need::Nothing => {}
                Need::Adoption => drop(found.adopted.insert(key, names)),
                Need::Question(controller) => found.questions.entry(controller).or_default().push((key, names)),
            }
        }
        found
    }

    /// A replica is gone with its pod.
    async fn is_gone(&self, replica: &str) -> Result<bool, kube::Error> {
        // No pod has such a name: nobody can be connected to it. Whoever may write entries must not choose what is asked for.
        if !is_object_name(replica) {
            return Ok(true);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let late = |_| kube::Error::Service("no answer in time".into());
        let pod = tokio::time::timeout(ANSWER, pods.get_opt(replica)).await.map_err(late)??;
        let phase = pod.as_ref().and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        Ok(pod.is_none() || matches!(phase, Some("Failed" | "Succeeded")))
    }
}

/// What an entry needs that this replica does not know of. Pure.
pub(super) fn need(
    one: &Registered,
    me: &str,
    leads: bool,
    (grace, max_age): (Duration, Option<Duration>),
    now: Timestamp,
) -> Need {
    let older =
        |at: Timestamp, than: Duration| SignedDuration::try_from(than).is_ok_and(|than| now.duration_since(at) > than);
    if *one.controller == *me {
        return Need::Adoption;
    }
    if !leads {
        return Need::Nothing;
    }
    match (one.disconnected, one.connected) {
        // Its own replica deletes it in time, if it can.
        (Some(at), _) if older(at, grace + LATE) => Need::Adoption,
        (Some(_), _) => Need::Nothing,
        (None, Some(at)) if max_age.is_some_and(|age| older(at, age * 2 + LATE)) => Need::Adoption,
        (None, _) => Need::Question(one.controller.clone()),
    }
}

/// Between two looks at those who are connected.
const EVERY: Duration = Duration::from_secs(2);
/// Workloads that were connected to a process before us come back within this time.
const RETURN: Duration = Duration::from_secs(30);
/// Between two looks at everything.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// What other replicas have left over is deleted this much later than they would.
const LATE: Duration = Duration::from_secs(20);
/// Entries taken over in one sweep.
const ADOPTED_MAX: usize = 200;
/// Replicas asked about in one sweep.
const REPLICAS_MAX: usize = 32;
/// The API server answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(5);
