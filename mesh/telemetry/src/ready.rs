//! Readiness: the process is ready when no registered task is pending.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// The set of tasks that must finish before traffic may be sent here. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Name to the number of tasks of that name that are pending.
    pending: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Readiness {
    /// No task: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pending task. It stays pending until [`Task::done`] or until the task is dropped.
    #[must_use = "dropping the task marks it ready at once"]
    pub fn register(&self, name: impl Into<String>) -> Task {
        let name = name.into();
        *self.lock().entry(name.clone()).or_insert(0) += 1;
        Task { name, readiness: self.clone() }
    }

    /// A task that may become pending again; it starts pending.
    #[must_use]
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let name = name.into();
        let task = self.register(name.clone());
        Gate { name, readiness: self.clone(), task: Some(task) }
    }

    /// Names of the pending tasks in alphabetical order; empty means ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Serves `/healthz/ready`: 200 `ready`, else 500 naming the pending tasks.
    pub fn router(&self) -> Router {
        Router::new().route("/healthz/ready", get(answer)).with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pending task; see [`Readiness::register`].
#[derive(Debug)]
pub struct Task {
    name: String,
    readiness: Readiness,
}

impl Task {
    /// Marks the task as finished.
    pub fn done(self) {
        drop(self);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut pending = self.readiness.lock();
        if let Some(count) = pending.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.name);
            }
        }
    }
}

/// A task that can turn pending again, such as a connection that may be lost. Dropping it leaves
/// no pending task behind.
#[derive(Debug)]
pub struct Gate {
    name: String,
    readiness: Readiness,
    task: Option<Task>,
}

impl Gate {
    /// Says whether the task is ready now.
    pub fn set(&mut self, ready: bool) {
        if ready {
            self.task = None;
        } else if self.task.is_none() {
            self.task = Some(self.readiness.register(self.name.clone()));
        }
    }

    /// Whether the last call said ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.task.is_none()
    }
}

async fn answer(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let pending = readiness.pending();
    if pending.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("not ready, pending: {}\n", pending.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_task_of_every_name_is_done() {
        let readiness = Readiness::new();
        let (a, b, c) = (readiness.register("proxy"), readiness.register("proxy"), readiness.register("state manager"));
        assert_eq!(readiness.pending(), ["proxy", "state manager"]);
        a.done();
        drop(c);
        assert_eq!(readiness.pending(), ["proxy"]);
        b.done();
        assert!(readiness.pending().is_empty());
    }

    #[test]
    fn a_gate_can_close_again() {
        let readiness = Readiness::new();
        let mut gate = readiness.gate("workload proxy manager");
        gate.set(false);
        assert_eq!(readiness.pending().len(), 1);
        gate.set(true);
        assert!(gate.is_ready() && readiness.pending().is_empty());
        gate.set(false);
        assert_eq!(readiness.pending(), ["workload proxy manager"]);
    }

    #[tokio::test]
    async fn the_endpoint_names_what_is_pending() {
        let readiness = Readiness::new();
        let task = readiness.register("state manager");
        let (status, body) = answer(State(readiness.clone())).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("state manager"), "{body}");
        task.done();
        assert_eq!(answer(State(readiness)).await, (StatusCode::OK, "ready\n".to_owned()));
    }
}
