//! The container runtime of one node: pod sandboxes (network namespaces made through the CNI
//! chain) and container processes on the host's file system.
//!
//! The kubelet is the only caller. Every method is cheap to call from async code: the slow parts
//! (namespaces, mounts, plugins) run in helper processes or on blocking threads.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_sys::netns::NetNs;
use tokio::sync::watch;

use crate::backend::{BackendError, BoxDuplex, ExecRequest, ExecSession, LogOptions, LogStream};
use crate::images::ImageTable;

pub mod backend;
mod container;
mod cri_log;
pub mod enter;
mod exec;
mod launch;
mod node_paths;
mod pod;
pub(crate) mod proc_view;
mod root_fs;

/// What other users of helper processes need (the CNI chain, commands on a node).
pub(crate) mod support {
    pub(crate) use super::container::exit_code;
    pub(crate) use super::enter::EnterSpec;
    pub(crate) use super::launch::{StandardStreams, launch};
    pub(crate) use super::root_fs::node_world;
}

/// The file of a node's directory on which the node's network namespace is mounted.
pub(crate) const NODE_NETNS_FILE: &str = "proc/1/ns/net";

/// The directory of a node's directory on which container roots are assembled.
pub(crate) const STAGING_DIR: &str = "staging";

/// What a node's runtime is made from.
#[derive(Debug)]
pub struct NodeConfig {
    /// The node's name, `node-1`.
    pub name: String,
    /// The node's own addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// The node's network namespace.
    pub netns: NetNs,
    /// The node's "host file system": `nodes/<name>` of the state directory. Absolute.
    pub root: PathBuf,
    /// Which programs our image names stand for.
    pub images: Arc<ImageTable>,
}

/// The container runtime of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct NodeRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NodeConfig,
    proc_view: Arc<proc_view::ProcView>,
    /// By pod uid. Held for look-ups only, never across a wait.
    pods: Mutex<HashMap<String, Arc<pod::Pod>>>,
}

impl NodeRuntime {
    /// The runtime of a node whose network and directories exist.
    pub fn new(config: NodeConfig) -> Self {
        let proc_view = Arc::new(proc_view::ProcView::new(config.root.join("proc")));
        Self { inner: Arc::new(Inner { config, proc_view, pods: Mutex::new(HashMap::new()) }) }
    }

    /// Makes the pod's network namespace and runs the CNI chain (`ADD`), or returns the existing
    /// sandbox of that uid. After an error nothing is left behind, so that a retry starts afresh.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Network`] when a plugin refused, [`RuntimeError::Io`] otherwise. Both may be
    /// retried with back-off.
    pub async fn run_pod(&self, spec: &PodSandboxSpec) -> Result<PodSandbox, RuntimeError> {
        pod::run(self, spec).await
    }

    /// Kills what still runs in the pod, runs the CNI chain (`DEL`, in reverse order) and drops the
    /// network namespace. Succeeds when there is no such pod.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Network`] when a plugin failed on `DEL`; the sandbox is gone all the same.
    pub async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError> {
        pod::remove(self, uid).await
    }

    /// Starts a container in an existing sandbox. Returns when its program has been executed.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::UnknownPod`], [`RuntimeError::AlreadyRunning`],
    /// [`RuntimeError::UnknownImage`] and [`RuntimeError::Start`] as they say.
    pub async fn start_container(&self, uid: &str, spec: ContainerSpec) -> Result<Container, RuntimeError> {
        container::start(self, &*self.pod(uid)?, spec).await
    }

    /// Sends `SIGTERM`, waits up to `grace`, then kills; returns the exit code once all of the
    /// container's processes are gone. A container that has ended already just reports its code.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::UnknownPod`] and [`RuntimeError::UnknownContainer`].
    pub async fn stop_container(&self, uid: &str, name: &str, grace: Duration) -> Result<i32, RuntimeError> {
        container::stop(self.pod(uid)?.container(name)?, grace).await
    }

    /// Sends a signal to the container's main process.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::UnknownPod`] and [`RuntimeError::UnknownContainer`] (also when it ended).
    pub fn signal_container(&self, uid: &str, name: &str, signal: i32) -> Result<(), RuntimeError> {
        self.pod(uid)?.container(name)?.signal(signal)
    }

    /// Runs a command inside a running container. Dropping the session kills nothing; closing its
    /// streams is what a terminal hang-up would be.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::UnknownPod`], [`RuntimeError::UnknownContainer`], and
    /// [`RuntimeError::Start`] when the program cannot be executed.
    pub async fn exec(&self, uid: &str, container: &str, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        exec::start(self, self.pod(uid)?.container(container)?, request).await
    }

    /// Reads a container's log, also of one that has ended or (`previous`) was replaced.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotFound`] when there is no such log.
    pub fn logs(&self, uid: &str, container: &str, options: &LogOptions) -> Result<LogStream, BackendError> {
        backend::logs(self, uid, container, options)
    }

    /// Connects to `127.0.0.1:port`, then `[::1]:port`, inside the pod's network namespace.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::UnknownPod`], and [`RuntimeError::Io`] when nothing listens there.
    pub async fn port_forward(&self, uid: &str, port: u16) -> Result<BoxDuplex, RuntimeError> {
        backend::connect_loopback(self, uid, port).await
    }

    /// The pod's network namespace (the node's for a host-network pod).
    pub fn netns(&self, uid: &str) -> Option<NetNs> {
        self.pod(uid).ok()?.netns.try_clone().ok()
    }

    /// The node's network namespace: probes and other traffic of the node itself start here.
    pub fn node_netns(&self) -> &NetNs {
        &self.inner.config.netns
    }

    /// Where a `hostPath` of this node lives on the sandbox host. The system's own trees (`/usr`,
    /// `/sys`, `/dev`, `/lib/modules`) are the host's, all else is below the node's directory;
    /// the parent directory is created, the path itself is left to the caller
    /// ([`NodeRuntime::start_container`] creates a directory for a mount source that is missing).
    pub fn host_path(&self, path: &Path) -> PathBuf {
        let mapped = node_paths::map(&self.inner.config.root, path);
        if let Some(parent) = mapped.parent() {
            // A failure shows as the error of whoever uses the path, with its name.
            let _ = std::fs::create_dir_all(parent);
        }
        mapped
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        &self.inner.config.name
    }

    /// The node's addresses, IPv4 first.
    pub fn node_ips(&self) -> &[IpAddr] {
        &self.inner.config.ips
    }

    /// The node's directory; volumes may be kept below it.
    pub fn node_root(&self) -> &Path {
        &self.inner.config.root
    }

    /// The uids of all sandboxes, sorted.
    pub fn pods(&self) -> Vec<String> {
        let mut uids: Vec<String> = self.table().keys().cloned().collect();
        uids.sort();
        uids
    }

    /// The file that names the node's network namespace for helper processes.
    pub(crate) fn node_netns_path(&self) -> PathBuf {
        self.node_root().join(NODE_NETNS_FILE)
    }

    /// The directory on which roots are assembled, each in a mount namespace of its own.
    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.node_root().join(STAGING_DIR)
    }

    /// `PATH` of processes that bring none.
    pub(crate) fn search_path(&self) -> String {
        self.inner.config.images.search_path()
    }

    /// The directory of built binaries.
    pub(crate) fn bin_dir(&self) -> &Path {
        self.inner.config.images.bin_dir()
    }

    /// The uid of the sandbox of the pod with this name.
    pub fn find_pod(&self, namespace: &str, name: &str) -> Option<String> {
        let table = self.table();
        let mut pods = table.values();
        let pod = pods.find(|pod| pod.spec.namespace == namespace && pod.spec.name == name)?;
        Some(pod.spec.uid.clone())
    }

    /// What the control socket tells of this node.
    pub(crate) fn status(&self) -> crate::control::NodeStatus {
        crate::control::NodeStatus {
            name: self.node_name().to_owned(),
            ips: self.node_ips().to_vec(),
            pods: self.table().len(),
        }
    }

    /// The names of the containers that run in a pod, sorted.
    pub fn running_containers(&self, uid: &str) -> Vec<String> {
        self.pod(uid).map(|pod| pod.running()).unwrap_or_default()
    }

    fn images(&self) -> &ImageTable {
        &self.inner.config.images
    }

    fn pod(&self, uid: &str) -> Result<Arc<pod::Pod>, RuntimeError> {
        self.table()
            .get(uid)
            .cloned()
            .ok_or_else(|| RuntimeError::UnknownPod { uid: uid.to_owned(), node: self.node_name().to_owned() })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<pod::Pod>>> {
        // The table is only ever inserted to and removed from: a panic cannot leave it half done.
        self.inner.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes up a pod sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSandboxSpec {
    /// `metadata.uid`; the key of every other call.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `spec.hostNetwork`: the pod shares the node's network namespace and no plugin runs.
    pub host_network: bool,
}

/// A pod sandbox that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSandbox {
    /// Addresses in the order the CNI chain reported them (IPv4 first), or the node's own
    /// addresses for a host-network pod. `status.podIPs` takes them as they are.
    pub ips: Vec<IpAddr>,
}

/// How mounts made on the node after the container started reach it
/// (`volumeMounts[].mountPropagation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// They do not (`None`).
    #[default]
    Private,
    /// They do (`HostToContainer`; `Bidirectional` is treated the same).
    HostToContainer,
}

/// One bind mount into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path inside the container; created when missing.
    pub target: PathBuf,
    /// File or directory of the sandbox host (`subPath` already applied).
    pub source: PathBuf,
    /// Writes through this mount fail.
    pub read_only: bool,
    /// What happens to later mounts below `source`.
    pub propagation: Propagation,
}

/// What a container runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSpec {
    /// `containers[].name`, unique in the pod.
    pub name: String,
    /// `containers[].image`; looked up in the image table.
    pub image: String,
    /// `containers[].command`: replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// `containers[].args`.
    pub args: Vec<String>,
    /// The whole environment but `PATH`, `HOME` and `HOSTNAME`, which get defaults.
    pub env: Vec<(String, String)>,
    /// `containers[].workingDir`; `/` when absent.
    pub working_dir: Option<PathBuf>,
    /// Volumes and the kubelet's own files (`/etc/hosts`, `/etc/resolv.conf`).
    pub mounts: Vec<Mount>,
    /// How often it was started before; names the log file.
    pub restart_count: u32,
}

/// A container that was started.
#[derive(Debug, Clone)]
pub struct Container {
    /// 64 hex digits, unique per start; `status.containerID` is `sandbox://<id>`.
    pub id: String,
    /// Its main process in the sandbox's process id namespace.
    pub pid: i32,
    /// `None` while it runs, then the exit code (128 + signal number when a signal ended it).
    /// All output has been written to the log before the value changes.
    pub exited: watch::Receiver<Option<i32>>,
}

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No sandbox with this uid on this node. Not retryable.
    #[error("pod {uid} has no sandbox on node {node}")]
    UnknownPod {
        /// The pod's uid.
        uid: String,
        /// The node that was asked.
        node: String,
    },
    /// No such container was started in the pod. Not retryable.
    #[error("container {container:?} of pod {uid} is not running")]
    UnknownContainer {
        /// The pod's uid.
        uid: String,
        /// The container's name.
        container: String,
    },
    /// A container of that name still runs. Stop it first.
    #[error("container {container:?} of pod {uid} is already running")]
    AlreadyRunning {
        /// The pod's uid.
        uid: String,
        /// The container's name.
        container: String,
    },
    /// The image is not in the table and the container has no command
    /// (reason `ErrImagePull`). Not retryable without a change of the pod.
    #[error(
        "image {image:?} is not known to the sandbox and the container has no command: set `command`, it runs from the host's file system"
    )]
    UnknownImage {
        /// `containers[].image`.
        image: String,
    },
    /// The network could not be set up (reason `FailedCreatePodSandBox`). Retry with back-off.
    #[error("setting up the network of pod {uid}")]
    Network {
        /// The pod's uid.
        uid: String,
        /// What the CNI chain said.
        source: crate::cni_chain::CniError,
    },
    /// The container's process could not be started (reason `StartError`).
    #[error("starting container {container:?}: {reason}")]
    Start {
        /// The container's name.
        container: String,
        /// Which step failed and why.
        reason: String,
    },
    /// A system call of the runtime itself failed. Retry with back-off.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}
