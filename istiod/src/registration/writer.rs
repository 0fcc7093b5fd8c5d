//! Makes WorkloadEntries say what the registry says.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use mesh_core::drain::DrainWatch;
use mesh_core::names::NamespacedName;
use tokio::time::Instant;

use super::place::{Done, Order, What, version};
use super::registry::Registry;
use super::step::{Step, Want};
use super::{Refusal, entry};
use crate::source::{chain, resource};
use crate::world::{Kind, WorkloadGroup};

/// The writer of one replica: every replica writes about those who are connected to it.
pub struct Writer {
    /// The API server.
    pub client: Client,
    /// Who is connected.
    pub registry: Arc<Registry>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Writer {
    /// Runs until the drain has started and everybody's leaving was told.
    pub async fn run(self, mut drain: DrainWatch) {
        let mut running = FuturesUnordered::new();
        let mut drains = false;
        loop {
            while running.len() < WRITES_MAX
                && let Some(order) = self.registry.take(Instant::now())
            {
                running.push(self.carry_out(order));
            }
            if drains && running.is_empty() && self.registry.is_idle() {
                return;
            }
            let wake = self.registry.next_due().filter(|_| running.len() < WRITES_MAX);
            tokio::select! {
                Some((order, done)) = running.next(), if !running.is_empty() => {
                    self.registry.done(&order, done, Instant::now());
                }
                () = self.registry.changed.notified() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(|| Instant::now() + IDLE)) => {}
                _ = drain.signaled(), if !drains => drains = true,
            }
        }
    }

    async fn carry_out(&self, order: Order) -> (Order, Done) {
        let done = match tokio::time::timeout(WRITE_MAX, self.write(&order)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => self.failed(&order.key, &chain(&error)),
            Err(_) => self.failed(&order.key, "no answer in time"),
        };
        (order, done)
    }

    fn failed(&self, key: &NamespacedName, error: &str) -> Done {
        self.registry.metrics.failed.inc();
        tracing::warn!(entry = %key, error, "entry of a registered workload not written, trying again");
        Done::Failed
    }

    /// Reads the entry, decides, and writes. Whoever was faster is read again.
    async fn write(&self, order: &Order) -> Result<Done, kube::Error> {
        let api = self.api(&order.key);
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(&api, order).await {
                Err(kube::Error::Api(status)) if is_overtaken(status.code) && attempt < CONFLICTS_MAX => {}
                Err(kube::Error::Api(status)) if REFUSED.contains(&status.code) => {
                    tracing::error!(entry = %order.key, reason = status.message, "entry of a registered workload refused");
                    let reason = status.message.chars().take(REASON_CHARS_MAX).collect();
                    return Ok(Done::Refused(Refusal::Rejected { reason }));
                }
                other => return other,
            }
        }
    }

    async fn attempt(&self, api: &Api<DynamicObject>, order: &Order) -> Result<Done, kube::Error> {
        let key = &order.key;
        let live = match api.get_opt(&key.name).await {
            Ok(live) => live,
            // That we may not read it is nothing that the workload could mend.
            Err(error) => return Ok(self.failed(key, &chain(&error))),
        };
        match &order.what {
            What::Connected { claim, since, fresh } => {
                let Some(group) = self.group(&claim.group) else {
                    let gone = self.make(api, key, &Want::Gone { at_once: true }, live).await?;
                    let since = *since;
                    return Ok(if let Made::Refused(refusal) = gone {
                        Done::Refused(refusal)
                    } else {
                        Done::Written { since, group: None }
                    });
                };
                let object = entry::object(claim, &group);
                let want = Want::Connected { object: &object, since: *since, fresh: *fresh };
                match self.make(api, key, &want, live).await? {
                    Made::Refused(refusal) => Ok(Done::Refused(refusal)),
                    Made::NotOurs => Ok(Done::NotOurs),
                    Made::Fine(live, written) => {
                        self.tell_health(api, order, live.as_deref()).await?;
                        let since = written.unwrap_or(*since);
                        Ok(Done::Written { since, group: Some(version(&group)) })
                    }
                }
            }
            What::Left { at, from } => {
                let made = self.make(api, key, &Want::Left { at: *at, from }, live).await?;
                Ok(if matches!(made, Made::Fine(..)) {
                    Done::Written { since: *at, group: None }
                } else {
                    Done::NotOurs
                })
            }
            What::Gone => {
                self.make(api, key, &Want::Gone { at_once: false }, live).await?;
                Ok(Done::NotOurs)
            }
        }
    }

    /// Takes the step that follows.
    async fn make(
        &self,
        api: &Api<DynamicObject>,
        key: &NamespacedName,
        want: &Want<'_>,
        live: Option<DynamicObject>,
    ) -> Result<Made, kube::Error> {
        let metrics = &self.registry.metrics;
        match want.step(key, live.as_ref(), &self.registry.me) {
            Step::Nothing => Ok(Made::Fine(live.map(Box::new), None)),
            Step::NotOurs => Ok(Made::NotOurs),
            Step::Refuse(refusal) => Ok(Made::Refused(refusal)),
            Step::Write { object, create: true, since } => {
                let made = api.create(&params(), &object).await?;
                metrics.registered.inc();
                tracing::info!(entry = %key, "workload registered");
                Ok(Made::Fine(Some(Box::new(made)), Some(since)))
            }
            Step::Write { object, create: false, since } => {
                let made = api.replace(&key.name, &params(), &object).await?;
                let left = matches!(want, Want::Left { .. });
                let counter = if left { &metrics.unregistered } else { &metrics.updated };
                counter.inc();
                tracing::info!(entry = %key, connected = !left, "entry of a registered workload changed");
                Ok(Made::Fine(Some(Box::new(made)), Some(since)))
            }
            Step::Delete => {
                let metadata = live.map(|live| live.metadata).unwrap_or_default();
                let preconditions = Preconditions { uid: metadata.uid, resource_version: metadata.resource_version };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(&key.name, &params).await {
                    Ok(_) => {
                        metrics.deleted.inc();
                        tracing::info!(entry = %key, "entry of a workload that left deleted");
                        Ok(Made::Fine(None, None))
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(Made::NotOurs),
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn tell_health(
        &self,
        api: &Api<DynamicObject>,
        order: &Order,
        live: Option<&DynamicObject>,
    ) -> Result<(), kube::Error> {
        let (Some(health), Some(live)) = (&order.health, live) else { return Ok(()) };
        let Some(patch) = health.patch(&order.key, live, Timestamp::now()) else { return Ok(()) };
        let params = PatchParams::apply(HEALTH_MANAGER).force();
        api.patch_status(&order.key.name, &params, &Patch::Apply(&patch)).await?;
        tracing::info!(entry = %order.key, healthy = health.healthy, "health of a registered workload changed");
        Ok(())
    }

    fn group(&self, key: &NamespacedName) -> Option<Arc<WorkloadGroup>> {
        let model = self.registry.model.read().unwrap_or_else(PoisonError::into_inner);
        model.world().workload_group(key).cloned()
    }

    fn api(&self, key: &NamespacedName) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &key.namespace, &resource(Kind::WorkloadEntry))
    }
}

/// What came of a step.
enum Made {
    /// The entry as it is now, and since when it says that its workload is connected where that was written.
    Fine(Option<Box<DynamicObject>>, Option<Timestamp>),
    NotOurs,
    Refused(Refusal),
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Another was faster: made it, changed it, deleted it.
fn is_overtaken(code: u16) -> bool {
    matches!(code, 404 | 409)
}

/// Field manager of entries.
const MANAGER: &str = "istio-workload-registration";
/// Field manager of the condition that tells of health.
const HEALTH_MANAGER: &str = "istio-workload-health";
/// Entries written at the same time.
const WRITES_MAX: usize = 8;
/// Longest write.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Attempts to be faster than others.
const CONFLICTS_MAX: u32 = 3;
/// Answers that say that trying again is of no use.
const REFUSED: [u16; 3] = [400, 403, 422];
/// What is told of the API server's reason.
const REASON_CHARS_MAX: usize = 256;
/// Otherwise what is due wakes us.
const IDLE: Duration = Duration::from_secs(3600);
