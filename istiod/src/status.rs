//! Writes what became of objects into their status, and an Event where something is refused.
//!
//! Only the leader writes. Whoever becomes leader looks at everything once: what differs is written, and conditions of ours
//! that nobody wants any more are taken away, except where the object is not ours to judge: it names another revision, or
//! lies in a namespace that is not looked at, and then another control plane may speak there. Conditions are applied under
//! the field managers of the reference, so that each of them owns only its own.

mod apply;
mod feed;
mod merge;
mod queue;
mod refusal;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use mesh_core::drain::DrainWatch;
use tokio::sync::watch;

use crate::lead;
use crate::source::{convert, resource};
use crate::translate::{Model, ObjectStatus, StatusTarget};
use crate::world::Kind;
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
            if !lead::becomes(true, &mut leading, &mut drain).await {
                return;
            }
            // What we do not write any more is given up at once: another may lead.
            tokio::select! {
                goes_on = lead::becomes(false, &mut leading, &mut drain) => if !goes_on { return },
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

    /// Whether it is for us to say something of an object, and to take it back.
    fn judges(&self, kind: Kind, object: &DynamicObject) -> bool {
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        let world = model.world();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let other = convert::other_revision(kind, object, &world.settings().revision);
        (namespace.is_empty() || world.visible(namespace)) && other.is_none_or(|named| world.is_own_revision(named))
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
        let api: Api<DynamicObject> = match &*target.key.namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        if merge::applies_to(target.kind) {
            return self.merge(target, wanted, &api, &resource).await;
        }
        let object = api.get(&target.key.name).await?;
        if is_current(target, wanted, &object) || (wanted.is_none() && !self.judges(target.kind, &object)) {
            return Ok(());
        }
        let live = apply::live(&object);
        let patch = apply::patch(target, &resource, wanted, &live, Timestamp::now());
        let params = PatchParams::apply(target.manager).force();
        api.patch_status(&target.key.name, &params, &Patch::Apply(&patch)).await?;
        if let Some(wanted) = wanted {
            self.refusals.tell(&object, &resource, wanted, &live).await;
        }
        Ok(())
    }

    /// Replaces what differs, over the object that was read: where another controller was faster, its status is read again.
    async fn merge(
        &self,
        target: &StatusTarget,
        wanted: Option<&ObjectStatus>,
        api: &Api<DynamicObject>,
        resource: &ApiResource,
    ) -> Result<(), kube::Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let object = api.get(&target.key.name).await?;
            if wanted.is_none() && !self.judges(target.kind, &object) {
                return Ok(());
            }
            let live = status_of(&object);
            let Some(status) = merge::merged(target, wanted, live, Timestamp::now()) else { return Ok(()) };
            let patch = merge::patch(object.metadata.resource_version.as_deref(), status);
            let params = PatchParams { field_manager: Some(target.manager.to_owned()), ..PatchParams::default() };
            match api.patch_status(&target.key.name, &params, &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < CONFLICTS_MAX => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    if let Some(wanted) = wanted {
                        self.refusals.tell(&object, resource, wanted, &merge::all_conditions(live)).await;
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the object says what it should, as far as this field manager goes.
fn is_current(target: &StatusTarget, wanted: Option<&ObjectStatus>, object: &DynamicObject) -> bool {
    if merge::applies_to(target.kind) {
        return merge::merged(target, wanted, status_of(object), Timestamp::UNIX_EPOCH).is_none();
    }
    apply::is_current(target, wanted, &apply::live(object)) && !apply::owns_other(target, object)
}

fn status_of(object: &DynamicObject) -> &serde_json::Value {
    object.data.get("status").unwrap_or(&serde_json::Value::Null)
}

/// Attempts to be faster than others, before the write counts as failed.
const CONFLICTS_MAX: u32 = 3;
