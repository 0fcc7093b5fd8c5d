//! The proxies of a case, and the server behind them.

use std::fmt::Write;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_sys::netns::NetNs;
use tempfile::TempDir;

use super::config::GATEWAY;
use super::{CONFIG_PORT, OUR_PORT, PEER_PORT, Place};
use crate::args::Args;
use crate::serve::HTTP_PORT;
use crate::town::Running;

/// A way to the server.
pub(super) struct Way<'a> {
    /// Of the client.
    pub(super) netns: &'a NetNs,
    /// Whom the client calls.
    pub(super) server: SocketAddr,
    pub(super) server_pid: u32,
    /// Names and processes of those in between, in the order of a request.
    pub(super) proxies: Vec<(&'static str, u32)>,
}

/// Everything in one network namespace; it ends when this is dropped.
pub(super) struct Stage {
    pub(super) netns: NetNs,
    server: Running,
    ours: Running,
    peer: Option<Running>,
    _config: Running,
    files: TempDir,
}

impl Stage {
    /// Starts all of it; returns when a request gets through each.
    pub(super) fn set(args: &Args, routes: usize) -> Result<Self> {
        let netns = NetNs::create().context("making a network namespace")?;
        let up = netns.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status())?;
        ensure!(up.context("running ip (iproute2)")?.success(), "loopback does not come up");
        let files = tempfile::tempdir()?;
        let ourselves = std::env::current_exe().context("where this program is")?;
        let own = |words: &[&str]| {
            let mut command = Command::new(&ourselves);
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
            start(&netns, command)
        };
        let server = own(&["serve"])?;
        let config = own(&["config", "--place", "gateway", "--routes", &routes.to_string()])?;
        let ours = start(&netns, waypoint(args, Place::Gateway, Ipv4Addr::LOCALHOST, &files)?)?;
        let peer = match &args.peer_envoy {
            Some(program) => Some(start(&netns, envoy(program, args.workers, routes, &files)?)?),
            None => None,
        };
        let stage = Self { netns, server, ours, peer, _config: config, files };
        stage.wait_for(HTTP_PORT, "server")?;
        stage.wait_for(OUR_PORT, "waypoint")?;
        if stage.peer.is_some() {
            stage.wait_for(PEER_PORT, "envoy")?;
        }
        Ok(stage)
    }

    /// What is asked, and through whom: nobody, ours, the peer.
    pub(super) fn ways(&self) -> Vec<Way<'_>> {
        let way = |port: u16, proxy: Option<&Running>| Way {
            netns: &self.netns,
            server: (Ipv4Addr::LOCALHOST, port).into(),
            server_pid: self.server.pid(),
            proxies: proxy.iter().map(|proxy| ("proxy", proxy.pid())).collect(),
        };
        let peer = self.peer.iter().map(|peer| way(PEER_PORT, Some(peer)));
        [way(HTTP_PORT, None), way(OUR_PORT, Some(&self.ours))].into_iter().chain(peer).collect()
    }

    fn wait_for(&self, port: u16, who: &str) -> Result<()> {
        let deadline = Instant::now() + READY_BUDGET;
        loop {
            let answer = self.netns.run(|| crate::town::ask((Ipv4Addr::LOCALHOST, port).into()))?;
            match answer {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(self.files.path().join(who)).unwrap_or_default();
                    let end = log.lines().rev().take(5).collect::<Vec<_>>();
                    return Err(error).with_context(|| format!("{who}: no answer; its last words: {end:?}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

pub(super) fn start(netns: &NetNs, mut command: Command) -> Result<Running> {
    let started = netns.run(|| command.spawn())?.with_context(|| format!("starting {command:?}"))?;
    Ok(Running(started))
}

/// Our proxy of layer 7, for a pod of this address.
pub(super) fn waypoint(args: &Args, place: Place, ip: Ipv4Addr, files: &TempDir) -> Result<Command> {
    let beside = || Ok(std::env::current_exe().context("where this program is")?.with_file_name("waypoint"));
    let program = args.waypoint.clone().map_or_else(beside, anyhow::Ok)?;
    ensure!(program.is_file(), "{} is no program: build it, or name another one", program.display());
    let log = File::create(files.path().join("waypoint"))?;
    let role = match place {
        Place::Gateway => "router",
        Place::Waypoint => "waypoint",
    };
    let mut command = Command::new(program);
    command
        .args(["proxy", role])
        .env_clear()
        .envs([("FAKE_CA", "true"), ("POD_NAME", "edge-1"), ("POD_NAMESPACE", "bench"), ("IPV6_ENABLED", "false")])
        .env("INSTANCE_IP", ip.to_string())
        .envs([("SERVICE_ACCOUNT", "edge"), ("TRUST_DOMAIN", "cluster.local")])
        .envs([("MELTEMI_GATEWAY", GATEWAY), ("WAYPOINT_ACCESS_LOG", "nothing"), ("RUST_LOG", "warn")])
        .env("XDS_ADDRESS", format!("http://127.0.0.1:{CONFIG_PORT}"))
        .env("WAYPOINT_WORKER_THREADS", args.workers.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

fn envoy(program: &Path, workers: usize, routes: usize, files: &TempDir) -> Result<Command> {
    let path = files.path().join("envoy.yaml");
    File::create(&path)?.write_all(envoy_file(routes).as_bytes())?;
    let log = File::create(files.path().join("envoy"))?;
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(&path)
        .args(["--concurrency", &workers.to_string(), "--log-level", "error", "--disable-hot-restart"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// The same work, in the peer's words.
fn envoy_file(routes: usize) -> String {
    let mut text = String::from("static_resources:\n  clusters:\n");
    for version in ["v1", "v2"] {
        let _ = writeln!(
            text,
            "  - {{name: {version}, type: STATIC, lb_policy: LEAST_REQUEST, typed_extension_protocol_options: \
             {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
             use_downstream_protocol_config: {{http2_protocol_options: {{}}}}}}}}, load_assignment: {{cluster_name: {version}, \
             endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {HTTP_PORT}}}}}}}}}]}}]}}}}"
        );
    }
    let _ = writeln!(
        text,
        "  listeners:\n  - address: {{socket_address: {{address: 127.0.0.1, port_value: {PEER_PORT}}}}}\n    filter_chains:\n    \
         - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: bench\n          codec_type: AUTO\n          http_filters:\n          - name: envoy.filters.http.router\n            \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n          \
         route_config:\n            virtual_hosts:\n            - name: all\n              domains: ['*']\n              routes:"
    );
    for number in 0..routes.saturating_sub(2) {
        let _ = writeln!(
            text,
            "              - {{match: {{path_separated_prefix: /api/v{}/item{number}}}, route: {{cluster: v2}}}}",
            number % 7
        );
    }
    text.push_str(
        "              - {match: {prefix: /, headers: [{name: x-tester, string_match: {exact: 'yes'}}]}, route: {cluster: v2}}\n",
    );
    text.push_str(
        "              - {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: v1, weight: 90}, {name: v2, weight: 10}]}}}\n",
    );
    text
}

const READY_BUDGET: Duration = Duration::from_secs(30);
