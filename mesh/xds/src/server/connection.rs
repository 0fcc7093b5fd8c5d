//! One connected client as the hub sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

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
    /// Names that changed since the client was last sent something, by type index. Merged: at most one entry a name.
    pending: Mutex<BTreeMap<usize, BTreeMap<Arc<str>, Before>>>,
    /// Wakes the stream.
    pub(super) wake: Notify,
    /// The client fell too far behind and is to be cut.
    lagging: AtomicBool,
    status: Mutex<ConnectionStatus>,
}

/// A connected client, for debugging.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    /// Number of the stream.
    pub id: u64,
    /// `node.id`, once told.
    pub node: String,
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
    /// Number of names subscribed otherwise.
    pub names: usize,
    /// Nonce of the last response.
    pub nonce_sent: String,
    /// Nonce that the client accepted last.
    pub nonce_acked: String,
    /// Why the client refused the last response, if it did.
    pub last_error: Option<String>,
}

impl Connection {
    pub(super) fn new(id: u64, peer: String, now: SystemTime) -> Self {
        let status = ConnectionStatus { id, node: String::new(), peer, connected_at: now, types: Vec::new() };
        Self {
            pending: Mutex::default(),
            wake: Notify::new(),
            lagging: AtomicBool::new(false),
            status: Mutex::new(status),
        }
    }

    /// Adds changed names and wakes the stream. Beyond `limit` names the client is cut instead.
    pub(super) fn mark(&self, type_index: usize, names: impl Iterator<Item = (Arc<str>, Before)>, limit: usize) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = pending.entry(type_index).or_default();
        for (name, before) in names {
            // The first counts: the client has not been sent what came in between.
            entry.entry(name).or_insert(before);
        }
        if entry.len() > limit {
            entry.clear();
            self.lagging.store(true, Ordering::Relaxed);
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// Takes everything that is pending.
    pub(super) fn take(&self) -> BTreeMap<usize, BTreeMap<Arc<str>, Before>> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the client must be cut because it does not keep up.
    pub(super) fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> ConnectionStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_node(&self, node: &str) {
        node.clone_into(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner).node);
    }

    /// Refreshes what debugging shows.
    pub(super) fn set_types(&self, session: &Session, url: impl Fn(usize) -> &'static str) {
        let types = session.watches().map(|(index, watch)| TypeStatus {
            type_url: url(index),
            wildcard: watch.wildcard,
            names: watch.names.len(),
            nonce_sent: watch.nonce_sent.clone(),
            nonce_acked: watch.nonce_acked.clone(),
            last_error: watch.last_error.clone(),
        });
        let types = types.collect();
        self.status.lock().unwrap_or_else(PoisonError::into_inner).types = types;
    }
}
