//! What a kubelet knows about one of its pods: written by the pod's tasks, read by the status.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Timestamp,
    pub(super) container_id: Option<String>,
}

/// Where a container is in its life.
///
/// ```text
/// Waiting ──start──> Running ──exit──> Ended
///    ^                                   │ restart
///    └───────────── back-off ────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting { reason: String, message: Option<String> },
    Running { since: Timestamp },
    Ended(Ended),
}

/// One container as its status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerRecord {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) stage: Stage,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u32,
    /// The startup probe has succeeded, or there is none and the container runs.
    pub(super) started: bool,
    /// The readiness probe says so, or there is none and the container is started.
    pub(super) ready: bool,
    pub(super) container_id: Option<String>,
    /// An init container that keeps running beside the others.
    pub(super) sidecar: bool,
}

impl ContainerRecord {
    fn new(container: &Container, init: bool) -> Self {
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            stage: Stage::Waiting {
                reason: if init { "PodInitializing" } else { "ContainerCreating" }.to_owned(),
                message: None,
            },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            container_id: None,
            sidecar: is_sidecar(container),
        }
    }
}

/// Whether an init container is a sidecar.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Everything about the pod that its status is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodState {
    pub(super) started_at: Timestamp,
    pub(super) host_ips: Vec<IpAddr>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) sandbox_ready: bool,
    pub(super) init: Vec<ContainerRecord>,
    pub(super) containers: Vec<ContainerRecord>,
}

/// Shared by the tasks of one pod; every change wakes the status writer.
#[derive(Debug, Clone)]
pub(super) struct PodRecord {
    state: Arc<Mutex<PodState>>,
    changed: watch::Sender<u64>,
}

impl PodRecord {
    /// A pod of which nothing runs yet.
    pub(super) fn new(pod: &Pod, host_ips: Vec<IpAddr>, now: Timestamp) -> Self {
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let mut containers: Vec<ContainerRecord> = spec
            .map(|spec| spec.containers.iter().map(|one| ContainerRecord::new(one, false)).collect())
            .unwrap_or_default();
        if !init.is_empty() {
            for container in &mut containers {
                container.stage = Stage::Waiting { reason: "PodInitializing".to_owned(), message: None };
            }
        }
        Self {
            state: Arc::new(Mutex::new(PodState {
                started_at: now,
                host_ips,
                ips: Vec::new(),
                sandbox_ready: false,
                init: init.iter().map(|one| ContainerRecord::new(one, true)).collect(),
                containers,
            })),
            changed: watch::Sender::new(0),
        }
    }

    /// A copy of the present state.
    pub(super) fn state(&self) -> PodState {
        self.lock().clone()
    }

    /// Wakes with every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes the pod's part.
    pub(super) fn update(&self, change: impl FnOnce(&mut PodState)) {
        let mut state = self.lock();
        let before = state.clone();
        change(&mut state);
        let differs = *state != before;
        drop(state);
        if differs {
            self.changed.send_modify(|number| *number += 1);
        }
    }

    /// Changes one container's part.
    pub(super) fn container(&self, name: &str, change: impl FnOnce(&mut ContainerRecord)) {
        self.update(|state| {
            let mut all = state.init.iter_mut().chain(&mut state.containers);
            if let Some(record) = all.find(|record| record.name == name) {
                change(record);
            }
        });
    }

    /// One container's part.
    pub(super) fn of(&self, name: &str) -> Option<ContainerRecord> {
        let state = self.lock();
        let mut all = state.init.iter().chain(&state.containers);
        all.find(|record| record.name == name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, PodState> {
        self.state.lock().expect("no code panics while it holds a pod record's lock")
    }
}
