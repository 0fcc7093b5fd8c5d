//! Readiness: the process is ready when no registered task is pending.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;

/// The set of tasks that must finish before traffic may be sent here. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Name to the number of tasks of that name that are pending.
    pending: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Name to what it waits for, of tasks that have said so.
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
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

    /// Says what a pending task waits for; shown for as long as the task is pending.
    pub fn explain(&self, name: &str, reason: impl Into<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.insert(name.to_owned(), reason.into());
    }

    /// One line for each pending task that has said what it waits for.
    fn reasons(&self, pending: &[String]) -> String {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pending.iter().filter_map(|name| Some((name, reasons.get(name)?)));
        known.map(|(name, reason)| format!("{name}: {reason}\n")).collect()
    }

    /// Serves `/healthz/ready`: 200 `ready`, else 500 naming the pending tasks and what they wait for. GET only.
    pub fn router(&self) -> Router {
        // A HEAD would otherwise be answered like a GET.
        Router::new().route("/healthz/ready", get(answer).head(only_get)).with_state(self.clone())
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

    /// Says what the task waits for; shown while it is pending.
    pub fn explain(&self, reason: impl Into<String>) {
        self.readiness.explain(&self.name, reason);
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
        let reasons = readiness.reasons(&pending);
        (StatusCode::INTERNAL_SERVER_ERROR, format!("not ready, pending: {}\n{reasons}", pending.join(", ")))
    }
}

async fn only_get() -> (StatusCode, [(HeaderName, &'static str); 1]) {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")])
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

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
    async fn ops_row_8_the_endpoint_names_what_is_pending() {
        let readiness = Readiness::new();
        let (task, other) = (readiness.register("state manager"), readiness.register("proxy"));
        let (status, body) = answer(State(readiness.clone())).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("proxy, state manager"), "{body}");
        task.done();
        other.done();
        assert_eq!(answer(State(readiness)).await, (StatusCode::OK, "ready\n".to_owned()));
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let status = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            Readiness::new().router().oneshot(request).await.unwrap().status()
        };
        assert_eq!(status("GET", "/healthz/ready").await, StatusCode::OK);
        assert_eq!(status("GET", "/healthz").await, StatusCode::NOT_FOUND);
        assert_eq!(status("POST", "/healthz/ready").await, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status("HEAD", "/healthz/ready").await, StatusCode::METHOD_NOT_ALLOWED);
    }
}
