//! One container from its first start to its last end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as api, Pod};
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::env::{Sources, environment, expand};
use super::pod_worker::PodView;
use super::probe::Target;
use super::probing::Probing;
use super::record::{Ended, PodRecord, Stage};
use super::restart::{CrashLoop, Verdict, verdict};
use super::volumes::mounts_of;
use super::{Kubelet, hook};
use crate::events::Kind;
use crate::informer::Informers;
use crate::runtime::{Container, ContainerSpec, RuntimeError};

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Must end well before the next one starts.
    Init,
    /// Started among the init containers, runs beside the others.
    Sidecar,
    Main,
}

/// How a container's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ended by itself and is not restarted.
    Ended { exit_code: i32 },
    /// The pod was told to stop.
    Stopped,
}

/// The task of one container.
pub(super) struct ContainerTask {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) uid: String,
    pub(super) view: watch::Receiver<PodView>,
    pub(super) record: PodRecord,
    pub(super) container: api::Container,
    pub(super) role: Role,
    /// Set once the container must stop: how long it may take. May shrink, never grows.
    pub(super) stop: watch::Receiver<Option<Duration>>,
}

impl ContainerTask {
    /// Starts and restarts the container until its policy says that it stays ended, or the pod
    /// stops.
    pub(super) async fn run(mut self) -> Outcome {
        let mut crash_loop = CrashLoop::default();
        let mut starts: u32 = 0;
        loop {
            if self.stop.borrow().is_some() {
                return Outcome::Stopped;
            }
            let pod = Arc::clone(&self.view.borrow().pod);
            let began = Instant::now();
            let exit_code = match self.start(&pod, starts).await {
                Ok(started) => match self.attend(&pod, started).await {
                    Some(code) => code,
                    None => return Outcome::Stopped,
                },
                Err(refusal) => {
                    if !self.wait_after(&pod, refusal, &mut crash_loop).await {
                        return Outcome::Stopped;
                    }
                    continue;
                }
            };
            starts += 1;
            let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
            let (init, sidecar) = (self.role == Role::Init, self.role == Role::Sidecar);
            if verdict(policy.unwrap_or("Always"), init, sidecar, exit_code) == Verdict::Stay {
                return Outcome::Ended { exit_code };
            }
            let wait = crash_loop.next_wait(began.elapsed());
            if !self.back_off(&pod, wait, starts).await {
                return Outcome::Stopped;
            }
        }
    }

    fn event(&self, pod: &Pod, kind: Kind, reason: &'static str, message: String) {
        let name = Some(self.container.name.as_str());
        self.kubelet.events.record(pod, name, kind, reason, message);
    }

    async fn start(&self, pod: &Pod, starts: u32) -> Result<Container, Refusal> {
        let spec = self.spec(pod, starts).map_err(Refusal::Config)?;
        let (name, image) = (spec.name.clone(), spec.image.clone());
        let message = format!("Container image {image:?} already present on machine");
        self.event(pod, Kind::Normal, "Pulled", message);
        let started = self.kubelet.runtime.start_container(&self.uid, spec).await.map_err(Refusal::Runtime)?;
        self.event(pod, Kind::Normal, "Created", format!("Created container: {name}"));
        self.event(pod, Kind::Normal, "Started", format!("Started container {name}"));
        // Without probes it is started and ready with this very change: one status write.
        let started_at_once = self.container.startup_probe.is_none();
        let ready_at_once = started_at_once && self.container.readiness_probe.is_none();
        self.record.container(&name, |record| {
            record.stage = Stage::Running { since: Timestamp::now() };
            record.restarts = starts;
            record.container_id = Some(started.id.clone());
            record.started = started_at_once;
            record.ready = ready_at_once && self.role != Role::Init;
        });
        Ok(started)
    }

    fn spec(&self, pod: &Pod, starts: u32) -> Result<ContainerSpec, String> {
        let placement = self.kubelet.placement(&self.record.state());
        let namespace = pod.namespace().unwrap_or_default();
        let sources = CachedSources { cache: &self.kubelet.cache, namespace: &namespace };
        let cluster = cluster_variables(self.kubelet.config.api_service);
        let env = environment(pod, &self.container, &placement, &cluster, &sources)?;
        let values: BTreeMap<String, String> = env.iter().cloned().collect();
        let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
            words.iter().flatten().map(|word| expand(word, &values)).collect()
        };
        Ok(ContainerSpec {
            name: self.container.name.clone(),
            image: self.container.image.clone().unwrap_or_default(),
            command: expanded(&self.container.command),
            args: expanded(&self.container.args),
            mounts: mounts_of(&self.kubelet, pod, &self.container, &values)?,
            env,
            working_dir: self.container.working_dir.as_ref().map(PathBuf::from),
            restart_count: starts,
        })
    }

    /// Stays with a running container; its exit code, or `None` when the pod stopped it.
    async fn attend(&mut self, pod: &Arc<Pod>, started: Container) -> Option<i32> {
        let since = Timestamp::now();
        let mut exited = started.exited.clone();
        let target = self.target();
        if let Some(hook) = self.container.lifecycle.as_ref().and_then(|cycle| cycle.post_start.as_ref())
            && let Err(reason) = hook::run(&target, &self.container, hook, POST_START_LIMIT).await
        {
            let message = format!("PostStartHook failed: {reason}");
            self.event(pod, Kind::Warning, "FailedPostStartHook", message);
            self.kill(pod).await;
        }
        let probing = Probing {
            kubelet: Arc::clone(&self.kubelet),
            pod: Arc::clone(pod),
            container: self.container.clone(),
            target,
            record: self.record.clone(),
        };
        let mut stop = self.stop.clone();
        let has_probes = self.role != Role::Init;
        let code = tokio::select! {
            code = exit_code(&mut exited) => code,
            () = told_to_stop(&mut stop) => {
                self.stop_gracefully(pod).await;
                let code = exit_code(&mut exited).await;
                self.ended(code, since, &started.id);
                return None;
            }
            unhealthy = probing.run(), if has_probes => {
                let message = format!(
                    "Container {} failed {} probe, will be restarted",
                    self.container.name,
                    unhealthy.kind.name().to_lowercase()
                );
                self.event(pod, Kind::Normal, "Killing", message);
                let grace = unhealthy.grace_seconds.or_else(|| grace_seconds(pod));
                self.end(seconds(grace)).await;
                exit_code(&mut exited).await
            }
        };
        self.ended(code, since, &started.id);
        Some(code)
    }

    fn target(&self) -> Target {
        let state = self.record.state();
        let first = state.ips.first().or(state.host_ips.first());
        Target {
            runtime: self.kubelet.runtime.clone(),
            uid: self.uid.clone(),
            container: self.container.name.clone(),
            pod_ip: first.copied().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// Writes down how a run ended.
    fn ended(&self, exit_code: i32, since: Timestamp, id: &str) {
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        let done = self.role == Role::Init && exit_code == 0;
        self.record.container(&self.container.name, |record| {
            record.stage = Stage::Ended(Ended {
                exit_code,
                reason: reason.to_owned(),
                started_at: Some(since),
                finished_at: Timestamp::now(),
                container_id: Some(id.to_owned()),
            });
            record.ready = done;
            record.started = false;
        });
    }

    /// `preStop`, `SIGTERM`, and `SIGKILL` when the grace period is over. A grace period that is
    /// shortened meanwhile counts from then.
    async fn stop_gracefully(&mut self, pod: &Pod) {
        let grace = self.stop.borrow_and_update().unwrap_or_default();
        let message = format!("Stopping container {}", self.container.name);
        self.event(pod, Kind::Normal, "Killing", message);
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.hook_and_end(pod, grace) => {}
            () = shortened(&mut stop, grace) => {
                let left = stop.borrow().unwrap_or_default();
                self.end(left).await;
            }
        }
    }

    async fn hook_and_end(&self, pod: &Pod, grace: Duration) {
        let began = Instant::now();
        let hook = self.container.lifecycle.as_ref().and_then(|cycle| cycle.pre_stop.as_ref());
        if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
            let ran = hook::run(&self.target(), &self.container, hook, grace).await;
            if let Err(reason) = ran {
                let message = format!("PreStopHook failed: {reason}");
                self.event(pod, Kind::Warning, "FailedPreStopHook", message);
            }
        }
        let left = grace.saturating_sub(began.elapsed());
        // After a long hook the process still gets a moment to end by itself.
        let least = if grace.is_zero() { Duration::ZERO } else { GRACE_AFTER_HOOK };
        self.end(left.max(least)).await;
    }

    async fn kill(&self, pod: &Pod) {
        self.end(seconds(grace_seconds(pod))).await;
    }

    async fn end(&self, grace: Duration) {
        let stopped = self.kubelet.runtime.stop_container(&self.uid, &self.container.name, grace);
        if let Err(error) = stopped.await {
            tracing::debug!(container = %self.container.name, %error, "container had ended already");
        }
    }

    /// Waits before the next start after a crash; `false` when the pod stopped meanwhile.
    async fn back_off(&mut self, pod: &Pod, wait: Duration, restarts: u32) -> bool {
        let name = self.container.name.clone();
        let message = format!(
            "back-off {}s restarting failed container={name} pod={}_{}({})",
            wait.as_secs(),
            pod.name_any(),
            pod.namespace().unwrap_or_default(),
            self.uid
        );
        if !wait.is_zero() {
            let message = format!("Back-off restarting failed container {name} in pod {}", pod.name_any());
            self.event(pod, Kind::Warning, "BackOff", message);
        }
        self.record.container(&name, |record| {
            if let Stage::Ended(end) = &record.stage {
                record.last = Some(end.clone());
            }
            if !wait.is_zero() {
                record.stage = Stage::Waiting { reason: "CrashLoopBackOff".to_owned(), message: Some(message) };
            }
        });
        tracing::debug!(container = %name, restarts, ?wait, "container will be restarted");
        self.sleep(wait).await
    }

    /// Waits after a start that was refused; `false` when the pod stopped meanwhile.
    async fn wait_after(&mut self, pod: &Pod, refusal: Refusal, crash_loop: &mut CrashLoop) -> bool {
        let (reason, message) = refusal.describe();
        self.event(pod, Kind::Warning, "Failed", format!("Error: {message}"));
        self.record.container(&self.container.name, |record| {
            record.stage = Stage::Waiting { reason: reason.to_owned(), message: Some(message) };
        });
        let wait = crash_loop.next_wait(Duration::ZERO).max(REFUSED_WAIT);
        if matches!(refusal, Refusal::Config(_)) {
            // What was missing may have been created: look again as soon as something changes.
            let cache = self.kubelet.cache.clone();
            let (mut maps, mut secrets) = (cache.config_maps.generation(), cache.secrets.generation());
            return tokio::select! {
                going = self.sleep(wait) => going,
                _ = maps.changed() => true,
                _ = secrets.changed() => true,
            };
        }
        self.sleep(wait).await
    }

    async fn sleep(&mut self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = told_to_stop(&mut self.stop) => false,
        }
    }
}

/// Why a container was not started.
enum Refusal {
    Config(String),
    Runtime(RuntimeError),
}

impl Refusal {
    /// The `reason` of the waiting state and its message.
    fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Config(message) => ("CreateContainerConfigError", message.clone()),
            Self::Runtime(error @ RuntimeError::UnknownImage { .. }) => ("ErrImagePull", error.to_string()),
            Self::Runtime(error) => ("RunContainerError", error.to_string()),
        }
    }
}

/// The kubelet's caches of ConfigMaps and Secrets.
struct CachedSources<'a> {
    cache: &'a Informers,
    namespace: &'a str,
}

impl Sources for CachedSources<'_> {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let map = self.cache.config_maps.get(self.namespace, name)?;
        Some(map.data.clone().unwrap_or_default())
    }

    fn secret(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let secret = self.cache.secrets.get(self.namespace, name)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let data = secret.data.iter().flatten();
        Some(data.map(|(key, bytes)| (key.clone(), text(&bytes.0))).collect())
    }
}

/// How every pod finds the API server.
fn cluster_variables((ip, port): (std::net::IpAddr, u16)) -> Vec<(String, String)> {
    let host = ip.to_string();
    let url = format!("tcp://{}", std::net::SocketAddr::new(ip, port));
    let port = port.to_string();
    [
        ("KUBERNETES_SERVICE_HOST", &host),
        ("KUBERNETES_SERVICE_PORT", &port),
        ("KUBERNETES_SERVICE_PORT_HTTPS", &port),
        ("KUBERNETES_PORT", &url),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .collect()
}

async fn exit_code(exited: &mut watch::Receiver<Option<i32>>) -> i32 {
    match exited.wait_for(Option::is_some).await {
        Ok(code) => code.unwrap_or(-1),
        // The runtime dropped the container without telling: it is gone.
        Err(_) => -1,
    }
}

/// Resolves once the container must stop. Without anyone to tell it, it must, too.
async fn told_to_stop(stop: &mut watch::Receiver<Option<Duration>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

/// Resolves when the grace period was made shorter than `grace`.
async fn shortened(stop: &mut watch::Receiver<Option<Duration>>, grace: Duration) {
    if stop.wait_for(|left| left.is_some_and(|left| left < grace)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn grace_seconds(pod: &Pod) -> Option<i64> {
    pod.spec.as_ref()?.termination_grace_period_seconds
}

fn seconds(value: Option<i64>) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(30))
}

/// Longest `postStart` hook.
const POST_START_LIMIT: Duration = Duration::from_secs(30);
/// Time for the process to end when `preStop` took the whole grace period (Kubernetes: 2 s).
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);
/// Shortest wait after a start that was refused.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
