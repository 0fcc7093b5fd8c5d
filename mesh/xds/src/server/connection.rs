//! One connected client as the hub sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::session::Session;

/// What was published under a name before it changed: what a client holds that was sent everything until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Absent,
    /// Something that has an effect by itself.
    Effective,
    /// Something that has an effect only where others name it.
    Referenced,
}

/// What the hub and the stream of a client share.
#[derive(Debug)]
pub(super) struct Connection {
    /// What changed since the client was last sent something.
    pending: Mutex<Pending>,
    /// Wakes the stream.
    pub(super) wake: Notify,
    /// The client fell too far behind and is to be cut.
    lagging: AtomicBool,
    /// The client was told settings that have changed meanwhile: it has to come again.
    outdated: AtomicBool,
    /// The client was told settings when it came.
    pub(super) greeted: bool,
    status: Mutex<ConnectionStatus>,
    /// What it subscribes to. Locked by the stream while it works on an event, before any lock of the hub.
    session: Mutex<Session>,
}

/// Changes that a client has not been told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By type index. Merged: at most one entry a name.
    pub(super) names: BTreeMap<usize, BTreeMap<Arc<str>, Before>>,
    /// When the oldest of them was seen.
    pub(super) since: Option<Instant>,
    /// When the oldest of them was put here.
    pub(super) queued: Option<Instant>,
}

/// A connected client, for debugging.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    /// Number of the stream.
    pub id: u64,
    /// `node.id`, once told.
    pub node: String,
    /// Metadata `CLUSTER_ID`, if told.
    pub cluster: String,
    /// Metadata `ISTIO_VERSION`, if told.
    pub version: String,
    /// Address it came from.
    pub peer: String,
    /// When the stream was opened.
    pub connected_at: SystemTime,
    /// Its subscriptions.
    pub types: Vec<TypeStatus>,
}

/// The subscription to one type, for debugging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeStatus {
    /// Type URL.
    pub type_url: &'static str,
    /// Everything of the type.
    pub wildcard: bool,
    /// Number of names that the client asked for.
    pub names: usize,
    /// Number of resources that it was sent because of those.
    pub tracked: usize,
    /// Nonce of the last response.
    pub nonce_sent: String,
    /// Nonce that the client accepted last.
    pub nonce_acked: String,
    /// Why the client refused the last response, if it did.
    pub last_error: Option<String>,
}

impl Connection {
    pub(super) fn new(id: u64, peer: String, greeted: bool, now: SystemTime) -> Self {
        let unknown = String::new;
        let (node, cluster, version) = (unknown(), unknown(), unknown());
        let status = ConnectionStatus { id, node, cluster, version, peer, connected_at: now, types: Vec::new() };
        Self {
            pending: Mutex::default(),
            wake: Notify::new(),
            lagging: AtomicBool::new(false),
            outdated: AtomicBool::new(false),
            greeted,
            status: Mutex::new(status),
            session: Mutex::default(),
        }
    }

    /// Adds changed names and wakes the stream. Beyond `limit` names the client is cut instead.
    pub(super) fn mark(&self, type_index: usize, names: &[(Arc<str>, Before)], limit: usize, since: Instant) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = pending.names.entry(type_index).or_default();
        for (name, before) in names {
            // The first counts: the client has not been sent what came in between.
            entry.entry(name.clone()).or_insert(*before);
        }
        if entry.len() > limit {
            entry.clear();
            self.lagging.store(true, Ordering::Relaxed);
        }
        pending.since = Some(pending.since.map_or(since, |at| at.min(since)));
        pending.queued.get_or_insert_with(Instant::now);
        drop(pending);
        self.wake.notify_one();
    }

    /// Takes everything that is pending.
    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts names back that are told later. The client held something that had an effect.
    pub(super) fn defer(&self, type_index: usize, names: impl Iterator<Item = Arc<str>>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = pending.names.entry(type_index).or_default();
        for name in names {
            entry.insert(name, Before::Effective);
        }
    }

    /// Whether the client must be cut because it does not keep up.
    pub(super) fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    /// Asks the client to come again.
    pub(super) fn outdate(&self) {
        self.outdated.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether the client has to come again.
    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// For debugging. The caller holds no lock of the hub: a stream that works on an event may be waiting for it.
    pub(super) fn status(&self, url: impl Fn(usize) -> &'static str) -> ConnectionStatus {
        let session = self.session();
        let types = session.watches().map(|(index, watch)| TypeStatus {
            type_url: url(index),
            wildcard: watch.wildcard,
            names: watch.explicit.len(),
            tracked: watch.sent.len(),
            nonce_sent: watch.nonce_sent.clone(),
            nonce_acked: watch.nonce_acked.clone(),
            last_error: watch.last_error.clone(),
        });
        let types = types.collect();
        drop(session);
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        ConnectionStatus { types, ..status.clone() }
    }

    /// What it subscribes to.
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_node(&self, node: &str, cluster: String, version: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        node.clone_into(&mut status.node);
        status.cluster = cluster;
        status.version = version;
    }
}
