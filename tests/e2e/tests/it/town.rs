//! The town that journeys play in.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::{Lab, eventually};

/// Servers `web` on node-2 and a client on node-1 in an enrolled namespace, and a stranger outside.
pub(crate) struct Town {
    pub(crate) lab: Lab,
}

impl Town {
    /// A sandbox, the mesh, the town; everything runs and is enrolled.
    pub(crate) fn found() -> Result<Self> {
        let lab = Lab::with_mesh()?;
        lab.apply(include_str!("../../manifests/town.yaml"))?;
        for (namespace, name) in [("town", "web"), ("town", "client"), ("outside", "stranger")] {
            lab.rolled_out(namespace, name)?;
        }
        lab.enrolled("town", true)?;
        let town = Self { lab };
        eventually("the first call goes through", SOON, || town.get("http://web/"))?;
        Ok(town)
    }

    /// One request of the client; what the server saw.
    pub(crate) fn get(&self, url: &str) -> Result<Value> {
        self.get_from("town", "deploy/client", url)
    }

    /// One request of some pod; what the server saw.
    pub(crate) fn get_from(&self, namespace: &str, target: &str, url: &str) -> Result<Value> {
        let said = self.lab.exec(namespace, target, &["load", "get", url])?.ok()?;
        serde_json::from_str(&said).with_context(|| format!("{url} answered {said:?}"))
    }

    /// The client runs one of the checks of `load`.
    pub(crate) fn check(&self, args: &[&str]) -> Result<String> {
        let argv: Vec<&str> = ["load"].into_iter().chain(args.iter().copied()).collect();
        self.lab.exec("town", "deploy/client", &argv)?.ok().with_context(|| argv.join(" "))
    }

    /// The client's request must fail; what it said.
    pub(crate) fn refused(&self, url: &str) -> Result<String> {
        self.lab.exec("town", "deploy/client", &["load", "get", url, "--timeout", "3"])?.failed()
    }

    /// The addresses of one pod.
    pub(crate) fn ips(&self, namespace: &str, pod: &str) -> Result<Vec<IpAddr>> {
        let said = self.lab.field(namespace, &format!("pod/{pod}"), ".status.podIPs[*].ip")?;
        said.split_whitespace().map(|ip| ip.parse().with_context(|| format!("address {ip:?} of {pod}"))).collect()
    }

    /// The IPv4 address of one pod.
    pub(crate) fn ipv4(&self, namespace: &str, pod: &str) -> Result<IpAddr> {
        self.ips(namespace, pod)?
            .into_iter()
            .find(IpAddr::is_ipv4)
            .with_context(|| format!("{pod} has no IPv4 address"))
    }

    /// The only pod with a label.
    pub(crate) fn pod(&self, namespace: &str, selector: &str) -> Result<String> {
        let pods = self.lab.pods(namespace, selector)?;
        pods.into_iter().next().with_context(|| format!("no pod {selector} in {namespace}"))
    }

    /// Addresses of every enrolled pod of the town.
    pub(crate) fn enrolled_ips(&self) -> Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for pod in self.lab.pods("town", "app")? {
            all.extend(self.ips("town", &pod)?);
        }
        Ok(all)
    }

    /// Starts steady traffic from `load` to `web`.
    pub(crate) fn start_load(&self) -> Result<()> {
        self.lab.apply(include_str!("../../manifests/load.yaml"))?;
        self.lab.kubectl(&["wait", "-n", "town", "pod/load", "--for=condition=Ready", "--timeout=15s"]).map(drop)
    }

    /// Ends the traffic and returns its summary.
    pub(crate) fn end_load(&self) -> Result<Value> {
        self.lab.sandbox(&["kill", "load", "-n", "town", "--signal", "TERM"])?.ok()?;
        let line = eventually("load says how it went", Duration::from_secs(10), || {
            let log = self.lab.kubectl(&["logs", "-n", "town", "load"])?;
            log.lines().find(|line| line.starts_with('{')).map(str::to_owned).context("no summary yet")
        })?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until a line of a node proxy's log satisfies `wanted`.
    pub(crate) fn proxy_says(&self, node: &str, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let pod = self.lab.ztunnel(node)?;
        eventually(what, SOON, || {
            let log = self.lab.kubectl(&["logs", "-n", "istio-system", &pod, "--tail=300"])?;
            log.lines().rev().find(|line| wanted(line)).map(str::to_owned).context("no such line")
        })
    }

    /// Waits until a system pod's container has been started `times` times more than at first and is ready.
    pub(crate) fn restarted(&self, pod: &str, times: u64) -> Result<()> {
        eventually("the container is started again", SOON, || {
            let path = ".status.containerStatuses[0].restartCount";
            let count: u64 = self.lab.field("istio-system", &format!("pod/{pod}"), path)?.trim().parse()?;
            ensure!(count >= times, "restarted {count} times");
            Ok(())
        })
    }
}

/// A change has taken effect, a started thing is there: never longer on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Microseconds since the epoch, as captures count.
pub(crate) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
