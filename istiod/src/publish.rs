//! From changes to pushes: bursts are gathered, the model recomputes, the hub tells the proxies.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use mesh_core::names::NamespacedName;
use mesh_telemetry::ready::Task;
use mesh_wire::type_url;
use mesh_xds::server::{Backing, Hub, Resource, TypeSpec};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::status::Feed;
use crate::translate::Model;
use crate::world::{Change, Kind, RemoteChange};

/// The types that proxies ask for. Policies come before, and leave after, the workloads that name them.
pub const TYPES: [TypeSpec; 4] = [
    TypeSpec { url: type_url::AUTHORIZATION, backing: Backing::Own, after: None },
    TypeSpec { url: type_url::ADDRESS, backing: Backing::Own, after: Some(type_url::AUTHORIZATION) },
    TypeSpec {
        url: type_url::WORKLOAD,
        backing: Backing::View { of: type_url::ADDRESS, project: inner_workload },
        after: Some(type_url::AUTHORIZATION),
    },
    // What it names are services: those come before.
    TypeSpec { url: type_url::L7, backing: Backing::Own, after: None },
];

/// When gathered changes are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// Quiet time that ends a burst.
    pub after: Duration,
    /// Longest wait, however busy it is.
    pub max: Duration,
    /// Whether changes of nothing but endpoints wait too.
    pub endpoints: bool,
}

impl Debounce {
    /// The quiet time that a batch of this size waits for. A few lone changes need not wait for a burst that does not
    /// come: a policy reaches its proxies within milliseconds, fifty pods that start together still are one push.
    fn quiet(self, changes: usize, reasons: &BTreeSet<&'static str>) -> Duration {
        if !self.endpoints && reasons.iter().all(|reason| *reason == ENDPOINT) {
            return Duration::ZERO;
        }
        if changes <= FEW { self.after / EAGER_FRACTION } else { self.after }
    }
}

/// Owns the write side of the model.
#[derive(Debug)]
pub struct Publisher {
    /// Shared with readers: the authority, debugging.
    pub model: Arc<RwLock<Model>>,
    /// Tells the proxies.
    pub hub: Arc<Hub>,
    /// What sources tell.
    pub changes: mpsc::Receiver<Change>,
    /// Kinds that must be complete before anything is published.
    pub awaited: BTreeSet<Kind>,
    /// Whether other clusters are awaited too.
    pub awaits_clusters: bool,
    /// Done with the first publication.
    pub ready: Option<Task>,
    /// When to publish.
    pub debounce: Debounce,
    /// Which statuses became different.
    pub statuses: Arc<Feed>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Number of publications.
    pub published: u64,
    /// Told after the model was recomputed.
    pub publications: watch::Sender<()>,
    /// Told after the model has taken changes: whether everything is known but what others name.
    pub progress: watch::Sender<bool>,
    /// What the changes since the last publication were about.
    pub reasons: BTreeSet<&'static str>,
    /// Proxies were told promises that hold no longer.
    pub renew: bool,
    /// Which ConfigMaps and Secrets backends needed at the last publication.
    pub named: u64,
}

impl Publisher {
    /// Runs until every source is gone.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.changes.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let first = Instant::now();
            let (mut size, mut dirty) = self.apply(&mut batch);
            // Heartbeats of nodes and statuses of pods come all the time and mostly touch nothing.
            if !self.awaited.is_empty() || self.awaits_clusters || (dirty == 0 && self.ready.is_none() && !self.renew) {
                continue;
            }
            let mut due = first + self.debounce.quiet(size, &self.reasons);
            let last = first + self.debounce.max;
            while Instant::now() < due.min(last) {
                match tokio::time::timeout_at(due.min(last), self.changes.recv_many(&mut batch, BATCH_MAX)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {
                        let (more, now_dirty) = self.apply(&mut batch);
                        if now_dirty > dirty {
                            (size, dirty) = (size + more, now_dirty);
                            due = Instant::now() + self.debounce.quiet(size, &self.reasons);
                        }
                    }
                }
            }
            self.metrics.debounced(first.elapsed());
            self.publish(first);
        }
    }

    /// Applies a batch. Tells how many changes touched something, and how many resources are now to be recomputed.
    fn apply(&mut self, batch: &mut Vec<Change>) -> (usize, usize) {
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let (mut touching, mut dirty) = (0, model.dirtiness());
        for change in batch.drain(..) {
            self.metrics.inbound(inbound(&change));
            let reason = reason(&change);
            match &change {
                Change::Settings(settings) if settings.promises != model.world().settings().promises => {
                    tracing::info!(promises = ?settings.promises, "promises have changed");
                    self.renew = true;
                }
                Change::Synced(kind) => {
                    self.awaited.remove(kind);
                }
                Change::Remote(_, change) if matches!(**change, RemoteChange::Settled) => self.awaits_clusters = false,
                // Whose it is decides the model.
                Change::Tagged { .. } => {}
                Change::Broken { kind, key, reason, stand_in, .. } => {
                    self.metrics.unreadable(*kind);
                    tell_broken(*kind, key, reason, stand_in.is_some());
                }
                Change::Partial { object, reason } => {
                    let kind = object.kind();
                    self.metrics.unreadable(kind);
                    tracing::warn!(kind = kind.name(), object = %object.key(), reason, "object is enforced without what cannot be read");
                }
                _ => {}
            }
            model.apply(change);
            let before = std::mem::replace(&mut dirty, model.dirtiness());
            if dirty > before {
                touching += 1;
                self.reasons.insert(reason);
            }
        }
        let known = self.awaited.iter().all(|kind| Kind::REFERENCED.contains(kind));
        self.progress.send_if_modified(|now| std::mem::replace(now, known) != known || touching > 0);
        (touching, dirty)
    }

    fn publish(&mut self, first: Instant) {
        let started = Instant::now();
        let named;
        let (recomputed, delta, services) = {
            let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
            let told = (model.dirtiness(), model.flush(), model.world().service_count());
            self.metrics.layer7(model.layer7().resources().len(), model.layer7().computed());
            named = model.layer7().material_epoch();
            told
        };
        self.metrics.recomputed(recomputed);
        self.metrics.computed(started.elapsed());
        self.metrics.services(services);
        let reasons = std::mem::take(&mut self.reasons);
        if !delta.changes.is_empty() {
            self.published += 1;
            let version = format!("{}/{}", jiff::Timestamp::now().strftime("%FT%TZ"), self.published);
            tracing::debug!(version, resources = delta.changes.len(), "publishing");
            self.metrics.triggered(reasons);
            self.hub.publish_since(version.into(), &delta.changes, first);
        }
        if std::mem::take(&mut self.renew) {
            self.hub.renew();
        }
        if std::mem::replace(&mut self.named, named) != named {
            // Other ConfigMaps and Secrets are needed.
            self.progress.send_modify(|_| {});
        }
        self.publications.send_replace(());
        if !delta.statuses.is_empty() {
            self.statuses.add(delta.statuses.into_iter().map(|(target, _)| target));
        }
        if let Some(ready) = self.ready.take() {
            tracing::info!(services, "the cluster is read, accepting proxies");
            self.hub.set_ready(true);
            self.statuses.complete();
            ready.done();
        }
    }
}

/// What a change is about, in the words of the reference.
fn reason(change: &Change) -> &'static str {
    match change {
        Change::Settings(_) => "global",
        _ => match inbound(change) {
            "eds" => ENDPOINT,
            "svc" | "svcdelete" => "service",
            _ => "config",
        },
    }
}

fn inbound(change: &Change) -> &'static str {
    let kind = match change {
        Change::Upsert(object) | Change::Partial { object, .. } => object.kind(),
        Change::Delete(Kind::Service, _) => return "svcdelete",
        Change::Delete(kind, _) | Change::Retain(kind, _) | Change::Broken { kind, .. } => *kind,
        Change::Tagged { change, .. } => return inbound(change),
        _ => return "config",
    };
    match kind {
        Kind::Service => "svc",
        Kind::Pod | Kind::Slice => "eds",
        _ => "config",
    }
}

fn tell_broken(kind: Kind, object: &NamespacedName, reason: &str, stands_in: bool) {
    let kind_name = kind.name();
    match kind {
        Kind::Authorization | Kind::Peer if stands_in => tracing::warn!(
            kind = kind_name, %object, reason,
            "policy cannot be read; its last readable version stays, or without one its scope is closed"
        ),
        Kind::Authorization | Kind::Peer => tracing::error!(
            kind = kind_name, %object, reason,
            "policy cannot be read, nor what it applies to; without a last readable version nothing of it is enforced"
        ),
        _ => tracing::warn!(kind = kind_name, %object, reason, "object cannot be read and is left as it was"),
    }
}

/// The workload inside an Address, for clients that ask for workloads only.
///
/// An Address holds exactly one field: a key byte, a length, and the workload or service.
fn inner_workload(resource: &Resource) -> Option<Bytes> {
    let mut body = resource.body.clone();
    if resource.is_group {
        return None;
    }
    let (_, _) = prost::encoding::decode_key(&mut body).ok()?;
    let length = prost::encoding::decode_varint(&mut body).ok()?;
    (u64::try_from(body.len()).ok()? == length).then_some(body)
}

/// Changes of pods and slices.
const ENDPOINT: &str = "endpoint";
/// Changes that are taken from the queue at once.
const BATCH_MAX: usize = 512;
/// Up to this many changes count as lone ones.
const FEW: usize = 8;
/// Lone changes wait for this part of the quiet time.
const EAGER_FRACTION: u32 = 10;
