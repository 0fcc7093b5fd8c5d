//! The market that journeys through waypoints and gateways play in.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::{Lab, eventually};

use crate::town::SOON;

/// A shop in two versions on node-2 and a client on node-1 in an enrolled namespace, and a stranger outside.
pub(crate) struct Market {
    pub(crate) lab: Lab,
    edge: OnceLock<String>,
}

impl Market {
    /// A sandbox with the Gateway API, the mesh and the market; everything runs and is enrolled.
    pub(crate) fn found() -> Result<Self> {
        let lab = Lab::up()?;
        gateway_api(&lab)?;
        lab.install()?;
        lab.apply(include_str!("../../manifests/market.yaml"))?;
        for (namespace, name) in
            [("market", "shop-v1"), ("market", "shop-v2"), ("market", "client"), ("outside", "stranger")]
        {
            lab.rolled_out(namespace, name)?;
        }
        lab.enrolled("market", true)?;
        let market = Self { lab, edge: OnceLock::new() };
        eventually("the first call goes through", SOON, || {
            let said = market.call(&["http://shop/"])?;
            ensure!(said.statuses() == [("200".to_owned(), 1)], "{said:?}");
            Ok(())
        })?;
        Ok(market)
    }

    /// The market with a waypoint for its services; calls of the shop pass through it.
    pub(crate) fn with_waypoint() -> Result<Self> {
        let market = Self::found()?;
        market.add_waypoint()?;
        Ok(market)
    }

    /// Makes the waypoint, binds the namespace to it, and waits until calls pass through it.
    pub(crate) fn add_waypoint(&self) -> Result<()> {
        self.lab.apply(include_str!("../../manifests/waypoint.yaml"))?;
        self.programmed("waypoint")?;
        self.lab.kubectl(&["label", "namespace/market", "istio.io/use-waypoint=waypoint"])?;
        eventually("calls pass through the waypoint", SOON, || self.passed_waypoint("http://shop/"))
            .map_err(|error| error.context(self.diagnosis()))
    }

    /// A call that must pass through the waypoint: the server sees the waypoint's address.
    pub(crate) fn passed_waypoint(&self, url: &str) -> Result<()> {
        let waypoints = self.waypoint_ips()?;
        let said = self.call(&[url])?;
        let source = said.seen("/source")?;
        ensure!(waypoints.iter().any(|ip| source.starts_with(&format!("{ip}:"))), "{source} is none of {waypoints:?}");
        Ok(())
    }

    /// IPv4 addresses of the waypoint's pods.
    pub(crate) fn waypoint_ips(&self) -> Result<Vec<String>> {
        let selector = "gateway.networking.k8s.io/gateway-name=waypoint";
        let path = "jsonpath={.items[*].status.podIP}";
        let said = self.lab.kubectl(&["get", "pods", "-n", "market", "-l", selector, "-o", path])?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// Applies the Gateway `edge` of the market and waits until it can be reached.
    pub(crate) fn add_edge(&self, gateway: &str) -> Result<()> {
        self.lab.apply(gateway)?;
        self.programmed("edge")?;
        let address = eventually("the edge has an address", SOON, || {
            let said = self.lab.field("market", "service/edge-istio", ".status.loadBalancer.ingress[0].ip")?;
            ensure!(!said.is_empty(), "no address yet");
            Ok(said)
        })?;
        self.edge.set(address).ok().context("the edge was added before")
    }

    /// Address of the Gateway `edge`, for callers outside.
    pub(crate) fn edge(&self) -> &str {
        self.edge.get().map_or("no-edge", String::as_str)
    }

    /// Waits until a Gateway of the market says that it is programmed.
    pub(crate) fn programmed(&self, gateway: &str) -> Result<()> {
        let object = format!("gateway/{gateway}");
        let wait = ["wait", "-n", "market", &object, "--for=condition=Programmed", "--timeout=30s"];
        self.lab.kubectl(&wait).map(drop).map_err(|error| error.context(self.diagnosis()))
    }

    /// Calls of the client: arguments of `load call`.
    pub(crate) fn call(&self, args: &[&str]) -> Result<Said> {
        self.call_from("market", "deploy/client", args)
    }

    /// Calls of some pod.
    pub(crate) fn call_from(&self, namespace: &str, target: &str, args: &[&str]) -> Result<Said> {
        let argv: Vec<&str> = ["load", "call"].into_iter().chain(args.iter().copied()).collect();
        let said = self.lab.exec(namespace, target, &argv)?.ok().with_context(|| argv.join(" "))?;
        Ok(Said(serde_json::from_str(&said).with_context(|| format!("{argv:?} said {said:?}"))?))
    }

    /// Several calls of some pod, one after the other: arguments of `load call` each.
    pub(crate) fn calls_from(&self, namespace: &str, target: &str, calls: &[&[&str]]) -> Result<Vec<Said>> {
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let line = |args: &[&str]| args.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let script: Vec<_> = calls.iter().map(|args| format!("load call {}", line(args))).collect();
        let said = self.lab.exec(namespace, target, &["sh", "-ec", &script.join("\n")])?.ok()?;
        said.lines().map(|line| Ok(Said(serde_json::from_str(line).with_context(|| line.to_owned())?))).collect()
    }

    /// Waits until a call is answered as wanted.
    pub(crate) fn soon(&self, what: &str, args: &[&str], wanted: impl Fn(&Said) -> Result<bool>) -> Result<Said> {
        eventually(what, SOON, || {
            let said = self.call(args)?;
            ensure!(wanted(&said)?, "{args:?}: {said:?}");
            Ok(said)
        })
        .map_err(|error| error.context(self.diagnosis()))
    }

    /// Waits until calls with these arguments get this status.
    pub(crate) fn soon_status(&self, status: &str, args: &[&str]) -> Result<Said> {
        self.soon(&format!("{args:?} gets {status}"), args, |said| {
            Ok(said.statuses().iter().all(|(found, _)| found == status) && !said.statuses().is_empty())
        })
    }

    /// Applies a route and waits until its status says that it is accepted at every parent.
    pub(crate) fn route(&self, yaml: &str) -> Result<()> {
        self.lab.apply(yaml)?;
        let parsed = self.lab.kubectl_raw(&["get", "-f", "-", "-o", "name"], yaml)?.ok()?;
        for object in parsed.lines() {
            self.condition(object, "Accepted", "True", "Accepted")?;
        }
        Ok(())
    }

    /// Waits until each parent of a route of the market has a condition with this status and reason.
    pub(crate) fn condition(&self, object: &str, type_: &str, status: &str, reason: &str) -> Result<()> {
        eventually(&format!("{object} says {type_} {status} {reason}"), SOON, || {
            let said = self.lab.kubectl(&["get", "-n", "market", object, "-o", "json"])?;
            let object: Value = serde_json::from_str(&said)?;
            let parents = object.pointer("/status/parents").and_then(Value::as_array).cloned().unwrap_or_default();
            let holds = |parent: &Value| {
                let conditions = parent["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|one| one["type"] == type_ && one["status"] == status && one["reason"] == reason)
            };
            ensure!(!parents.is_empty() && parents.iter().all(holds), "{parents:?}");
            Ok(())
        })
        .map_err(|error| error.context(self.diagnosis()))
    }

    /// What a person would look at first.
    pub(crate) fn diagnosis(&self) -> String {
        let mut text = self.lab.diagnosis();
        for args in [
            &["get", "gateways,httproutes,deployments,services", "-A", "-o", "wide"][..],
            &["get", "gateways,httproutes", "-n", "market", "-o", "yaml"],
            &["logs", "-n", "market", "-l", "gateway.networking.k8s.io/gateway-name", "--tail=30", "--prefix"],
        ] {
            let said = self.lab.kubectl_raw(args, "").map_or_else(|e| format!("{e:#}"), |e| e.stdout + &e.stderr);
            text.push_str(&format!("$ kubectl {}\n{said}\n", args.join(" ")));
        }
        text
    }
}

/// What `load call` said.
#[derive(Debug)]
pub(crate) struct Said(pub(crate) Value);

impl Said {
    /// How often each status came, sorted by status.
    pub(crate) fn statuses(&self) -> Vec<(String, u64)> {
        counts(&self.0["statuses"])
    }

    /// How often a backend answered.
    pub(crate) fn backend(&self, name: &str) -> u64 {
        self.0["backends"][name].as_u64().unwrap_or_default()
    }

    /// Requests without an answer, by why.
    pub(crate) fn errors(&self) -> Vec<(String, u64)> {
        counts(&self.0["errors"])
    }

    /// The last answer.
    pub(crate) fn last(&self) -> &Value {
        &self.0["last"]
    }

    /// What the server saw of the last request, by JSON pointer; absent is an error.
    pub(crate) fn seen(&self, pointer: &str) -> Result<String> {
        self.seen_maybe(pointer).with_context(|| format!("nothing at {pointer} in {}", self.0))
    }

    /// What the server saw of the last request, by JSON pointer.
    pub(crate) fn seen_maybe(&self, pointer: &str) -> Option<String> {
        let last = self.last();
        let seen = match &last["json"] {
            Value::Null => serde_json::from_str(last["messages"][0].as_str()?).ok()?,
            seen => seen.clone(),
        };
        let value = seen.pointer(pointer)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// All values of a header that the server saw in the last request, as one list.
    pub(crate) fn request_header(&self, name: &str) -> String {
        let last = self.last();
        let seen = match &last["json"] {
            Value::Null => last["messages"][0].as_str().and_then(|text| serde_json::from_str(text).ok()),
            seen => Some(seen.clone()),
        };
        let all = seen.and_then(|seen| seen["header_list"].as_array().cloned()).unwrap_or_default();
        let wanted = all.iter().filter(|pair| pair[0] == name);
        wanted.filter_map(|pair| pair[1].as_str()).collect::<Vec<_>>().join(",")
    }

    /// All values of a header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let all = self.last()["headers"].as_array().cloned().unwrap_or_default();
        let wanted = all.iter().filter(|pair| pair[0] == name);
        wanted.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
    }

    /// The longest time a request took.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_secs_f64(self.0["max_ms"].as_f64().unwrap_or_default() / 1e3)
    }
}

fn counts(map: &Value) -> Vec<(String, u64)> {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default())).collect()
}

/// Installs the definitions of the Gateway API.
pub(crate) fn gateway_api(lab: &Lab) -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds/gateway-api");
    lab.kubectl(&["apply", "--server-side", "-f", folder])?;
    lab.kubectl(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=10s"]).map(drop)
}
