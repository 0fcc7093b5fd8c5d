//! Pod sandboxes: a network namespace, its place in the node's file system, and the CNI chain.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_sys::mount::{self, MountError};
use mesh_sys::netns::NetNs;

use super::container::{self, Instance, random_id};
use super::proc_view::ProcView;
use super::{NodeRuntime, PodSandbox, PodSandboxSpec, RuntimeError};
use crate::cni_chain::{Attachment, Chain};

/// Where pinned namespaces live on a node.
pub(crate) const NETNS_DIR: &str = "run/netns";

/// A pod sandbox.
#[derive(Debug)]
pub(crate) struct Pod {
    /// What was asked for.
    pub(crate) spec: PodSandboxSpec,
    /// The pod's network namespace; its descriptor is what the pause process of the node's
    /// `/proc` leads to, so it lives exactly as long as the sandbox.
    pub(crate) netns: NetNs,
    /// File that names the namespace for helper processes.
    pub(crate) netns_path: PathBuf,
    /// Log directory of the pod.
    pub(crate) log_dir: PathBuf,
    /// The node's view of processes.
    pub(crate) proc_view: Arc<ProcView>,
    ips: Vec<std::net::IpAddr>,
    /// The CNI attachment; `None` for a host-network pod.
    attachment: Option<Attachment>,
    pause_pid: Option<i32>,
    /// The newest start of each container, by name.
    containers: Mutex<HashMap<String, Arc<Instance>>>,
}

impl Pod {
    /// The newest start of a container.
    pub(crate) fn container(&self, name: &str) -> Result<Arc<Instance>, RuntimeError> {
        self.table()
            .get(name)
            .cloned()
            .ok_or_else(|| RuntimeError::UnknownContainer { uid: self.spec.uid.clone(), container: name.to_owned() })
    }

    /// Puts a new start in place of the one before.
    pub(crate) fn register(&self, instance: Arc<Instance>) {
        self.table().insert(instance.name.clone(), instance);
    }

    /// Names of the running containers, sorted.
    pub(crate) fn running(&self) -> Vec<String> {
        let table = self.table();
        let running = table.values().filter(|instance| instance.running());
        let mut names: Vec<String> = running.map(|instance| instance.name.clone()).collect();
        names.sort();
        names
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Instance>>> {
        // Only ever inserted to: a panic cannot leave it half done.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a sandbox, or returns the one there is.
pub(crate) async fn run(node: &NodeRuntime, spec: &PodSandboxSpec) -> Result<PodSandbox, RuntimeError> {
    if let Ok(pod) = node.pod(&spec.uid) {
        return Ok(PodSandbox { ips: pod.ips.clone() });
    }
    let pod = if spec.host_network { on_host_network(node, spec)? } else { on_pod_network(node, spec).await? };
    let ips = pod.ips.clone();
    node.table().insert(spec.uid.clone(), Arc::new(pod));
    Ok(PodSandbox { ips })
}

fn on_host_network(node: &NodeRuntime, spec: &PodSandboxSpec) -> Result<Pod, RuntimeError> {
    let netns = node.node_netns().try_clone().map_err(|source| io_error("sharing the node's namespace", source))?;
    Ok(Pod {
        spec: spec.clone(),
        netns,
        netns_path: node.node_root().join(super::NODE_NETNS_FILE),
        log_dir: log_dir(node, spec),
        proc_view: Arc::clone(&node.inner.proc_view),
        ips: node.node_ips().to_vec(),
        attachment: None,
        pause_pid: None,
        containers: Mutex::default(),
    })
}

async fn on_pod_network(node: &NodeRuntime, spec: &PodSandboxSpec) -> Result<Pod, RuntimeError> {
    let id = random_id();
    let file_name = format!("cni-{}", id.get(..32).unwrap_or(&id));
    let netns_path = node.node_root().join(NETNS_DIR).join(&file_name);
    let pin_path = netns_path.clone();
    let netns = blocking(move || pinned_netns(&pin_path))
        .await
        .map_err(|source| io_error("making the pod's network namespace", source))?;
    let proc_view = Arc::clone(&node.inner.proc_view);
    let pause_pid = proc_view.add_pause(&spec.uid, &id, netns.as_fd().as_raw_fd());
    let attachment = Attachment {
        container_id: id,
        // As plugins and the node agent see it.
        netns: format!("/var/run/netns/{file_name}"),
        pod_name: spec.name.clone(),
        pod_namespace: spec.namespace.clone(),
        pod_uid: spec.uid.clone(),
    };
    let chain = Chain::of(node);
    let added = chain.add(&attachment).await;
    let ips = match added {
        Ok(result) => result.ips(),
        Err(source) => {
            // What the plugins before the failing one made; their complaints about the rest of
            // it would only hide the reason.
            let _ = chain.delete(&attachment).await;
            proc_view.remove_process(pause_pid);
            unpin(netns_path).await;
            return Err(RuntimeError::Network { uid: spec.uid.clone(), source });
        }
    };
    Ok(Pod {
        spec: spec.clone(),
        netns,
        netns_path,
        log_dir: log_dir(node, spec),
        proc_view,
        ips,
        attachment: Some(attachment),
        pause_pid: Some(pause_pid),
        containers: Mutex::default(),
    })
}

/// Ends everything of a pod and forgets it.
pub(crate) async fn remove(node: &NodeRuntime, uid: &str) -> Result<(), RuntimeError> {
    let Some(pod) = node.table().remove(uid) else { return Ok(()) };
    let instances: Vec<Arc<Instance>> = pod.table().values().cloned().collect();
    let stops = instances.into_iter().map(|instance| container::stop(instance, Duration::ZERO));
    // The only failure is one that has ended already.
    let _ = futures::future::join_all(stops).await;
    if let Some(pause) = pod.pause_pid {
        pod.proc_view.remove_process(pause);
    }
    let log_dir = pod.log_dir.clone();
    let _ = blocking(move || fs::remove_dir_all(log_dir)).await;
    let Some(attachment) = &pod.attachment else { return Ok(()) };
    let deleted = Chain::of(node).delete(attachment).await;
    unpin(pod.netns_path.clone()).await;
    deleted.map_err(|source| RuntimeError::Network { uid: uid.to_owned(), source })
}

/// A new network namespace, mounted at `path` so that others can open it.
fn pinned_netns(path: &Path) -> io::Result<NetNs> {
    let netns = NetNs::create()?;
    fs::write(path, "")?;
    let own = PathBuf::from(format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd()));
    mount::bind(&own, path).map_err(mount_error)?;
    Ok(netns)
}

async fn unpin(path: PathBuf) {
    let result = blocking(move || {
        mount::detach(&path).map_err(mount_error)?;
        fs::remove_file(&path)
    })
    .await;
    if let Err(error) = result {
        tracing::warn!(%error, "network namespace could not be unpinned");
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn log_dir(node: &NodeRuntime, spec: &PodSandboxSpec) -> PathBuf {
    let name = format!("{}_{}_{}", spec.namespace, spec.name, spec.uid);
    node.node_root().join("var/log/pods").join(name)
}

fn io_error(what: &str, source: io::Error) -> RuntimeError {
    RuntimeError::Io { what: what.to_owned(), source }
}

fn mount_error(error: MountError) -> io::Error {
    io::Error::new(error.source.kind(), format!("{error}: {}", error.source))
}
