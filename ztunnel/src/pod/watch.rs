//! Judges a pod's live connections again whenever something changes that decided about them: its policies, its record,
//! a waypoint, a promise, the revocation lists.
//!
//! One pass for each change, none when a change is about others, and a pause after each, so that a control plane that
//! never rests costs a bounded share of the time. Everything is judged by the current record of the workload; one that
//! was removed keeps its last, since its connections may outlive it.

use std::rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh_identity::Crl;
use mesh_policy::Policy;
use tokio::sync::{oneshot, watch};

use super::{Pod, PodWorker};
use crate::connections::Law;
use crate::promises::{Name, Promises};
use crate::route;
use crate::shared::Shared;
use crate::state::{Policies, Workload};

/// Runs until the pod's last connection is gone or everything is cut: connections stay under watch during a graceful
/// drain, too.
pub(super) async fn judge_connections(pod: Weak<Pod>, mut gone: oneshot::Receiver<()>, shared: Arc<Shared>) {
    let mut changes = Changes::of(&shared);
    let mut known = Known::default();
    loop {
        let lists_changed = changes.mark_seen();
        // The pod lives as long as a worker serves it.
        let Some(pod) = pod.upgrade() else { return };
        let judged = known.judge(&pod, &shared, lists_changed).await;
        if lists_changed {
            pod.live.cut_tunnels();
        }
        // Neither the pod nor an old view may be kept alive by waiting.
        drop(pod);
        if judged {
            tokio::time::sleep(PASS_PAUSE).await;
        }
        // Where nothing changes any more, a pod that is gone is not watched for ever.
        tokio::select! {
            _ = &mut gone => return,
            changed = changes.next() => if changed.is_err() { return },
        }
    }
}

/// Everything that may decide otherwise than before.
struct Changes {
    state: watch::Receiver<u64>,
    promises: watch::Receiver<u64>,
    /// Without revocation lists nothing ever comes here.
    lists: Option<watch::Receiver<u64>>,
    lists_seen: Option<u64>,
}

impl Changes {
    fn of(shared: &Shared) -> Self {
        let lists = shared.crl.as_ref().map(Crl::generation);
        let lists_seen = lists.as_ref().map(|lists| *lists.borrow());
        Self { state: shared.state.changed(), promises: shared.promises.changed(), lists, lists_seen }
    }

    /// From here on changes are new ones. Tells whether the revocation lists are among the old ones.
    fn mark_seen(&mut self) -> bool {
        self.state.borrow_and_update();
        self.promises.borrow_and_update();
        let lists = self.lists.as_mut().map(|lists| *lists.borrow_and_update());
        std::mem::replace(&mut self.lists_seen, lists) != lists
    }

    async fn next(&mut self) -> Result<(), watch::error::RecvError> {
        let lists = async {
            match &mut self.lists {
                Some(lists) => lists.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.state.changed() => changed,
            changed = self.promises.changed() => changed,
            changed = lists => changed,
        }
    }
}

/// What the connections were judged by last.
#[derive(Default)]
struct Known {
    generation: u64,
    by: Option<Inputs>,
    /// Last record of the workload.
    workload: Option<Arc<Workload>>,
    missing: Vec<Arc<str>>,
}

struct Inputs {
    workload: Arc<Workload>,
    policies: Vec<Arc<Policy>>,
    waypoint_required: bool,
    /// The decision depends on records of others.
    guarded: bool,
}

impl Known {
    /// Judges everything if the outcome may differ from the last time; tells whether it did.
    async fn judge(&mut self, pod: &Pod, shared: &Shared, lists_changed: bool) -> bool {
        let snapshot = shared.state.snapshot();
        let current = snapshot.local_workload(&pod.name, &pod.namespace, &pod.service_account);
        let Some(workload) = current.or(self.workload.as_ref()).cloned() else { return false };
        let Policies { applied, missing } = snapshot.policies_for(&workload);
        self.tell_missing(&workload, missing, &shared.promises);
        let waypoint_required = shared.promises.strict(Name::WaypointRequired);
        let guarded = waypoint_required && route::is_guarded(&snapshot, &workload);
        // A generation that was skipped may have let connections in which this one denies, even if it says the same as
        // the one before it.
        let unbroken = snapshot.generation <= self.generation.saturating_add(1);
        let now = Inputs { workload: workload.clone(), policies: applied, waypoint_required, guarded };
        let same = self.by.as_ref().is_some_and(|before| before.decides_like(&now));
        self.generation = snapshot.generation;
        self.workload = Some(workload.clone());
        let needed = lists_changed || !(unbroken && same);
        if needed {
            let law = Law::new(snapshot, workload, now.policies.clone(), &shared.promises, shared.crl.as_ref());
            let judge = |subject: &_| law.allows(subject).inspect_err(|why| law.record(&shared.report, subject, why));
            let cut = pod.live.judge(judge).await;
            if cut > 0 {
                tracing::info!(pod = %pod.name, namespace = %pod.namespace, cut, "a change ended connections");
            }
        }
        self.by = Some(now);
        needed
    }

    /// Where connections do not wait for them, unknown policies are left out, which somebody should know.
    fn tell_missing(&mut self, workload: &Workload, missing: Vec<Arc<str>>, promises: &Promises) {
        if missing != self.missing && !missing.is_empty() && !promises.strict(Name::PolicyBeforeTraffic) {
            tracing::warn!(workload = %workload.name, namespace = %workload.namespace, policies = ?missing,
                "policies that the workload names are not known and are left out");
        }
        self.missing = missing;
    }
}

impl Inputs {
    /// Updates of other workloads leave the very same record and policies in place.
    fn decides_like(&self, now: &Self) -> bool {
        let same_policies = self.policies.len() == now.policies.len()
            && self.policies.iter().zip(&now.policies).all(|(a, b)| Arc::ptr_eq(a, b));
        let same_record = Arc::ptr_eq(&self.workload, &now.workload) || self.workload == now.workload;
        same_policies && same_record && self.waypoint_required == now.waypoint_required && !self.guarded && !now.guarded
    }
}

/// Ends the tunnels of one worker to servers that are revoked, whenever the watch over the pod says so.
pub(super) async fn cut_revoked_tunnels(worker: rc::Weak<PodWorker>) {
    let Some(mut cuts) = worker.upgrade().map(|worker| worker.pod.live.cuts()) else { return };
    while cuts.changed().await.is_ok() {
        let Some(worker) = worker.upgrade() else { return };
        let cut = worker.pool.cut_revoked();
        if cut > 0 {
            let pod = &worker.pod;
            tracing::info!(pod = %pod.name, namespace = %pod.namespace, cut, "tunnels to revoked servers ended");
        }
    }
}

/// Between two passes over the connections of a pod: with a change at every moment, five passes a second.
const PASS_PAUSE: Duration = Duration::from_millis(200);
