//! One pool: a backend's policy, its endpoints and what all workers know about them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::accounting::Ledger;
use super::backend::{Algorithm, BackendPolicy, Http};
use super::breaker::{Breakers, Permit};
use super::budget::RetryBudget;
use super::hash::{HashChoice, HashInput};
use super::host::{Host, HostSet};
use super::outlier::{Cause, Outcome};
use super::pick::Picked;
use super::shared::UpstreamShared;
use super::stats::Stats;
use crate::endpoints::ServiceView;

/// A pool. Shared by all workers; each keeps connections of its own.
pub struct Cluster {
    /// Unique in the process.
    pub(super) id: u64,
    pub(super) policy: BackendPolicy,
    pub(super) shared: Arc<UpstreamShared>,
    pub(super) ledger: Arc<Ledger>,
    view: Arc<ServiceView>,
    set: ArcSwap<HostSet>,
    /// Grows when pickers have to be made anew.
    generation: AtomicU64,
    budget: Option<RetryBudget>,
    /// Held by who changes the set or ejects; never on the way of an ordinary request.
    changing: Mutex<()>,
    next_sweep_ms: AtomicU64,
}

impl Cluster {
    pub(super) fn new(
        policy: BackendPolicy,
        view: Arc<ServiceView>,
        shared: Arc<UpstreamShared>,
        previous: Option<&Self>,
    ) -> Arc<Self> {
        let now = shared.now();
        let none = HostSet::default();
        let before = previous.map(|previous| previous.set.load_full());
        let before = before.as_deref().unwrap_or(&none);
        let set = HostSet::new(&view.load(), &policy, shared.place(), before, &shared, now);
        for host in before.hosts.iter().filter(|host| set.by_tag(host.tag).is_some()) {
            host.state.removed.store(false, Ordering::Relaxed);
            if policy.outlier.is_none() {
                // Nobody would let it back in.
                host.state.ejected.store(false, Ordering::Relaxed);
            }
        }
        let limits = &policy.limits;
        let breakers = Breakers::new(limits.connections, limits.pending, limits.requests, limits.retries);
        Arc::new(Self {
            id: shared.next_id(),
            ledger: Ledger::new(policy.name.clone(), breakers),
            set: ArcSwap::from_pointee(set),
            generation: AtomicU64::new(1),
            budget: policy.retry_budget.as_ref().map(RetryBudget::of),
            changing: Mutex::default(),
            next_sweep_ms: AtomicU64::new(0),
            policy,
            view,
            shared,
        })
    }

    /// `outbound|<port>|<subset>|<hostname>`
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.policy.name
    }

    /// How its endpoints are called.
    #[must_use]
    pub fn policy(&self) -> &BackendPolicy {
        &self.policy
    }

    /// Whether its endpoints are called with HTTP/2.
    #[must_use]
    pub fn speaks_http2(&self, client_http2: bool) -> bool {
        match self.policy.http {
            Http::One => false,
            Http::Two => true,
            Http::AsClient => client_http2,
        }
    }

    /// Whether its endpoints are picked by a table of hashes, which takes time to make.
    #[must_use]
    pub fn is_hashing(&self) -> bool {
        matches!(self.policy.algorithm, Algorithm::Ring(_) | Algorithm::Maglev(_))
    }

    /// Takes over changes of the endpoints now, rather than with the next request.
    pub fn follow(&self) {
        self.check(self.shared.now());
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.ledger.stats
    }

    /// Its endpoints now, for display.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.set.load().hosts.clone()
    }

    /// Gauges, for display: name and value.
    #[must_use]
    pub fn gauges(&self) -> Vec<(&'static str, u64)> {
        let set = self.set.load();
        let count = |test: fn(&Host) -> bool| set.hosts.iter().filter(|host| test(host)).count() as u64;
        let Breakers { connections, pending, requests, retries } = &*self.ledger.breakers;
        vec![
            ("upstream_cx_active", u64::from(connections.used())),
            ("upstream_rq_active", u64::from(requests.used())),
            ("upstream_rq_pending_active", u64::from(pending.used())),
            ("membership_total", set.hosts.len() as u64),
            ("membership_healthy", count(|host| host.endpoint().healthy && !host.is_ejected())),
            ("outlier_detection_ejections_active", count(Host::is_ejected)),
            ("circuit_breakers_default_cx_open", u64::from(connections.is_open())),
            ("circuit_breakers_default_rq_open", u64::from(requests.is_open())),
            ("circuit_breakers_default_rq_pending_open", u64::from(pending.is_open())),
            ("circuit_breakers_default_rq_retry_open", u64::from(retries.is_open())),
        ]
    }

    /// What a request is hashed to, where the policy hashes.
    #[must_use]
    pub fn hash(&self, input: &HashInput<'_>) -> HashChoice {
        self.policy.hash.as_ref().map(|source| source.choose(input)).unwrap_or_default()
    }

    /// Counts a retry until the permit is dropped. `None`: the breaker or the budget does not allow it.
    #[must_use]
    pub fn try_retry(&self) -> Option<Permit> {
        let Breakers { requests, pending, .. } = &*self.ledger.breakers;
        let busy = requests.used().saturating_add(pending.used());
        let allowed = |running| match &self.budget {
            Some(budget) => budget.allows(running, busy, self.shared.now()),
            None => true,
        };
        let permit = self.ledger.breakers.retry(allowed);
        match permit {
            Some(_) => self.ledger.stats.rq_retry.add(),
            None => self.ledger.stats.rq_retry_overflow.add(),
        }
        permit
    }

    /// Holds it against an endpoint that a caller gave up waiting for it.
    pub fn timed_out(&self, picked: &Picked) {
        self.ledger.stats.rq_timeout.add();
        self.outcome(picked.host(), Outcome::LocalFailure);
    }

    /// Whether this is for the same endpoints.
    pub(super) fn is_of(&self, policy: &BackendPolicy, view: &Arc<ServiceView>) -> bool {
        Arc::ptr_eq(&self.view, view) && self.policy.subset == policy.subset
    }

    pub(super) fn began(&self, now: Duration) {
        if let Some(budget) = &self.budget {
            budget.request(now);
        }
    }

    /// Takes over changes of the endpoints and of time. Cheap when there are none. Returns the generation.
    pub(super) fn check(&self, now: Duration) -> u64 {
        let version = self.view.load().version;
        if version != self.set.load().version {
            self.rearrange(now);
        }
        if self.policy.outlier.is_some() && millis(now) >= self.next_sweep_ms.load(Ordering::Relaxed) {
            self.sweep(now);
        }
        self.generation.load(Ordering::Acquire)
    }

    /// Where the proxy runs may become known late. Not for every request.
    pub(super) fn check_place(&self, now: Duration) {
        if !Arc::ptr_eq(&self.set.load().place, &self.shared.place()) {
            self.rearrange(now);
        }
    }

    pub(super) fn set(&self) -> Arc<HostSet> {
        self.set.load_full()
    }

    /// Another worker that is at it already does it for all: until it is done, requests go to the endpoints from before. Where
    /// there were none they wait for it.
    fn rearrange(&self, now: Duration) {
        let _changing = match self.changing.try_lock() {
            Ok(changing) => changing,
            Err(_) if !self.set.load().hosts.is_empty() => return,
            Err(_) => self.changing.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let before = self.set.load_full();
        let set = self.view.load();
        if before.version == set.version && Arc::ptr_eq(&before.place, &self.shared.place()) {
            return;
        }
        let next = HostSet::new(&set, &self.policy, self.shared.place(), &before, &self.shared, now);
        // Before as well: who finds the new endpoints must not take what it made of the old ones for theirs.
        self.generation.fetch_add(1, Ordering::Release);
        self.set.store(Arc::new(next));
        self.ledger.stats.membership_change.add();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Takes note of how an attempt ended.
    pub(super) fn outcome(&self, host: &Host, outcome: Outcome) {
        let Some(policy) = &self.policy.outlier else { return };
        if let Some(cause) = host.state.streaks.count(outcome, policy)
            && !host.is_ejected()
        {
            self.eject(host, cause);
        }
    }

    fn eject(&self, host: &Host, cause: Cause) {
        let Some(policy) = &self.policy.outlier else { return };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if host.is_ejected() {
            // Another worker was faster: that was the same failure.
            return;
        }
        let set = self.set.load();
        let ejected = set.hosts.iter().filter(|host| host.is_ejected()).count();
        if !policy.allows(ejected, set.hosts.len()) {
            self.ledger.stats.ejections_overflow.add();
            return;
        }
        let now = self.shared.now();
        let mut ejections = host.state.ejections.lock().unwrap_or_else(PoisonError::into_inner);
        ejections.eject(now, policy);
        host.state.ejected.store(true, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
        self.ledger.stats.ejections.add();
        match cause {
            Cause::Consecutive5xx => self.ledger.stats.ejections_5xx.add(),
            Cause::ConsecutiveGateway => self.ledger.stats.ejections_gateway.add(),
            Cause::ConsecutiveLocal => self.ledger.stats.ejections_local.add(),
        }
        self.tell("eject", cause.name(), host, ejections.count);
    }

    fn sweep(&self, now: Duration) {
        let Some(policy) = &self.policy.outlier else { return };
        let Ok(_changing) = self.changing.try_lock() else { return };
        let first = self.next_sweep_ms.swap(millis(now + policy.interval), Ordering::Relaxed) == 0;
        if first {
            return;
        }
        for host in &self.set.load().hosts {
            let mut ejections = host.state.ejections.lock().unwrap_or_else(PoisonError::into_inner);
            if ejections.sweep(now, policy) {
                host.state.streaks.clear();
                host.state.ejected.store(false, Ordering::Relaxed);
                self.generation.fetch_add(1, Ordering::Release);
                self.tell("uneject", "", host, ejections.count);
            }
        }
    }

    fn tell(&self, action: &'static str, cause: &'static str, host: &Host, count: u32) {
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        tracing::info!(
            target: "outlier",
            action,
            r#type = cause,
            cluster_name = %self.policy.name,
            upstream_url = %host.address(),
            num_ejections = count,
            enforced = true,
            timestamp,
            "outlier detection"
        );
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.policy.name).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use mesh_wire::l7;

    use crate::upstream::host::testing::{backend, endpoints, publish, shared, view};

    #[tokio::test]
    async fn the_first_endpoints_are_there_for_all_workers_at_once() {
        const WORKERS: usize = 4;
        for _ in 0..50 {
            let view = view(Vec::new());
            let cluster = shared().cluster(&backend(l7::TrafficPolicy::default()), view.clone()).unwrap();
            publish(&view, endpoints(200));
            let together = Barrier::new(WORKERS);
            let sees = || {
                together.wait();
                let generation = cluster.check(cluster.shared.now());
                (generation, cluster.set().hosts.len())
            };
            let seen: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(sees)).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).collect()
            });
            assert!(seen.iter().all(|(generation, hosts)| *generation > 1 && *hosts == 200), "{seen:?}");
        }
    }
}
