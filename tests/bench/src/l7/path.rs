//! The full way of a request through the mesh: three nodes, of which the first has the client, the second the server and
//! the third the waypoint.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh_sys::netns::NetNs;
use tempfile::TempDir;

use super::config::Place;
use super::proxies::{Way, start, waypoint};
use super::{HBONE_PORT, VIP};
use crate::args::Args;
use crate::proxy::{Programs, Proxies, local_file};
use crate::serve::HTTP_PORT;
use crate::town::{Running, Town, Variant, capture, join, namespace, pod_ip, switch, wait_for_an_answer};

/// The way, and beside it the same without any proxy; all ends when this is dropped.
pub(super) struct Path {
    direct: Town,
    client: Arc<NetNs>,
    server: Running,
    node_proxies: Proxies,
    waypoint: Running,
    _config: Running,
    _files: TempDir,
    _switch: NetNs,
    _namespaces: Vec<Arc<NetNs>>,
}

impl Path {
    /// Starts all of it; returns when a request gets through.
    pub(super) fn lay(args: &Args, routes: usize) -> Result<Self> {
        let programs = Programs::find(args)?;
        let direct = Town::build(Variant::Direct, &programs)?;
        let switch = switch()?;
        let (nodes, pods) = (three()?, three()?);
        for ((node, pod), number) in nodes.iter().zip(&pods).zip(1..) {
            join(&switch, node, pod, number)?;
        }
        let [client, server, third] = &pods;
        // A waypoint speaks for itself: nobody takes its traffic.
        [client, server].into_iter().try_for_each(|pod| capture(pod))?;
        let answering = programs.ourselves(server, &["serve"], Stdio::null())?;
        let mut config = Command::new(std::env::current_exe().context("where this program is")?);
        config.args(["config", "--place", "waypoint", "--routes", &routes.to_string()]);
        let config = start(third, config)?;
        let files = tempfile::tempdir()?;
        let waypoint = start(third, waypoint(args, Place::Waypoint, pod_ip(3), &files)?)?;
        let [first, second, _] = &nodes;
        let node_proxies =
            Proxies::start(Variant::Meltemi, &programs, [(first, client), (second, server)], &workloads())?;
        wait_for_an_answer(client, VIP.into()).with_context(|| {
            let log = std::fs::read_to_string(files.path().join("waypoint")).unwrap_or_default();
            format!("the waypoint's last words: {:?}", log.lines().rev().take(5).collect::<Vec<_>>())
        })?;
        Ok(Self {
            direct,
            client: client.clone(),
            server: answering,
            node_proxies,
            waypoint,
            _config: config,
            _files: files,
            _switch: switch,
            _namespaces: nodes.into_iter().chain(pods).collect(),
        })
    }

    /// From pod to pod, then through everything.
    pub(super) fn ways(&self) -> Vec<Way<'_>> {
        let [source, destination] = self.node_proxies.pids();
        let direct = Way {
            netns: self.direct.client_netns(),
            server: SocketAddr::from((pod_ip(2), HTTP_PORT)),
            server_pid: self.direct.server_pid(),
            proxies: Vec::new(),
        };
        let full = Way {
            netns: &self.client,
            server: VIP.into(),
            server_pid: self.server.pid(),
            proxies: vec![
                ("client's node proxy", source),
                ("waypoint", self.waypoint.pid()),
                ("server's node proxy", destination),
            ],
        };
        vec![direct, full]
    }
}

fn three() -> Result<[Arc<NetNs>; 3]> {
    Ok([namespace()?, namespace()?, namespace()?].map(Arc::new))
}

/// What the node proxies know: both pods, the waypoint, and the service that is called through it.
fn workloads() -> String {
    let (vip, port) = VIP;
    let ip = pod_ip(3);
    local_file(0)
        + &format!(
            "- {{uid: Kubernetes//Pod/bench/edge, name: edge, namespace: bench, serviceAccount: edge, workloadIps: [{ip}], \
             protocol: HBONE, node: node-3, trustDomain: cluster.local, clusterId: Kubernetes}}\n\
             services:\n\
             - {{name: web, namespace: bench, hostname: web.bench.svc.cluster.local, vips: [/{vip}], ports: {{{port}: \
             {HTTP_PORT}}}, waypoint: {{destination: /{ip}, hboneMtlsPort: {HBONE_PORT}}}}}\n"
        )
}
