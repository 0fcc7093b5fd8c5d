//! A client pod, two nodes and a server pod of one variant.

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_sys::netns::NetNs;
use mesh_sys::route::{Family, LocalPolicyRoute};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::proxy::{Programs, Proxies, local_file};
use crate::serve::HTTP_PORT;

/// How client and server are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// By the network alone.
    Direct,
    /// Through our proxies.
    Meltemi,
    /// Through those that were named for comparison.
    Peer,
}

impl Variant {
    /// All that can be measured and is wanted, the yardstick first.
    pub(crate) fn all(programs: &Programs) -> impl Iterator<Item = Self> {
        let there = |variant: &Self| *variant != Self::Peer || programs.peer.is_some();
        let wanted = |variant: &Self| programs.variants.is_empty() || programs.variants.contains(variant);
        [Self::Direct, Self::Meltemi, Self::Peer].into_iter().filter(there).filter(wanted)
    }

    pub(crate) fn is_proxied(self) -> bool {
        self != Self::Direct
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Meltemi => "meltemi",
            Self::Peer => "peer",
        })
    }
}

/// Namespaces with all that runs in them; everything ends when it is dropped.
pub(crate) struct Town {
    pub(crate) variant: Variant,
    client: Arc<NetNs>,
    server: Running,
    pub(crate) proxies: Option<Proxies>,
    /// Joins the nodes.
    _switch: NetNs,
    _nodes: [Arc<NetNs>; 2],
}

/// A child process that does not outlive this value.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Town {
    /// Namespaces, links, rules, proxies and the server; returns when a request gets through.
    pub(crate) fn build(variant: Variant, programs: &Programs) -> Result<Self> {
        Self::with_workloads(variant, programs, 0).with_context(|| format!("town of {variant}"))
    }

    /// As [`Town::build`], with so many more workloads in the proxies' file.
    pub(crate) fn with_workloads(variant: Variant, programs: &Programs, more: usize) -> Result<Self> {
        let switch = switch()?;
        let [node_1, node_2, client, server] = [namespace()?, namespace()?, namespace()?, namespace()?].map(Arc::new);
        for (number, node, pod) in [(1, &node_1, &client), (2, &node_2, &server)] {
            join(&switch, node, pod, number)?;
            if variant.is_proxied() {
                capture(pod)?;
            }
        }
        let running = programs.ourselves(&server, &["serve"], Stdio::null())?;
        let proxies = match variant {
            Variant::Direct => None,
            _ => {
                let nodes = [(&node_1, &client), (&node_2, &server)];
                Some(Proxies::start(variant, programs, nodes, &local_file(more))?)
            }
        };
        let town = Self { variant, client, server: running, proxies, _switch: switch, _nodes: [node_1, node_2] };
        wait_for_an_answer(&town.client, (pod_ip(2), HTTP_PORT).into())?;
        Ok(town)
    }

    /// Where the client is.
    pub(crate) fn client_netns(&self) -> &NetNs {
        &self.client
    }

    /// The server's process.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.pid()
    }

    /// Starts this program as the client with `args`.
    pub(crate) fn client(&self, programs: &Programs, args: &[&str]) -> Result<Running> {
        programs.ourselves(&self.client, args, Stdio::piped())
    }

    /// The server, then the proxies of the client's and of the server's node.
    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(self.server.pid()).chain(self.proxies.iter().flat_map(Proxies::pids)).collect()
    }
}

/// Asks from a namespace until there is an answer.
pub(crate) fn wait_for_an_answer(client: &NetNs, server: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_BUDGET;
    loop {
        let asked = client.run(|| ask(server))?;
        match asked {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no answer from {server} within {READY_BUDGET:?}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// One request.
pub(crate) fn ask(server: SocketAddr) -> Result<()> {
    let mut stream = std::net::TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "answer {answer:?}");
    Ok(())
}

/// Address of the pod on node `number`.
pub(crate) fn pod_ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, number, 2)
}

/// A namespace that joins nodes.
pub(crate) fn switch() -> Result<NetNs> {
    let switch = namespace()?;
    inside(&switch, &[&["link", "add", "br0", "type", "bridge"], &["link", "set", "br0", "up"]])?;
    Ok(switch)
}

pub(crate) fn namespace() -> Result<NetNs> {
    let netns = NetNs::create().context("making a network namespace")?;
    let congestion = netns.run(|| {
        for (name, value) in SYSCTLS {
            // Best effort: connection tracking has no settings before its first use, some kernels are built without.
            let _ = std::fs::write(format!("/proc/sys/net/{name}"), value);
        }
        std::fs::write(CONGESTION_CONTROL, CUBIC)
    })?;
    if congestion.is_err() {
        // Namespaces may only choose what the host allows to everybody, but keep what they chose.
        let _allowed = Allowed::with_cubic()?;
        netns.run(|| std::fs::write(CONGESTION_CONTROL, CUBIC))?.context(CONGESTION_CONTROL)?;
    }
    Ok(netns)
}

/// The host's list of congestion controls that everybody may use, with one more; as it was before when this is dropped.
/// [`ending_signals`] wait for that.
struct Allowed {
    before: String,
    signals: SigSet,
}

impl Allowed {
    fn with_cubic() -> Result<Self> {
        let signals = ending_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let before = std::fs::read_to_string(ALLOWED).unwrap_or_default();
        let allowed = Self { before, signals };
        let before = allowed.before.trim();
        std::fs::write(ALLOWED, format!("{before} {CUBIC}")).with_context(|| {
            format!("congestion control {CUBIC} is not allowed: add it to {ALLOWED} (it says {before:?}) as root")
        })?;
        Ok(allowed)
    }
}

/// Signals that end the process. Only the first thread takes them, so that it can put them off.
pub(crate) fn ending_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM])
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(ALLOWED, &self.before) {
            // Nobody is there who could be told otherwise.
            let _ =
                writeln!(std::io::stderr(), "bench: {ALLOWED} said {:?} and could not be reset: {error}", self.before);
        }
        // Fails only for an unknown way to change it.
        let _ = self.signals.thread_set_mask();
    }
}

/// Switch to node, node to pod, and the routes between.
pub(crate) fn join(switch: &NetNs, node: &NetNs, pod: &NetNs, number: u8) -> Result<()> {
    let port = format!("node{number}");
    let fd = |netns: &NetNs| {
        use std::os::fd::{AsFd, AsRawFd};
        format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
    };
    inside(
        switch,
        &[
            &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &fd(node)],
            &["link", "set", &port, "master", "br0", "up"],
        ],
    )?;
    let gateway = format!("10.1.{number}.1");
    inside(
        node,
        &[
            &["link", "add", "pod", "type", "veth", "peer", "name", "eth0", "netns", &fd(pod)],
            &["addr", "add", &format!("10.0.0.{number}/24"), "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["addr", "add", &format!("{gateway}/24"), "dev", "pod"],
            &["link", "set", "pod", "up"],
        ],
    )?;
    for other in (1..=NODES_MAX).filter(|other| *other != number) {
        inside(node, &[&["route", "add", &format!("10.1.{other}.0/24"), "via", &format!("10.0.0.{other}")]])?;
    }
    inside(
        pod,
        &[
            &["addr", "add", &format!("{}/24", pod_ip(number)), "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", &gateway],
        ],
    )
}

/// The rules that send a pod's traffic to the proxy.
pub(crate) fn capture(pod: &NetNs) -> Result<()> {
    pod.run(|| {
        mesh_sys::nft::apply(RULES)?;
        LocalPolicyRoute { mark: 0x111, mask: 0xfff, table: 100, priority: 32764 }.add(Family::V4)?;
        anyhow::Ok(())
    })?
}

/// Runs `ip` with each of `commands`.
fn inside(netns: &NetNs, commands: &[&[&str]]) -> Result<()> {
    for command in commands {
        let output = netns.run(|| Command::new("ip").args(*command).output())?.context("running ip (iproute2)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {}: {}", command.join(" "), said.trim());
    }
    Ok(())
}

/// Whether `ip` is an address of a pod of the town.
pub(crate) fn server_addr() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(pod_ip(2)), 0)
}

/// Nodes of the largest town.
const NODES_MAX: u8 = 3;
const RULES: &str = include_str!("pod.nft");
const CUBIC: &str = "cubic";
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
const READY_BUDGET: Duration = Duration::from_secs(30);
/// The same for every variant: distributions differ in their defaults.
const SYSCTLS: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/ip_local_port_range", "10240 65000"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("core/somaxconn", "4096"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "5"),
];
