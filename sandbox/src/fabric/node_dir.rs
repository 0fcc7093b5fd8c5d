//! A node's "host file system": the directory that stands for `/` in `hostPath` volumes and CNI
//! plugins.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mesh_sys::mount::{self, MountError, Propagation};
use mesh_sys::netns::NetNs;

use super::{NodePlan, POD_BRIDGE};
use crate::bridge;
use crate::runtime::{STAGING_DIR, proc_view};

/// Directories every node has.
const DIRECTORIES: &[&str] = &[
    "etc/cni/net.d",
    "opt/cni/bin",
    "proc",
    "run/istio-cni",
    "run/netns",
    "run/ztunnel",
    "tmp",
    "var/lib/cni",
    "var/lib/kubelet",
    "var/log/pods",
    STAGING_DIR,
];

/// The network configuration that a fresh node has.
const CONFLIST: &str = "etc/cni/net.d/10-sandbox.conflist";

/// Where plugins keep address leases, as they see it.
const LEASES: &str = "/var/lib/cni/networks/sandbox";

/// Why a node's directory could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeDirError {
    /// A file or directory could not be written.
    #[error("preparing {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A mount was refused.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Makes the directory of a node. `executable` is the sandbox's own program, which is also the CNI
/// plugin; `bin_dir` is visible to plugins at its own path.
///
/// # Errors
///
/// See [`NodeDirError`].
pub fn prepare(
    root: &Path,
    node: &NodePlan,
    netns: &NetNs,
    executable: &Path,
    bin_dir: &Path,
) -> Result<(), NodeDirError> {
    for directory in DIRECTORIES {
        let path = root.join(directory);
        fs::create_dir_all(&path).map_err(at(&path))?;
    }
    let var_run = root.join("var/run");
    symlink("../run", &var_run).map_err(at(&var_run))?;
    let conflist = root.join(CONFLIST);
    let text = format!("{:#}\n", bridge::conflist(POD_BRIDGE, &node.pod_cidrs, LEASES));
    fs::write(&conflist, text).map_err(at(&conflist))?;
    install_plugin(&root.join("opt/cni/bin").join(bridge::PLUGIN_NAME), executable, bin_dir)?;
    let proc = root.join("proc");
    let netns_file = proc_view::prepare(&proc).map_err(at(&proc))?;
    let own = PathBuf::from(format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd()));
    mount::bind(&own, &netns_file)?;
    // Namespaces get mounted below `run` as pods come; containers that asked to follow see them.
    let run = root.join("run");
    mount::bind(&run, &run)?;
    mount::propagate(&run, Propagation::Shared)?;
    Ok(())
}

/// A link where plugins can follow it, which costs nothing; else a copy.
fn install_plugin(target: &Path, executable: &Path, bin_dir: &Path) -> Result<(), NodeDirError> {
    if executable.starts_with(bin_dir) {
        symlink(executable, target).map_err(at(target))
    } else {
        fs::copy(executable, target).map(drop).map_err(at(target))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> NodeDirError {
    let path = path.to_owned();
    move |source| NodeDirError::File { path, source }
}
