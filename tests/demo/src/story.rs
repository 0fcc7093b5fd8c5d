//! The steps of the story, in order. Each asserts what it claims; a claim that does not hold ends the story.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests_support::run::kubectl;
use tests_support::{Lab, eventually};

use crate::canary;
use crate::telling::Teller;

/// Tells the whole story. Leaves the sandbox running unless `stop`.
pub(crate) fn tell(dir: Option<PathBuf>, stop: bool) -> Result<()> {
    ensure!(
        kubectl().is_some(),
        "no kubectl on the PATH: install one, or set KUBECTL (tools/kubectl.sh finds or gets one)"
    );
    let story = Story { tell: Teller::new(), lab: up(dir)? };
    let told = story.chapters();
    match (told, stop) {
        (Ok(()), false) => {
            story.how_to_go_on();
            story.lab.keep();
            Ok(())
        }
        (told, _) => told.map_err(|error| error.context("see the messages above; the sandbox was taken down")),
    }
}

struct Story {
    tell: Teller,
    lab: Lab,
}

fn up(dir: Option<PathBuf>) -> Result<Lab> {
    let dir = match dir {
        Some(dir) => dir,
        None => default_dir()?,
    };
    Lab::up_in(&dir)
}

/// The folder that `meltemi sandbox` uses when none is named.
fn default_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MELTEMI_SANDBOX_DIR") {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("meltemi"));
    }
    let user = std::fs::metadata("/proc/self").context("reading the own user")?.uid();
    Ok(PathBuf::from(format!("/tmp/meltemi-{user}")))
}

impl Story {
    fn chapters(&self) -> Result<()> {
        self.install()?;
        self.plaintext()?;
        self.mutual_tls()?;
        self.denied()?;
        canary::chapter(&self.tell, &self.lab)?;
        self.back_to_plaintext()
    }

    fn install(&self) -> Result<()> {
        self.tell.chapter('a', "a cluster of two nodes on this machine, and the mesh in it");
        self.tell.command("meltemi sandbox up");
        let nodes = self.lab.kubectl(&["get", "nodes", "-o", "name"])?;
        ensure!(nodes.lines().count() == 2, "wanted 2 nodes, found {nodes}");
        self.tell.proof(&format!("two nodes: {}", nodes.split_whitespace().collect::<Vec<_>>().join(", ")));
        self.tell.command("meltemi install --gateway-api");
        let install = ["install", "--gateway-api", "--skip-confirmation", "--readiness-timeout", "30"];
        self.lab.meltemi(&install)?.ok().map_err(|error| error.context(self.lab.diagnosis()))?;
        self.tell.quote(&self.lab.kubectl(&["get", "pods", "-n", "istio-system"])?);
        self.tell.proof("control plane, node agents and node proxies are ready");
        Ok(())
    }

    fn plaintext(&self) -> Result<()> {
        self.tell.chapter('b', "sleep on node-1 calls web on node-2, as pods do without a mesh");
        self.lab.apply(APPS)?;
        self.lab.rolled_out("demo", "web")?;
        self.lab.rolled_out("demo", "sleep")?;
        let capture = self.lab.capture("node-2")?;
        self.tell.command("kubectl exec -n demo deploy/sleep -- load get http://web/secret-of-the-demo");
        let seen = self.call("/secret-of-the-demo")?;
        self.tell.proof(&format!("200 from {} on {}", text(&seen, "pod"), text(&seen, "node")));
        let packets = self.lab.captured(capture)?;
        ensure!(packets.contains(b"GET /secret-of-the-demo"), "the capture of the node link does not hold the request");
        self.tell.proof("a capture on the link of node-2 reads: GET /secret-of-the-demo HTTP/1.1 (plain text)");
        Ok(())
    }

    fn mutual_tls(&self) -> Result<()> {
        self.tell.chapter('c', "one label, no restart: the same pods speak mutual TLS");
        self.lab.apply(LOAD)?;
        self.lab.rolled_out("demo", "load")?;
        let restarts = self.containers()?;
        let capture = self.lab.capture("node-2")?;
        self.tell.command("kubectl label namespace demo istio.io/dataplane-mode=ambient");
        self.lab.kubectl(&["label", "namespace", "demo", "istio.io/dataplane-mode=ambient"])?;
        self.lab.enrolled("demo", true)?;
        self.settled()?;
        let switched = now_us();
        ensure!(self.containers()? == restarts, "a container was restarted");
        self.tell.proof("every running pod is enrolled, none was restarted");
        let seen = self.call("/after-the-switch")?;
        let sleep_ips = self.pod_ips("app=sleep")?;
        let source = text(&seen, "source").parse::<std::net::SocketAddr>().context("source")?.ip();
        ensure!(sleep_ips.contains(&source), "web saw {source}, sleep is {sleep_ips:?}");
        self.tell.proof(&format!("web still sees the caller's real address: {source}"));
        self.load_without_errors()?;
        let packets = self.lab.captured(capture)?.between(&self.pod_ips("app")?).since(switched);
        let versions = packets.tls_versions_chosen(HBONE_PORT);
        let plain = packets.payload_outside(HBONE_PORT);
        ensure!(
            plain.is_empty(),
            "{} segments were not for port {HBONE_PORT}, first: {:?}",
            plain.len(),
            plain.first()
        );
        ensure!(packets.bytes_with(HBONE_PORT) > 0, "nothing went to port {HBONE_PORT}");
        ensure!(!packets.contains(b"HTTP/1.1"), "the capture holds plain text");
        ensure!(versions.iter().all(|version| *version == (1, 3)), "TLS versions {versions:?}");
        self.tell.proof(&format!(
            "since the switch the link carried {} bytes between the pods, all of them TLS 1.3 to port {HBONE_PORT}",
            packets.bytes_with(HBONE_PORT)
        ));
        self.identities()?;
        Ok(())
    }

    fn denied(&self) -> Result<()> {
        self.tell.chapter('d', "a policy: sleep may not call web");
        self.tell.command("kubectl apply -f no-sleep.yaml");
        self.lab.apply(NO_SLEEP)?;
        let refused = eventually("the policy is in force", Duration::from_secs(5), || {
            self.lab.exec("demo", "deploy/sleep", &["load", "get", "http://web/"])?.failed()
        })?;
        self.tell.proof(&format!("the call fails: {}", refused.trim().lines().next().unwrap_or_default()));
        let line = self.log_line("node-2", |line| line.contains("no-sleep") && line.contains("sa/sleep"))?;
        self.tell.proof("the node proxy of web says who, to whom, and which rule:");
        self.tell.quote(&line);
        let pod = self.lab.pods("demo", "app=sleep")?.into_iter().next().context("no pod sleep")?;
        self.tell.command(&format!("meltemi explain {pod}.demo web.demo:80"));
        let said = self.lab.meltemi(&["explain", &format!("{pod}.demo"), "web.demo:80"])?.ok()?;
        for part in ["REFUSED", "no-sleep", "to allow it"] {
            ensure!(said.contains(part), "the explanation lacks {part:?}: {said}");
        }
        self.tell.quote(&said);
        self.lab.kubectl(&["delete", "authorizationpolicy", "no-sleep", "-n", "demo"])?;
        eventually("the policy is gone", Duration::from_secs(5), || self.call("/"))?;
        self.tell.proof("the policy is deleted, the call works again");
        Ok(())
    }

    fn back_to_plaintext(&self) -> Result<()> {
        self.tell.chapter('f', "the label is removed: plain text again");
        self.tell.command("kubectl label namespace demo istio.io/dataplane-mode- istio.io/use-waypoint-");
        self.lab.kubectl(&["label", "namespace", "demo", "istio.io/dataplane-mode-", "istio.io/use-waypoint-"])?;
        self.lab.enrolled("demo", false)?;
        let capture = self.lab.capture("node-2")?;
        eventually("the call goes in plain text", Duration::from_secs(5), || self.call("/in-the-open"))?;
        let packets = self.lab.captured(capture)?;
        ensure!(packets.contains(b"GET /in-the-open"), "the capture does not hold the request");
        self.tell.proof("200, and the link reads GET /in-the-open HTTP/1.1");
        Ok(())
    }

    fn how_to_go_on(&self) {
        let config = self.lab.kubeconfig();
        self.tell.chapter('g', "your turn");
        self.tell.plain(&format!("    export KUBECONFIG={}", config.display()));
        self.tell.plain("    kubectl get pods -A");
        self.tell.plain("    kubectl label namespace demo istio.io/dataplane-mode=ambient");
        self.tell.plain(&format!("    {}/meltemi ztunnel-config workloads", self.lab.bin().display()));
        self.tell.plain(&format!("Stop it with:  {}/meltemi sandbox down", self.lab.bin().display()));
    }
}

impl Story {
    /// One request from sleep to web; what web saw.
    fn call(&self, path: &str) -> Result<Value> {
        let url = format!("http://web{path}");
        let said = self.lab.exec("demo", "deploy/sleep", &["load", "get", &url])?.ok()?;
        serde_json::from_str(&said).with_context(|| format!("web answered {said:?}"))
    }

    /// Container ids and restart counts: equal before and after means nothing was restarted.
    fn containers(&self) -> Result<String> {
        let path = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].containerID} \
                    {.status.containerStatuses[*].restartCount}{'\\n'}{end}";
        self.lab.kubectl(&["get", "pods", "-n", "demo", "--sort-by=.metadata.name", "-o", path])
    }

    fn pod_ips(&self, selector: &str) -> Result<Vec<IpAddr>> {
        let path = "jsonpath={.items[*].status.podIPs[*].ip}";
        let said = self.lab.kubectl(&["get", "pods", "-n", "demo", "-l", selector, "-o", path])?;
        said.split_whitespace().map(|ip| ip.parse().with_context(|| format!("pod address {ip:?}"))).collect()
    }

    /// Both node proxies know every pod as encrypted. (Each request of the load is a connection of its own, so the
    /// last one from before the switch has ended by then.)
    fn settled(&self) -> Result<()> {
        eventually("both node proxies know the pods as HBONE", Duration::from_secs(5), || {
            for node in ["node-1", "node-2"] {
                let args =
                    ["ztunnel-config", "workloads", "--node", node, "--workload-namespace", "demo", "-o", "json"];
                let dump: Vec<Value> = serde_json::from_str(&self.lab.meltemi(&args)?.ok()?)?;
                ensure!(dump.len() == 4, "{node} knows {} of 4 workloads", dump.len());
                for workload in &dump {
                    ensure!(text(workload, "protocol") == "HBONE", "{node}: {} is not HBONE", text(workload, "name"));
                }
            }
            Ok(())
        })
    }

    /// Ends the load and reads its summary.
    fn load_without_errors(&self) -> Result<()> {
        let pod = self.lab.pods("demo", "app=load")?.into_iter().next().context("no pod load")?;
        self.lab.sandbox(&["kill", &pod, "-n", "demo", "--signal", "TERM"])?.ok()?;
        let summary = eventually("load says how it went", Duration::from_secs(8), || {
            let log = match self.lab.kubectl_raw(&["logs", "-n", "demo", &pod, "--previous"], "")? {
                ended if ended.code == 0 => ended.stdout,
                _ => self.lab.kubectl(&["logs", "-n", "demo", &pod])?,
            };
            let line = log.lines().find(|line| line.starts_with('{')).map(str::to_owned);
            line.with_context(|| format!("no summary yet: {log}"))
        })?;
        let summary: Value = serde_json::from_str(&summary)?;
        let count = |key: &str| summary.get(key).and_then(Value::as_u64).unwrap_or_default();
        if count("failed") != 0 {
            bail!("{} of {} requests failed across the switch: {summary}", count("failed"), count("requests"));
        }
        ensure!(count("requests") > 0, "load made no requests");
        self.tell.proof(&format!(
            "load made {} requests across the switch, 0 failed (p50 {} us, p99 {} us)",
            count("requests"),
            count("p50_us"),
            count("p99_us")
        ));
        Ok(())
    }

    /// The access log of web's node proxy names both ends.
    fn identities(&self) -> Result<()> {
        let (source, destination) =
            ("spiffe://cluster.local/ns/demo/sa/sleep", "spiffe://cluster.local/ns/demo/sa/web");
        let line = self.log_line("node-2", |line| line.contains(source) && line.contains(destination))?;
        ensure!(line.contains("connection complete"), "not an access log line: {line}");
        self.tell.proof(&format!("the node proxies proved to each other: {source} -> {destination}"));
        Ok(())
    }

    fn log_line(&self, node: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let pod = self.lab.ztunnel(node)?;
        eventually("the node proxy logs the connection", Duration::from_secs(5), || {
            let log = self.lab.kubectl(&["logs", "-n", "istio-system", &pod, "--tail=500"])?;
            log.lines().rev().find(|line| wanted(line)).map(str::to_owned).context("no such line in the log")
        })
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

const APPS: &str = include_str!("../manifests/apps.yaml");
const LOAD: &str = include_str!("../manifests/load.yaml");
const NO_SLEEP: &str = include_str!("../manifests/no-sleep.yaml");
const HBONE_PORT: u16 = 15008;
