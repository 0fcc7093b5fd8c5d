//! The proxies of a town: plain processes, told everything by their environment.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mesh_sys::netns::NetNs;
use tempfile::TempDir;

use crate::args::Args;
use crate::town::{Running, Variant, pod_ip};
use crate::zds::{self, Enrolment};

/// Which programs take part.
pub(crate) struct Programs {
    ourselves: PathBuf,
    ztunnel: PathBuf,
    pub(crate) peer: Option<PathBuf>,
    workers: usize,
    /// Which ways are wanted; all if empty.
    pub(crate) variants: Vec<Variant>,
}

impl Programs {
    /// Looks beside this program for those that are not named.
    pub(crate) fn find(args: &Args) -> Result<Self> {
        let ourselves = std::env::current_exe().context("where this program is")?;
        let ztunnel = args.ztunnel.clone().unwrap_or_else(|| ourselves.with_file_name("ztunnel"));
        for program in std::iter::once(&ztunnel).chain(&args.peer) {
            ensure!(program.is_file(), "{} is no program: build it, or name another one", program.display());
        }
        Ok(Self { ourselves, ztunnel, peer: args.peer.clone(), workers: args.workers, variants: args.variants.clone() })
    }

    /// Starts this program in a pod, in another role.
    pub(crate) fn ourselves(&self, netns: &NetNs, args: &[&str], pipes: Stdio) -> Result<Running> {
        let mut command = Command::new(&self.ourselves);
        command.args(args).stdin(Stdio::piped()).stdout(pipes);
        let started = netns.run(|| command.spawn())?.with_context(|| format!("starting {args:?}"))?;
        Ok(Running(started))
    }

    fn of(&self, variant: Variant) -> Result<&Path> {
        match variant {
            Variant::Peer => self.peer.as_deref().context("no peer was named"),
            Variant::Direct | Variant::Meltemi => Ok(&self.ztunnel),
        }
    }
}

/// The proxies of both nodes.
pub(crate) struct Proxies {
    /// Client's side first.
    running: [Running; 2],
    _files: TempDir,
}

impl Proxies {
    /// Starts one on each node and hands it the node's pod; all that they know else is in `local_file`.
    pub(crate) fn start(
        variant: Variant,
        programs: &Programs,
        nodes: [(&Arc<NetNs>, &Arc<NetNs>); 2],
        local_file: &str,
    ) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let workloads = files.path().join("workloads.yaml");
        std::fs::write(&workloads, local_file).context("writing the workload file")?;
        let program = programs.of(variant)?;
        let start = |number: u8, (node, pod): (&Arc<NetNs>, &Arc<NetNs>)| {
            let socket = files.path().join(format!("zds-{number}"));
            let enrolled = zds::serve(socket.clone(), enrolment(number, pod))?;
            let log = File::create(files.path().join(format!("log-{number}")))?;
            let mut command = Command::new(program);
            command
                .env_clear()
                .envs([("FAKE_CA", "true"), ("XDS_ADDRESS", ""), ("CLUSTER_ID", "Kubernetes"), ("NETWORK", "")])
                .envs([("PROXY_MODE", "shared"), ("INPOD_ENABLED", "true"), ("IPV6_ENABLED", "false")])
                .env("ZTUNNEL_WORKER_THREADS", programs.workers.to_string())
                .env("NODE_NAME", node_name(number))
                .env("INPOD_UDS", &socket)
                .env("LOCAL_XDS_PATH", &workloads)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            let started = node.run(|| command.spawn())?.with_context(|| program.display().to_string())?;
            let running = Running(started);
            enrolled.wait().with_context(|| {
                let log = std::fs::read_to_string(files.path().join(format!("log-{number}"))).unwrap_or_default();
                let end = log.lines().rev().take(5).collect::<Vec<_>>();
                format!("{} on node {number}; its last words, newest first: {end:?}", program.display())
            })?;
            anyhow::Ok(running)
        };
        let [first, second] = nodes;
        let running = [start(1, first)?, start(2, second)?];
        Ok(Self { running, _files: files })
    }

    /// Of the client's node and of the server's.
    pub(crate) fn pids(&self) -> [u32; 2] {
        self.running.each_ref().map(Running::pid)
    }
}

fn node_name(number: u8) -> &'static str {
    if number == 1 { "node-1" } else { "node-2" }
}

fn enrolment(number: u8, netns: &Arc<NetNs>) -> Enrolment {
    let name = if number == 1 { "client" } else { "server" };
    Enrolment {
        uid: format!("00000000-0000-0000-0000-00000000000{number}"),
        name: name.to_owned(),
        namespace: "bench".to_owned(),
        service_account: name.to_owned(),
        netns: netns.clone(),
    }
}

/// Both pods, and `more` that nobody talks to.
pub(crate) fn local_file(more: usize) -> String {
    let mut text = "workloads:\n".to_owned();
    let mut add = |name: &str, account: &str, ip: &str, node: &str| {
        let _ = writeln!(
            text,
            "- {{uid: Kubernetes//Pod/bench/{name}, name: {name}, namespace: bench, serviceAccount: {account}, \
             workloadIps: [{ip}], protocol: HBONE, node: {node}, trustDomain: cluster.local, canonicalName: {account}, \
             canonicalRevision: latest, workloadName: {account}, workloadType: deployment, clusterId: Kubernetes}}"
        );
    };
    add("client", "client", &pod_ip(1).to_string(), node_name(1));
    add("server", "server", &pod_ip(2).to_string(), node_name(2));
    for number in 0..more {
        let ip = format!("10.{}.{}.{}", 100 + number / 62_500, number / 250 % 250, number % 250 + 1);
        let (app, node) = (number / 5 % 400, number % 100);
        add(&format!("app-{app}-{number:05}"), &format!("app-{app}"), &ip, &format!("far-node-{node}"));
    }
    text
}
