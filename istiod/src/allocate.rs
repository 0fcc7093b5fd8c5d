//! Addresses for hostnames of ServiceEntries that were given none, so that their traffic can be told apart.
//!
//! The leader allocates: [`plan`] decides, this file writes. What is in use is read from all ServiceEntries before anything
//! is allocated, and an address that was given once stays.

mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use mesh_core::drain::DrainWatch;
use mesh_core::names::NamespacedName;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::source::{convert, resource};
use crate::translate::Model;
use crate::world::{Change, Kind, Object};
pub use plan::Pools;
use plan::{Allocation, Planner};

/// The writer of `status.addresses`.
pub struct Allocator {
    /// The API server.
    pub client: Client,
    /// What is known of ServiceEntries.
    pub model: Arc<RwLock<Model>>,
    /// Told after the model was recomputed; the first time when everything is known.
    pub publications: watch::Receiver<()>,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
    /// Where addresses come from.
    pub pools: Pools,
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocator").field("pools", &self.pools).finish_non_exhaustive()
    }
}

impl Allocator {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut planner = Planner::new(self.pools);
        let mut planned = None;
        // Nothing is allocated before all that is in use is known.
        tokio::select! {
            _ = drain.signaled() => return,
            known = self.publications.changed() => if known.is_err() { return },
        }
        let mut due = None;
        loop {
            if *self.leading.borrow_and_update() {
                if due.is_some_and(|due| due <= Instant::now()) {
                    (planned, due) = (None, None);
                }
                let mut leading = self.leading.clone();
                let failed = tokio::select! {
                    biased;
                    _ = drain.signaled() => return,
                    // The next leader starts from what is written: what is under way here must not come after that.
                    _ = leading.wait_for(|leading| !*leading) => continue,
                    failed = self.round(&mut planner, &mut planned) => failed,
                };
                due = due.or(failed.then(|| Instant::now() + RETRY));
            } else {
                // Another allocates meanwhile: on gaining the lead everything is looked at again.
                (planner, planned, due) = (Planner::new(self.pools), None, None);
            }
            tokio::select! {
                _ = drain.signaled() => return,
                changed = self.leading.changed() => if changed.is_err() { return },
                changed = self.publications.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + IDLE)) => {}
            }
        }
    }

    /// Allocates for what changed, and tells whether something has to be tried again. `planned` is the state of
    /// ServiceEntries that was looked at last.
    async fn round(&self, planner: &mut Planner, planned: &mut Option<u64>) -> bool {
        let allocations = {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
            let revision = Some(model.world().entry_revision());
            if *planned == revision {
                return false;
            }
            *planned = revision;
            planner.plan(model.world())
        };
        let writes = allocations.into_iter().map(|(key, allocation)| async move {
            let written = self.write(&key, &allocation).await;
            (key, written)
        });
        let written: Vec<_> = futures::stream::iter(writes).buffer_unordered(WRITES_MAX).collect().await;
        let mut failed = false;
        for (key, written) in written {
            let Err(error) = written else { continue };
            planner.forget(&key);
            // Deleted meanwhile: there is nothing to write any more.
            if !matches!(&error, WriteError::Api(kube::Error::Api(status)) if status.code == 404) {
                tracing::warn!(entry = %key, %error, "addresses of a ServiceEntry are not written, trying again");
                failed = true;
            }
        }
        failed
    }

    async fn write(&self, key: &NamespacedName, allocation: &Allocation) -> Result<(), WriteError> {
        if !*self.leading.borrow() {
            return Err(WriteError::NotLeading);
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource(Kind::ServiceEntry));
        let live = api.get(&key.name).await?;
        if !is_as_planned(&live, allocation) {
            return Err(WriteError::Changed);
        }
        if !*self.leading.borrow() {
            return Err(WriteError::NotLeading);
        }
        let params = PatchParams::default();
        let patched = match patch(&live, allocation) {
            Write::Guarded(operations) => {
                let operations = serde_json::from_value(operations).map_err(|_| WriteError::Changed)?;
                api.patch_status(&key.name, &params, &Patch::Json::<Value>(operations)).await
            }
            Write::Plain(status) => api.patch_status(&key.name, &params, &Patch::Merge(&status)).await,
        };
        patched?;
        tracing::info!(entry = %key, addresses = allocation.new.len(), "addresses of a ServiceEntry allocated");
        Ok(())
    }
}

/// Why addresses were not written. Every one is tried again.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// Another replica leads now.
    #[error("another replica leads")]
    NotLeading,
    /// It is not what the plan was made for; the change is about to be told.
    #[error("the object changed meanwhile")]
    Changed,
    /// The API server refused, or could not be asked.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Whether the live object is what the plan was made for.
fn is_as_planned(live: &DynamicObject, allocation: &Allocation) -> bool {
    match convert::change(Kind::ServiceEntry, live.clone(), "") {
        Change::Upsert(Object::ServiceEntry(entry)) | Change::Partial { object: Object::ServiceEntry(entry), .. } => {
            entry.generation == allocation.generation
                && entry.uid == allocation.uid
                && entry.auto_addresses == allocation.old
        }
        _ => false,
    }
}

/// A patch of the status.
#[derive(Debug, PartialEq)]
enum Write {
    /// JSON patch that tests what was there.
    Guarded(Value),
    /// Merge patch, for an object without addresses; guarded by its version.
    Plain(Value),
}

fn patch(live: &DynamicObject, allocation: &Allocation) -> Write {
    let addresses: Vec<_> =
        allocation.new.iter().map(|(host, ip)| json!({"value": ip.to_string(), "host": &**host})).collect();
    match live.data.pointer("/status/addresses") {
        Some(previous) => Write::Guarded(json!([
            {"op": "test", "path": "/status/addresses", "value": previous},
            {"op": "replace", "path": "/status/addresses", "value": addresses},
        ])),
        None => Write::Plain(json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "status": {"addresses": addresses},
        })),
    }
}

/// Allocations by the ServiceEntry that they are for.
type Allocations = BTreeMap<NamespacedName, Allocation>;

/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Otherwise changes wake us; this only bounds the wait.
const IDLE: Duration = Duration::from_secs(3600);
/// Objects written at the same time.
const WRITES_MAX: usize = 8;

#[cfg(test)]
mod tests;
