//! One pod from its binding to its removal.
//!
//! ```text
//! volumes → sandbox → init containers → containers → (all ended: wait) ─┐
//!    └──────────┴────────────┴───────────────┴── deletion ──> take down ┴─> gone
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{self as api, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{ContainerTask, Outcome, Role};
use super::record::{PodRecord, is_sidecar};
use super::status_writer::StatusWriter;
use super::volumes::Volumes;
use super::{Kubelet, RetryWait, pod_files};
use crate::events::Kind;
use crate::runtime::PodSandboxSpec;

/// The latest news of a pod.
#[derive(Debug, Clone)]
pub(super) struct PodView {
    pub(super) pod: Arc<Pod>,
    /// The object is not in the API any more.
    pub(super) gone: bool,
}

impl PodView {
    /// Once the pod must end: how long it may take.
    fn grace(&self) -> Option<Duration> {
        if self.gone {
            return Some(Duration::ZERO);
        }
        let meta = &self.pod.metadata;
        meta.deletion_timestamp.as_ref()?;
        let seconds = meta.deletion_grace_period_seconds.unwrap_or(30);
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// Runs a pod to its end.
pub(super) async fn run(kubelet: Arc<Kubelet>, uid: String, view: watch::Receiver<PodView>) {
    let pod = Arc::clone(&view.borrow().pod);
    let host_ips = kubelet.runtime.node_ips().to_vec();
    let record = PodRecord::new(&pod, host_ips, jiff::Timestamp::now());
    let written = CancellationToken::new();
    // A pod that ended before the sandbox was restarted is not run again, and keeps its status.
    let finished = has_finished(&pod);
    let writer = StatusWriter::new(Arc::clone(&kubelet), view.clone(), record.clone());
    let writer = (!finished).then(|| tokio::spawn(writer.run(written.clone())));
    let mut worker = PodWorker {
        kubelet,
        uid,
        view,
        record,
        main: Group::default(),
        sidecars: Group::default(),
        background: JoinSet::new(),
    };
    if finished {
        deleted(&mut worker.view.clone()).await;
    } else {
        worker.live().await;
    }
    worker.take_down().await;
    written.cancel();
    if let Some(writer) = writer {
        let _ = writer.await;
    }
    worker.remove_object().await;
}

fn has_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Containers that are stopped together.
struct Group {
    tasks: JoinSet<Outcome>,
    stop: watch::Sender<Option<Duration>>,
}

impl Default for Group {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), stop: watch::Sender::new(None) }
    }
}

impl Group {
    /// Stops all, waiting for the last; a grace period that `view` shortens is passed on.
    async fn end(&mut self, grace: Duration, view: &mut watch::Receiver<PodView>) {
        self.stop.send_replace(Some(grace));
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => if ended.is_none() { return },
                Ok(()) = view.changed() => {
                    let latest = view.borrow_and_update().grace();
                    self.stop.send_if_modified(|grace| {
                        let shorter = latest.is_some_and(|latest| grace.is_some_and(|grace| latest < grace));
                        if shorter {
                            *grace = latest;
                        }
                        shorter
                    });
                }
            }
        }
    }
}

struct PodWorker {
    kubelet: Arc<Kubelet>,
    uid: String,
    view: watch::Receiver<PodView>,
    record: PodRecord,
    main: Group,
    sidecars: Group,
    /// Ends with the pod.
    background: JoinSet<()>,
}

/// The pod is being deleted.
struct Deleted;

impl PodWorker {
    /// Brings the pod up and stays until it is deleted.
    async fn live(&mut self) {
        if self.bring_up().await.is_err() {
            return;
        }
        let mut view = self.view.clone();
        loop {
            tokio::select! {
                biased;
                () = deleted(&mut view) => return,
                ended = self.main.tasks.join_next() => if ended.is_none() { break },
            }
        }
        // All containers are done. Sidecars only served them; the sandbox stays, so that logs
        // can be read until the pod is deleted.
        self.sidecars.end(self.grace(), &mut self.view.clone()).await;
        deleted(&mut view).await;
    }

    fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.view.borrow().pod)
    }

    /// The grace period of the pod, when deletion does not give another.
    fn grace(&self) -> Duration {
        let pod = self.pod();
        let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30))
    }

    async fn bring_up(&mut self) -> Result<(), Deleted> {
        self.check()?;
        let mut volumes = Volumes::new(Arc::clone(&self.kubelet), &self.uid);
        self.prepare_volumes(&mut volumes).await?;
        self.make_sandbox().await?;
        let follow = volumes.follow(self.view.clone(), self.record.clone());
        self.background.spawn(follow);
        let pod = self.pod();
        let Some(spec) = &pod.spec else {
            return Ok(());
        };
        for container in spec.init_containers.iter().flatten() {
            self.check()?;
            if is_sidecar(container) {
                self.start_sidecar(container).await?;
            } else if !self.run_init(container).await? {
                return Ok(());
            }
        }
        self.check()?;
        for container in &spec.containers {
            let task = self.task(container, Role::Main, &self.main.stop);
            self.main.tasks.spawn(task.run());
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Deleted> {
        match self.view.borrow().grace() {
            Some(_) => Err(Deleted),
            None => Ok(()),
        }
    }

    async fn prepare_volumes(&mut self, volumes: &mut Volumes) -> Result<(), Deleted> {
        let mut retry = RetryWait::new(RETRY_FIRST, RETRY_CAP);
        loop {
            let pod = self.pod();
            // Listen before looking: what appears meanwhile wakes us.
            let mut maps = self.kubelet.cache.config_maps.generation();
            let mut secrets = self.kubelet.cache.secrets.generation();
            maps.borrow_and_update();
            secrets.borrow_and_update();
            let placement = self.kubelet.placement(&self.record.state());
            let Err(message) = volumes.refresh(&pod, &placement).await else {
                return Ok(());
            };
            self.event(&pod, Kind::Warning, "FailedMount", message);
            let news = async {
                tokio::select! {
                    _ = maps.changed() => {}
                    _ = secrets.changed() => {}
                }
            };
            self.wait(retry.advance(), news).await?;
        }
    }

    async fn make_sandbox(&mut self) -> Result<(), Deleted> {
        let mut retry = RetryWait::new(SANDBOX_RETRY_FIRST, SANDBOX_RETRY_CAP);
        loop {
            self.check()?;
            let pod = self.pod();
            let spec = PodSandboxSpec {
                uid: self.uid.clone(),
                name: pod.name_any(),
                namespace: pod.namespace().unwrap_or_default(),
                host_network: pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true),
            };
            // Never dropped half-way: what it makes must be known to be removed.
            match self.kubelet.runtime.run_pod(&spec).await {
                Ok(sandbox) => {
                    let files = pod_files::write(&self.kubelet, &self.uid, &pod, &sandbox.ips);
                    self.record.update(|state| {
                        state.ips = sandbox.ips;
                        state.sandbox_ready = true;
                    });
                    match files {
                        Ok(()) => return Ok(()),
                        Err(error) => {
                            let message = format!("writing the pod's hosts and resolv.conf: {error}");
                            self.event(&pod, Kind::Warning, "FailedMount", message);
                        }
                    }
                }
                Err(error) => {
                    let message = format!("Failed to create pod sandbox: {}", chain(&error));
                    self.event(&pod, Kind::Warning, "FailedCreatePodSandBox", message);
                }
            }
            self.wait(retry.advance(), std::future::pending()).await?;
        }
    }

    /// Waits for time or news; `Err` when the pod is deleted first.
    async fn wait(&self, time: Duration, news: impl Future<Output = ()>) -> Result<(), Deleted> {
        let mut view = self.view.clone();
        tokio::select! {
            biased;
            () = deleted(&mut view) => Err(Deleted),
            () = tokio::time::sleep(time) => Ok(()),
            () = news => Ok(()),
        }
    }

    fn task(&self, container: &api::Container, role: Role, stop: &watch::Sender<Option<Duration>>) -> ContainerTask {
        ContainerTask {
            kubelet: Arc::clone(&self.kubelet),
            uid: self.uid.clone(),
            view: self.view.clone(),
            record: self.record.clone(),
            container: container.clone(),
            role,
            stop: stop.subscribe(),
        }
    }

    /// Runs an init container to its end; `false` when it failed for good.
    async fn run_init(&mut self, container: &api::Container) -> Result<bool, Deleted> {
        let task = self.task(container, Role::Init, &self.main.stop);
        self.main.tasks.spawn(task.run());
        let mut view = self.view.clone();
        tokio::select! {
            biased;
            () = deleted(&mut view) => Err(Deleted),
            ended = self.main.tasks.join_next() => match ended {
                Some(Ok(Outcome::Ended { exit_code })) => Ok(exit_code == 0),
                _ => Ok(false),
            },
        }
    }

    /// Starts a sidecar and waits until it counts as started.
    async fn start_sidecar(&mut self, container: &api::Container) -> Result<(), Deleted> {
        let mut changes = self.record.changes();
        let task = self.task(container, Role::Sidecar, &self.sidecars.stop);
        self.sidecars.tasks.spawn(task.run());
        loop {
            changes.borrow_and_update();
            if self.record.of(&container.name).is_some_and(|record| record.started) {
                return Ok(());
            }
            let change = async {
                let _ = changes.changed().await;
            };
            self.wait(Duration::from_secs(60), change).await?;
        }
    }

    /// Ends containers, then the sandbox, then the files.
    async fn take_down(&mut self) {
        let grace = self.view.borrow_and_update().grace().unwrap_or_default();
        let began = Instant::now();
        let mut view = self.view.clone();
        self.main.end(grace, &mut view).await;
        let left = grace.saturating_sub(began.elapsed());
        let least = if grace.is_zero() { Duration::ZERO } else { SIDECAR_GRACE };
        self.sidecars.end(left.max(least), &mut view).await;
        self.background.shutdown().await;
        if let Err(error) = self.kubelet.runtime.remove_pod(&self.uid).await {
            let message = format!("error killing pod: {}", chain(&error));
            self.event(&self.pod(), Kind::Warning, "FailedKillPod", message);
        }
        pod_files::remove(&self.kubelet, &self.uid);
    }

    /// Tells the API that nothing of the pod is left.
    async fn remove_object(&self) {
        let mut retry = RetryWait::new(RETRY_FIRST, RETRY_CAP);
        loop {
            if self.view.borrow().gone {
                return;
            }
            let pod = self.pod();
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
                ..DeleteParams::default()
            };
            let pods = self.kubelet.pods(&pod.namespace().unwrap_or_default());
            match pods.delete(&pod.name_any(), &params).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => {
                    tracing::debug!(pod = %pod.name_any(), %error, "pod object not removed");
                    tokio::time::sleep(retry.advance()).await;
                }
            }
        }
    }

    fn event(&self, pod: &Pod, kind: Kind, reason: &'static str, message: String) {
        self.kubelet.events.record(pod, None, kind, reason, message);
    }
}

/// Resolves once the pod must end.
async fn deleted(view: &mut watch::Receiver<PodView>) {
    // The sender is dropped with the kubelet only; then there is nobody left to run the pod.
    let _ = view.wait_for(|view| view.grace().is_some()).await;
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors print their cause themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Waits between tries of something that failed.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(super) const RETRY_CAP: Duration = Duration::from_secs(5);
/// Waits between tries of the pod sandbox.
const SANDBOX_RETRY_FIRST: Duration = Duration::from_secs(1);
const SANDBOX_RETRY_CAP: Duration = Duration::from_secs(10);
/// What sidecars get at least after the main containers took the whole grace period.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);
