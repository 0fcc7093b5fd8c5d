//! The daemon: everything of a sandbox that is not a pod, in one process.
//!
//! `up` (in [`bootstrap`]) leaves the host's namespaces and starts [`init`], the first process of a
//! new process id namespace, which prepares the mounts, starts the daemon and reaps orphans. When
//! either ends, the kernel ends every process of the sandbox; namespaces, mounts and rules go with
//! the last of them. There is nothing to clean up but files.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::control::Status;
use crate::control::server::Control;
use crate::fabric::{self, Plan, node_dir};
use crate::images::ImageTable;
use crate::runtime::backend::Nodes;
use crate::runtime::{NodeConfig, NodeRuntime};

pub mod bootstrap;
mod cluster;
pub mod init;
pub mod state;

/// First argument that turns the executable into the daemon; the second is [`Options`] as JSON.
pub const DAEMON_ARGUMENT: &str = "__daemon";

/// Descriptor over which the daemon tells `up` that it is ready, or why not.
pub const READY_FD: i32 = 3;

/// Descriptor of the listening socket in the host's network namespace.
pub const LISTENER_FD: i32 = 4;

/// Port of the API server on the fabric.
pub const API_PORT: u16 = 6443;

/// What a sandbox is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// State directory; absolute, exists.
    pub dir: PathBuf,
    /// Directory of the built binaries; absolute.
    pub bin_dir: PathBuf,
    /// The sandbox's own program; absolute.
    pub executable: PathBuf,
    /// Number of nodes.
    pub nodes: u32,
    /// Whether there are IPv6 addresses.
    pub ipv6: bool,
    /// The sandbox shall end with the process that started it.
    pub foreground: bool,
}

/// What the daemon tells `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// It serves.
    Ready(Status),
    /// It gave up; why.
    Failed(String),
}

impl Readiness {
    /// Sends this to `up`. A starter that left is no reason to fail.
    pub(crate) fn tell(&self, channel: &mut UnixStream) {
        let text = serde_json::to_string(self).unwrap_or_default();
        let _ = channel.write_all(text.as_bytes());
    }
}

/// Runs the daemon until it is told to stop; the result is the process's exit code.
pub fn main(options: &str) -> u8 {
    let inherited = (mesh_sys::process::inherited_fd(READY_FD), mesh_sys::process::inherited_fd(LISTENER_FD));
    let (Ok(ready), Ok(listener)) = inherited else { return 2 };
    let mut ready = UnixStream::from(ready);
    let _ = nix::sys::prctl::set_name(init::PROCESS_NAME);
    // The first process blocks what it waits for, and that is inherited.
    let _ = mesh_sys::process::init_signals().thread_unblock();
    raise_descriptor_limit();
    let outcome = serde_json::from_str(options)
        .context("reading the daemon's options")
        .and_then(|options| serve(&options, TcpListener::from(listener), &mut ready));
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "sandbox failed");
            Readiness::Failed(format!("{error:#}")).tell(&mut ready);
            1
        }
    }
}

/// A pod takes a handful of descriptors, a connection through a proxy two: the usual soft limit of
/// 1024 is for programs that use select(2). Containers inherit what is set here.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // The lower limit stays in force where this is refused.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn serve(options: &Options, listener: TcpListener, ready: &mut UnixStream) -> anyhow::Result<()> {
    let _log = mesh_telemetry::log::init(mesh_telemetry::log::Options {
        component: "sandbox",
        format: mesh_telemetry::log::Format::Plain,
        default_filter: "info".to_owned(),
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(options, listener, ready));
    // Tasks of the cluster end with the process, at once.
    runtime.shutdown_background();
    outcome
}

async fn run(options: &Options, listener: TcpListener, ready: &mut UnixStream) -> anyhow::Result<()> {
    let plan = Plan::new(options.nodes, options.ipv6);
    let nodes = {
        let (options, plan) = (options.clone(), plan.clone());
        tokio::task::spawn_blocking(move || build_nodes(&options, &plan)).await??
    };
    let nodes = Nodes::new(nodes);
    let socket = Control::listen(&options.dir).context("making the control socket")?;
    let (api, status) = cluster::start(options, &plan, &nodes, listener).await?;
    let down = Arc::new(Notify::new());
    let control = Arc::new(Control::new(api, nodes, status.clone(), Arc::clone(&down)));
    tokio::spawn(control.serve(socket));
    tracing::info!(api_server = %status.api_server, nodes = plan.nodes.len(), "sandbox is up");
    Readiness::Ready(status).tell(ready);
    ready.shutdown(std::net::Shutdown::Both).ok();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = down.notified() => tracing::info!("sandbox was told to stop"),
        _ = terminate.recv() => tracing::info!("sandbox got a signal to stop"),
        _ = interrupt.recv() => tracing::info!("sandbox was interrupted"),
    }
    Ok(())
}

/// Makes the network and the directories of all nodes. Blocks.
fn build_nodes(options: &Options, plan: &Plan) -> anyhow::Result<Vec<NodeRuntime>> {
    let namespaces = fabric::build(plan)?;
    let images = Arc::new(ImageTable::new(&options.bin_dir));
    let mut nodes = Vec::with_capacity(namespaces.len());
    for (node, netns) in plan.nodes.iter().zip(namespaces) {
        let root = options.dir.join(state::NODES_DIR).join(&node.name);
        node_dir::prepare(&root, node, &netns, &options.executable, &options.bin_dir)
            .with_context(|| format!("making the directory of {}", node.name))?;
        nodes.push(NodeRuntime::new(NodeConfig {
            name: node.name.clone(),
            ips: node.ips.clone(),
            netns,
            root,
            images: Arc::clone(&images),
        }));
    }
    Ok(nodes)
}
