//! One container: from its specification to a process, and to the end of all its processes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rand::Rng;
use tokio::process::Child;
use tokio::sync::watch;

use super::cri_log::CriLog;
use super::enter::{EnterSpec, World};
use super::launch::{self, StandardStreams};
use super::pod::Pod;
use super::root_fs::{Bind, RootSpec};
use super::{Container, ContainerSpec, NodeRuntime, Propagation, RuntimeError};

/// How long output may trickle in after the last process has ended. Everything was written by
/// then; only a pipe that some foreign process holds open makes this wait.
const LOG_DRAIN_DEADLINE: Duration = Duration::from_secs(1);

/// Rounds of looking for left-over processes; each kills all it finds, so more than one is needed
/// only against a fork in progress.
const SWEEP_ROUNDS_MAX: u32 = 16;

/// A container that was started and may have ended.
#[derive(Debug)]
pub(crate) struct Instance {
    /// 64 hex digits.
    pub(crate) id: String,
    /// The container's name in the pod.
    pub(crate) name: String,
    /// Uid of its pod.
    pub(crate) pod_uid: String,
    /// Main process.
    pub(crate) pid: i32,
    /// Environment, which commands run in the container share.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory of the main process and of commands.
    pub(crate) cwd: PathBuf,
    /// Number of starts before this one.
    pub(crate) restart_count: u32,
    /// Its output.
    pub(crate) log: Arc<CriLog>,
    /// `None` while it runs.
    pub(crate) exited: watch::Receiver<Option<i32>>,
    /// Names the mount namespace, and so every process of the container.
    mount_ns_inode: Option<u64>,
}

impl Instance {
    /// Whether the main process still runs.
    pub(crate) fn running(&self) -> bool {
        self.exited.borrow().is_none()
    }

    /// Sends a signal to the main process.
    pub(crate) fn signal(&self, number: i32) -> Result<(), RuntimeError> {
        if !self.running() {
            return Err(self.gone());
        }
        let signal = Signal::try_from(number)
            .map_err(|error| RuntimeError::Io { what: format!("signal {number}"), source: error.into() })?;
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(self.gone()),
            Err(error) => Err(RuntimeError::Io {
                what: format!("sending {signal} to container {:?}", self.name),
                source: error.into(),
            }),
        }
    }

    /// The error for a container that has ended.
    pub(crate) fn gone(&self) -> RuntimeError {
        RuntimeError::UnknownContainer { uid: self.pod_uid.clone(), container: self.name.clone() }
    }
}

/// Starts a container.
pub(crate) async fn start(node: &NodeRuntime, pod: &Pod, spec: ContainerSpec) -> Result<Container, RuntimeError> {
    if pod.container(&spec.name).is_ok_and(|instance| instance.running()) {
        return Err(RuntimeError::AlreadyRunning { uid: pod.spec.uid.clone(), container: spec.name });
    }
    let enter = enter_spec(node, pod, &spec)?;
    let failed = |reason: String| RuntimeError::Start { container: spec.name.clone(), reason };
    let log_dir = pod.log_dir.join(&spec.name);
    let log = CriLog::create(&log_dir, spec.restart_count)
        .map_err(|error| failed(format!("creating the log in {}: {error}", log_dir.display())))?;
    let streams = StandardStreams { stdin: Stdio::null(), stdout: Stdio::piped(), stderr: Stdio::piped() };
    let child = launch::launch(&enter, streams).await.map_err(failed)?;
    // A process that was not waited for yet has an id.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
    let (exit_sender, exited) = watch::channel(None);
    let instance = Arc::new(Instance {
        id: random_id(),
        name: spec.name,
        pod_uid: pod.spec.uid.clone(),
        pid,
        env: enter.env,
        cwd: enter.cwd,
        restart_count: spec.restart_count,
        log: Arc::new(log),
        exited: exited.clone(),
        mount_ns_inode: mount_ns_inode(pid),
    });
    pod.proc_view.add_process(&pod.spec.uid, &instance.id, pid);
    pod.register(Arc::clone(&instance));
    let container = Container { id: instance.id.clone(), pid, exited };
    tokio::spawn(supervise(instance, Arc::clone(&pod.proc_view), child, exit_sender));
    Ok(container)
}

/// Ends a container: politely, then by force. Returns the exit code.
pub(crate) async fn stop(instance: Arc<Instance>, grace: Duration) -> Result<i32, RuntimeError> {
    let mut exited = instance.exited.clone();
    for (signal, wait) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::MAX)] {
        if wait.is_zero() {
            continue;
        }
        // It may end by itself between the look and the signal.
        let _ = instance.signal(signal as i32);
        let ended = exited.wait_for(Option::is_some);
        let code = if wait == Duration::MAX {
            ended.await.ok().and_then(|code| *code)
        } else {
            tokio::time::timeout(wait, ended).await.ok().and_then(Result::ok).and_then(|code| *code)
        };
        if let Some(code) = code {
            return Ok(code);
        }
    }
    Err(instance.gone())
}

/// Copies output to the log, waits for the end, removes what is left, and only then announces it.
async fn supervise(
    instance: Arc<Instance>,
    proc_view: Arc<super::proc_view::ProcView>,
    mut child: Child,
    exit: watch::Sender<Option<i32>>,
) {
    let mut copies = tokio::task::JoinSet::new();
    if let Some(output) = child.stdout.take() {
        let log = Arc::clone(&instance.log);
        copies.spawn(async move { log.copy_from("stdout", output).await });
    }
    if let Some(output) = child.stderr.take() {
        let log = Arc::clone(&instance.log);
        copies.spawn(async move { log.copy_from("stderr", output).await });
    }
    let status = child.wait().await;
    if let Some(inode) = instance.mount_ns_inode {
        // Failing is not possible beyond a panic in there.
        let _ = tokio::task::spawn_blocking(move || sweep(inode)).await;
    }
    let _ = tokio::time::timeout(LOG_DRAIN_DEADLINE, copies.join_all()).await;
    instance.log.close();
    proc_view.remove_process(instance.pid);
    let code = status.map_or(255, exit_code);
    tracing::debug!(container = %instance.name, pod_uid = %instance.pod_uid, code, "container ended");
    exit.send_replace(Some(code));
}

/// 128 + number for a process that a signal ended, as shells and kubelets say it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// 64 hex digits, as other runtimes name containers and sandboxes.
pub(crate) fn random_id() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mount_ns_inode(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|metadata| metadata.ino())
}

/// Kills every process that is still in the container's mount namespace: the daemons it started,
/// and commands that were run in it.
fn sweep(inode: u64) {
    for _ in 0..SWEEP_ROUNDS_MAX {
        let Ok(entries) = fs::read_dir("/proc") else { return };
        let left: Vec<i32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&pid| mount_ns_inode(pid) == Some(inode))
            .collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1)); // a blocking thread; the kernel needs a moment
    }
}

fn enter_spec(node: &NodeRuntime, pod: &Pod, spec: &ContainerSpec) -> Result<EnterSpec, RuntimeError> {
    let images = node.images();
    let argv = images
        .argv(&spec.image, &spec.command, &spec.args)
        .ok_or_else(|| RuntimeError::UnknownImage { image: spec.image.clone() })?;
    let files = images.lookup(&spec.image).map(|image| image.files).unwrap_or_default();
    let mut binds: Vec<Bind> = files.iter().map(|(target, source)| Bind::fixed(source, target)).collect();
    for mount in &spec.mounts {
        if !mount.source.exists() && mount.source.starts_with(node.node_root()) {
            fs::create_dir_all(&mount.source)
                .map_err(|source| RuntimeError::Io { what: format!("creating {}", mount.source.display()), source })?;
        }
        binds.push(Bind {
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
            follows_host: mount.propagation == Propagation::HostToContainer,
        });
    }
    let hostname = if pod.spec.host_network { node.node_name() } else { &pod.spec.name };
    let hostname: String = hostname.chars().take(HOSTNAME_CHARS_MAX).collect();
    Ok(EnterSpec {
        env: environment(&spec.env, &images.search_path(), &hostname),
        world: World::New {
            root: RootSpec { staging: node.staging_dir(), binds, bin_dir: images.bin_dir().to_owned() },
            hostname,
        },
        netns: Some(pod.netns_path.clone()),
        argv,
        cwd: spec.working_dir.clone().unwrap_or_else(|| Path::new("/").to_owned()),
        terminal: false,
    })
}

/// Linux' limit for a host name is 64 bytes, Kubernetes cuts at 63.
const HOSTNAME_CHARS_MAX: usize = 63;

/// The specified environment over the defaults; of a name given twice the last counts.
fn environment(specified: &[(String, String)], path: &str, hostname: &str) -> Vec<(String, String)> {
    let defaults = [("PATH", path), ("HOME", "/root"), ("HOSTNAME", hostname)];
    let mut merged: Vec<(String, String)> = Vec::new();
    let mut position: HashMap<String, usize> = HashMap::new();
    let defaults = defaults.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in defaults.chain(specified.iter().cloned()) {
        match position.get(&name).and_then(|&at| merged.get_mut(at)) {
            Some(entry) => entry.1 = value,
            None => {
                position.insert(name.clone(), merged.len());
                merged.push((name, value));
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specified_environment_overrides_defaults_and_the_last_wins() {
        let specified = [("A", "1"), ("PATH", "/x"), ("A", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let merged = environment(&specified, "/bin", "host");
        let lookup = |name: &str| merged.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(lookup("PATH"), Some("/x"));
        assert_eq!(lookup("A"), Some("2"));
        assert_eq!(lookup("HOSTNAME"), Some("host"));
        assert_eq!(merged.len(), 4);
    }

    #[test]
    fn exit_codes_name_signals() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let id = random_id();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, random_id());
    }
}
