//! What to do with each message of the agent, without I/O.
//!
//! ```text
//! connected --Add/Keep/Del--> snapshot being read --SnapshotSent--> live --Add/Del-->
//!     ^          (names are recorded)                 (the rest stops)            |
//!     +--------------------------- connection lost -----------------------------+
//! ```
//!
//! Pods that run are kept across connections.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mesh_sys::netns::{NetNs, NetNsId};
use mesh_wire::zds;

use super::{Message, ProtocolError};

/// A pod to serve.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Pod UID.
    pub uid: String,
    /// Pod name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Its network namespace, kept alive for as long as anything holds it; `Err` when what came
    /// is no network namespace, which is found out when the pod is started.
    pub netns: Result<Arc<NetNs>, String>,
}

/// Something to do now, in order.
#[derive(Debug)]
pub(super) enum Action {
    /// Cut the pod's connections and forget it.
    Stop { uid: String },
    /// Serve the pod; tell [`Session::started`] how it went.
    Start(Pod),
    /// Change nothing and say why.
    Refuse { uid: String, error: String },
}

/// What is known of the node's pods.
#[derive(Debug, Default)]
pub(super) struct Session {
    running: BTreeMap<String, NetNsId>,
    /// Could not be started; tried again.
    pending: BTreeMap<String, Pod>,
    /// Named since the connection began.
    snapshot: BTreeSet<String>,
    snapshot_received: bool,
    heard: bool,
}

impl Session {
    /// A connection began: nothing is known of the agent's view, running pods stay.
    pub(super) fn connected(&mut self) {
        self.pending.clear();
        self.snapshot.clear();
        self.snapshot_received = false;
        self.heard = false;
    }

    pub(super) fn handle(&mut self, message: Message) -> Result<Vec<Action>, ProtocolError> {
        self.heard = true;
        match message {
            Message::Add { uid, info, netns } => self.add(uid, info, netns),
            Message::Keep { uid } if self.snapshot_received => {
                Err(broken(format!("keep of pod {uid} after the snapshot")))
            }
            Message::Keep { uid } => {
                self.snapshot.insert(uid);
                Ok(Vec::new())
            }
            Message::Del { uid } => Ok(self.del(uid)),
            Message::SnapshotSent if self.snapshot_received => Err(broken("snapshot_sent came twice".to_owned())),
            Message::SnapshotSent => {
                self.snapshot_received = true;
                let named = std::mem::take(&mut self.snapshot);
                let gone: Vec<_> = self.running.keys().filter(|uid| !named.contains(*uid)).cloned().collect();
                for uid in &gone {
                    self.running.remove(uid);
                }
                Ok(gone.into_iter().map(|uid| Action::Stop { uid }).collect())
            }
        }
    }

    fn add(
        &mut self,
        uid: String,
        info: Option<zds::WorkloadInfo>,
        netns: OwnedFd,
    ) -> Result<Vec<Action>, ProtocolError> {
        let info = info.ok_or_else(|| broken(format!("add of pod {uid} without workload_info")))?;
        if !self.snapshot_received {
            self.snapshot.insert(uid.clone());
        }
        let netns = NetNs::from_fd(netns).map(Arc::new).map_err(|error| format!("network namespace: {error}"));
        let mut actions = Vec::new();
        if let Some(known) = self.running.get(&uid) {
            match &netns {
                Ok(netns) if netns.id() == *known => return Ok(actions),
                Ok(_) => {
                    self.running.remove(&uid);
                    actions.push(Action::Stop { uid: uid.clone() });
                }
                // There is nothing to move to, and what runs still serves the pod that was named.
                Err(error) => return Ok(vec![Action::Refuse { uid, error: error.clone() }]),
            }
        }
        let zds::WorkloadInfo { name, namespace, service_account } = info;
        actions.push(Action::Start(Pod { uid, name, namespace, service_account, netns }));
        Ok(actions)
    }

    fn del(&mut self, uid: String) -> Vec<Action> {
        self.pending.remove(&uid);
        if !self.snapshot_received {
            // Stops with the rest that the snapshot does not name.
            self.snapshot.remove(&uid);
            return Vec::new();
        }
        match self.running.remove(&uid) {
            Some(_) => vec![Action::Stop { uid }],
            None => Vec::new(),
        }
    }

    /// How starting a pod went; one that failed is tried again.
    pub(super) fn started(&mut self, pod: Pod, well: bool) {
        match &pod.netns {
            Ok(netns) if well => {
                self.pending.remove(&pod.uid);
                self.running.insert(pod.uid, netns.id());
            }
            _ => {
                self.pending.insert(pod.uid.clone(), pod);
            }
        }
    }

    /// Whether every pod of the node is served.
    pub(super) fn is_ready(&self) -> bool {
        self.snapshot_received && self.pending.is_empty()
    }

    /// Whether the agent said anything on this connection.
    pub(super) fn heard_anything(&self) -> bool {
        self.heard
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn pending(&self) -> Vec<Pod> {
        self.pending.values().cloned().collect()
    }

    pub(super) fn pending_names(&self) -> Vec<(String, super::PodView)> {
        let view = |pod: &Pod| super::PodView::pending(&pod.name, &pod.namespace, &pod.service_account);
        self.pending.values().map(|pod| (pod.uid.clone(), view(pod))).collect()
    }
}

fn broken(reason: String) -> ProtocolError {
    ProtocolError { reason }
}
