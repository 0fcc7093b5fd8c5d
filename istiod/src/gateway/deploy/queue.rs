//! Gateways that are to be looked at: some at a time, each tried again a few times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use mesh_core::names::NamespacedName;
use tokio::time::Instant;

use super::apply::{Applier, ApplyError};
use crate::translate::plan::Deployment;
use crate::wait::until;

/// What is waiting and what runs.
pub(super) struct Queue {
    applier: Arc<Applier>,
    waiting: BTreeSet<NamespacedName>,
    running: FuturesUnordered<BoxFuture<'static, (NamespacedName, Result<(), ApplyError>)>>,
    busy: BTreeSet<NamespacedName>,
    /// Failed attempts.
    failures: BTreeMap<NamespacedName, u32>,
    /// When to try again.
    later: BTreeSet<(Instant, NamespacedName)>,
}

impl Queue {
    pub(super) fn new(applier: Arc<Applier>) -> Self {
        Self {
            applier,
            waiting: BTreeSet::new(),
            running: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            failures: BTreeMap::new(),
            later: BTreeSet::new(),
        }
    }

    /// These are to be looked at.
    pub(super) fn add(&mut self, gateways: impl IntoIterator<Item = NamespacedName>) {
        for gateway in gateways {
            // Something is new: it counts as the first attempt.
            self.failures.remove(&gateway);
            self.waiting.insert(gateway);
        }
    }

    /// Starts as many as there is room for.
    pub(super) fn start(&mut self, deployments: &BTreeMap<NamespacedName, Arc<Deployment>>) {
        while self.running.len() < APPLIED_AT_ONCE_MAX
            && let Some(gateway) = self.waiting.iter().find(|one| !self.busy.contains(*one)).cloned()
        {
            self.waiting.remove(&gateway);
            let Some(deployment) = deployments.get(&gateway).cloned() else { continue };
            self.busy.insert(gateway.clone());
            let applier = self.applier.clone();
            self.running.push(Box::pin(async move {
                let outcome = tokio::time::timeout(ATTEMPT_MAX, applier.apply(&deployment)).await;
                (gateway, outcome.unwrap_or(Err(ApplyError::Late)))
            }));
        }
    }

    /// Waits until one is done, or due again.
    pub(super) async fn step(&mut self) {
        let due = self.later.first().map(|(at, _)| *at);
        tokio::select! {
            Some((gateway, result)) = self.running.next(), if !self.running.is_empty() => self.done(gateway, result),
            () = until(due) => {
                let now = Instant::now();
                while let Some((at, gateway)) = self.later.pop_first() {
                    if at > now {
                        self.later.insert((at, gateway));
                        break;
                    }
                    self.waiting.insert(gateway);
                }
            }
        }
    }

    fn done(&mut self, gateway: NamespacedName, result: Result<(), ApplyError>) {
        self.busy.remove(&gateway);
        let Err(error) = result else {
            self.failures.remove(&gateway);
            return;
        };
        let failures = self.failures.entry(gateway.clone()).or_default();
        *failures += 1;
        let failures = *failures;
        if failures >= ATTEMPTS_MAX {
            tracing::error!(%gateway, %error, failures, "gateway not deployed, given up until something changes");
            self.failures.remove(&gateway);
            return;
        }
        tracing::warn!(%gateway, %error, failures, "gateway not deployed, trying again");
        self.later.insert((Instant::now() + RETRY * 2u32.pow(failures - 1), gateway));
    }
}

/// Gateways that are applied at the same time: an API server has others to serve.
const APPLIED_AT_ONCE_MAX: usize = 4;
/// Longest attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// Attempts, before a Gateway waits for its next change.
const ATTEMPTS_MAX: u32 = 5;
/// After the first failure; doubles with each.
const RETRY: Duration = Duration::from_millis(500);
