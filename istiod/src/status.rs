//! Writes what became of objects into their status, and an Event where something is refused.
//!
//! Only the leader writes. Whoever becomes leader looks at everything once: what differs is written, and conditions of ours
//! that nobody wants any more are taken away. Conditions are applied under the field managers of the reference, so that
//! each of them owns only its own.

mod apply;
mod feed;
mod queue;
mod refusal;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use mesh_core::drain::DrainWatch;
use tokio::sync::watch;

use crate::source::resource;
use crate::translate::{Model, ObjectStatus, StatusTarget};
pub use feed::Feed;
use queue::Queue;
use refusal::Refusals;

/// The writer.
pub struct StatusWriter {
    /// The API server.
    pub client: Client,
    /// What statuses should say.
    pub model: Arc<RwLock<Model>>,
    /// Which of them became different.
    pub feed: Arc<Feed>,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
    /// Own name, for Events.
    pub name: String,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl StatusWriter {
    /// Runs until the drain starts.
    pub async fn run(self, mut drain: DrainWatch) {
        let mut leading = self.leading.clone();
        let writer = Writer {
            refusals: Refusals::new(self.client.clone(), self.name.clone()),
            client: self.client,
            model: self.model,
        };
        loop {
            let gained = async { leading.wait_for(|leading| *leading).await.is_ok() };
            tokio::select! {
                _ = drain.signaled() => return,
                gained = gained => if !gained { return },
            }
            // What we do not write any more is given up at once: another may lead.
            let lost = async { leading.wait_for(|leading| !*leading).await.is_ok() };
            tokio::select! {
                _ = drain.signaled() => return,
                lost = lost => if !lost { return },
                () = Queue::new(&writer, &self.feed).run() => {}
            }
        }
    }
}

/// Writes single statuses.
struct Writer {
    client: Client,
    model: Arc<RwLock<Model>>,
    refusals: Refusals,
}

impl Writer {
    /// What the status should say now.
    fn wanted(&self, target: &StatusTarget) -> Option<Arc<ObjectStatus>> {
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        model.statuses().get(target).cloned()
    }

    /// Makes the status say this. The object may be gone, which is fine.
    async fn write(&self, target: &StatusTarget, wanted: Option<&ObjectStatus>) -> Result<(), kube::Error> {
        match self.apply(target, wanted).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result,
        }
    }

    async fn apply(&self, target: &StatusTarget, wanted: Option<&ObjectStatus>) -> Result<(), kube::Error> {
        let resource = resource(target.kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &target.key.namespace, &resource);
        let object = api.get(&target.key.name).await?;
        let live = apply::live(&object);
        if apply::is_current(target, wanted, &live) && !apply::owns_other(target, &object) {
            return Ok(());
        }
        let patch = apply::patch(target, &resource, wanted, &live, Timestamp::now());
        let params = PatchParams::apply(target.manager).force();
        api.patch_status(&target.key.name, &params, &Patch::Apply(&patch)).await?;
        if let Some(wanted) = wanted {
            self.refusals.tell(&object, &resource, wanted, &live).await;
        }
        Ok(())
    }
}
