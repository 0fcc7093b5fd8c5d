//! Features of the Gateway API at the edge: gateways of the market that strangers call.
//!
//! The features share three sandboxes: see [`crate::features`] for how, and `docs/gateway-api.md` for the list.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::edge_pki::Pki;
use crate::features::check_all;
use crate::market::{Market, Said};
use crate::town::SOON;
use crate::{
    edge_backend_tls, edge_filters, edge_forwarding, edge_gateways, edge_matching, edge_references, edge_sets, edge_tls,
};

#[test]
fn features_of_http_routes_at_the_edge() -> Result<()> {
    let market = Market::found()?;
    let pki = Pki::make(market.lab.dir())?;
    market.lab.apply(&pki.secret("market", "edge", "edge")?)?;
    market.lab.apply(include_str!("../../manifests/edge.yaml"))?;
    market.lab.apply(include_str!("../../manifests/edge_routes.yaml"))?;
    up(&market, &["edge", "second", "hosts", "isolated"])?;
    let groups =
        [edge_matching::features(), edge_references::features(), edge_filters::features(), edge_forwarding::features()];
    check_all(&market, groups.into_iter().flatten().collect())
}

#[test]
fn features_of_gateways_and_listener_sets() -> Result<()> {
    let market = Market::found()?;
    let pki = Pki::make(market.lab.dir())?;
    market.lab.apply(include_str!("../../manifests/edge.yaml"))?;
    market.lab.apply(&[pki.secret("market", "edge", "edge")?, pki.secret("street", "edge", "edge")?].join("---\n"))?;
    market.lab.apply(include_str!("../../manifests/edge_sets.yaml"))?;
    up(&market, &["open", "modified"])?;
    check_all(&market, [edge_gateways::features(), edge_sets::features()].into_iter().flatten().collect())
}

#[test]
fn features_of_tls_at_the_edge() -> Result<()> {
    let market = Market::found()?;
    market.lab.apply(include_str!("../../manifests/edge.yaml"))?;
    market.lab.apply(&Pki::make(market.lab.dir())?.all()?)?;
    market.lab.apply(include_str!("../../manifests/edge_tls.yaml"))?;
    up(&market, &["secure", "mutual", "lenient", "partial", "relay"])?;
    for (namespace, name) in [("market", "vault"), ("outside", "visitor")] {
        market.lab.rolled_out(namespace, name)?;
    }
    check_all(&market, [edge_tls::features(), edge_backend_tls::features()].into_iter().flatten().collect())
}

/// Waits until gateways of the market are up.
fn up(market: &Market, gateways: &[&str]) -> Result<()> {
    for gateway in gateways {
        market.programmed(gateway)?;
        market.lab.rolled_out("market", &format!("{gateway}-istio"))?;
    }
    Ok(())
}

/// A host at a gateway of the market, as strangers see it.
pub(crate) struct Site<'a> {
    market: &'a Market,
    address: String,
    scheme: &'static str,
    port: u16,
    host: String,
    more: Vec<String>,
    caller: &'static str,
}

impl<'a> Site<'a> {
    /// A host at port 80 of a gateway.
    pub(crate) fn new(market: &'a Market, gateway: &str, host: &str) -> Result<Self> {
        let address = address(market, "market", gateway)?;
        let (host, more) = (host.to_owned(), Vec::new());
        Ok(Self { market, address, scheme: "http", port: 80, host, more, caller: "deploy/stranger" })
    }

    /// At another port.
    pub(crate) fn at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// By HTTPS, at this port.
    pub(crate) fn tls(mut self, port: u16) -> Self {
        (self.scheme, self.port) = ("https", port);
        self
    }

    /// With more arguments of `load call` in each request, by the visitor, who has certificates.
    pub(crate) fn visited(mut self, more: &[&str]) -> Self {
        self.more = more.iter().map(|one| (*one).to_owned()).collect();
        self.caller = "deploy/visitor";
        self
    }

    /// Arguments of `load call` for a request: `METHOD path Name:value ... --flag value ...`; in place of the path also
    /// `host/path`.
    fn arguments(&self, request: &str) -> Vec<String> {
        let mut words = request.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (host, path) = match target.find('/') {
            Some(0) | None => (self.host.as_str(), target),
            Some(at) => target.split_at(at),
        };
        let url = format!("{}://{}:{}{path}", self.scheme, self.address, self.port);
        let mut all: Vec<String> = [&url, "-X", method, "--host", host].map(str::to_owned).into();
        all.extend(self.more.iter().cloned());
        while let Some(word) = words.next() {
            match word.strip_prefix('-') {
                Some(_) => all.extend([word].into_iter().chain(words.next()).map(str::to_owned)),
                None => all.extend(["-H", word].map(str::to_owned)),
            }
        }
        all
    }

    /// Makes requests, one after the other.
    pub(crate) fn all(&self, requests: &[&str]) -> Result<Vec<Said>> {
        let calls: Vec<Vec<String>> = requests.iter().map(|request| self.arguments(request)).collect();
        let calls: Vec<Vec<&str>> = calls.iter().map(|call| call.iter().map(String::as_str).collect()).collect();
        let calls: Vec<&[&str]> = calls.iter().map(Vec::as_slice).collect();
        let said = self.market.calls_from("outside", self.caller, &calls)?;
        ensure!(said.len() == requests.len(), "{} answers to {} calls", said.len(), requests.len());
        Ok(said)
    }

    /// Makes a request.
    pub(crate) fn ask(&self, request: &str) -> Result<Said> {
        self.all(&[request])?.pop().context("no answer")
    }

    /// Makes a request until the answer passes the check.
    pub(crate) fn soon(&self, request: &str, passes: impl Fn(&Said) -> Result<bool>) -> Result<Said> {
        eventually(request, SOON, || {
            let said = self.ask(request)?;
            ensure!(passes(&said).with_context(|| format!("{said:?}"))?, "{said:?}");
            Ok(said)
        })
    }

    /// Makes the requests of a table until at one time all are answered as wanted: see [`outcome`].
    pub(crate) fn answers(&self, table: &[(&str, &str)]) -> Result<()> {
        let requests: Vec<&str> = table.iter().map(|(request, _)| *request).collect();
        eventually(&format!("everything is answered at {}", self.host), SOON, || {
            let found = self.all(&requests)?;
            let found = found.iter().map(outcome);
            let differ = table.iter().zip(found).filter(|((_, wanted), found)| wanted != found);
            let wrong: Vec<_> = differ.map(|((ask, want), found)| format!("{ask}: {found}, not {want}")).collect();
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        })
    }
}

/// How requests of one kind were answered: the backend, `302 <location>`, another status, or `nothing`; if not all the
/// same, everything that came.
pub(crate) fn outcome(said: &Said) -> String {
    match said.statuses().as_slice() {
        [] => "nothing".to_owned(),
        [(status, count)] if status == "200" => {
            let backends: Vec<_> = said.0["backends"].as_object().into_iter().flatten().collect();
            match backends.as_slice() {
                [] => status.clone(),
                [(name, answers)] if *answers == count => (*name).clone(),
                _ => said.0["backends"].to_string(),
            }
        }
        [(status, _)] if status.starts_with('3') => format!("{status} {}", said.header("location").join(",")),
        [(status, _)] => status.clone(),
        several => format!("{several:?}"),
    }
}

/// Where a gateway is reached from outside.
pub(crate) fn address(market: &Market, namespace: &str, gateway: &str) -> Result<String> {
    eventually(&format!("gateway {gateway} has an address"), SOON, || {
        let path = ".status.loadBalancer.ingress[0].ip";
        let said = market.lab.field(namespace, &format!("service/{gateway}-istio"), path)?;
        ensure!(!said.is_empty(), "no address yet");
        Ok(said)
    })
}

/// An object as the API server has it.
pub(crate) fn object(market: &Market, namespace: &str, name: &str) -> Result<Value> {
    let said = market.lab.kubectl(&["get", "-n", namespace, name, "-o", "json"])?;
    serde_json::from_str(&said).context("an object")
}

/// Patches an object of the market.
pub(crate) fn patch(market: &Market, name: &str, patch: &str) -> Result<()> {
    let kind = if patch.starts_with('[') { "--type=json" } else { "--type=merge" };
    market.lab.kubectl(&["patch", "-n", "market", name, kind, "-p", patch]).map(drop)
}

/// A part of a status: names of fields, indices, or names of elements of a list, with `/` between them.
pub(crate) fn part<'a>(object: &'a Value, path: &str) -> Result<&'a Value> {
    let steps = path.split('/').filter(|step| !step.is_empty());
    steps.into_iter().try_fold(&object["status"], |place, step| {
        let found = match place.as_array() {
            None => place.get(step),
            Some(list) => match step.parse::<usize>() {
                Ok(index) => list.get(index),
                Err(_) => list.iter().find(|one| one["name"] == step),
            },
        };
        found.with_context(|| format!("no {step} of {path} in {}", object["status"]))
    })
}

/// Waits until a part of the status of an object has these conditions, `Type=Status/Reason` each, all of the object's
/// present generation, and returns the object.
pub(crate) fn says(market: &Market, (namespace, name): (&str, &str), path: &str, wanted: &[&str]) -> Result<Value> {
    eventually(&format!("{name} says {wanted:?}"), SOON, || {
        let object = object(market, namespace, name)?;
        let conditions = part(&object, path)?["conditions"].as_array().cloned().unwrap_or_default();
        let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let told = |one: &Value| format!("{}={}/{}", text(one, "type"), text(one, "status"), text(one, "reason"));
        let found: Vec<String> = conditions.iter().map(told).collect();
        for one in wanted {
            ensure!(found.iter().any(|found| found == one), "{found:?}");
        }
        let generation = &object["metadata"]["generation"];
        let old = conditions.iter().any(|one| &one["observedGeneration"] != generation);
        ensure!(!old, "generation {generation}: {conditions:?}");
        Ok(object)
    })
}

/// Conditions of a route that is attached and has all that it names.
pub(crate) const FINE: &[&str] = &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];

/// An HTTPRoute of the market, for gateway `edge`, with the host `<name>.example.com`, and with rules as lists of YAML.
pub(crate) fn route<R: AsRef<str>>(name: &str, rules: &[R]) -> String {
    route_at(name, "{name: edge, sectionName: http}", &format!("[{name}.example.com]"), rules)
}

/// The same, with parents and hosts.
pub(crate) fn route_at<R: AsRef<str>>(name: &str, parents: &str, hosts: &str, rules: &[R]) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  parentRefs: [{parents}]\n  hostnames: {hosts}\n  rules:\n"
    );
    rules.iter().for_each(|rule| text.push_str(&format!("  - {{{}}}\n", rule.as_ref())));
    text
}

/// A rule that sends what matches to a version of the shop.
pub(crate) fn rule(matches: &str, version: &str) -> String {
    format!("matches: [{matches}], backendRefs: [{{name: shop-{version}, port: 80}}]")
}

/// An HTTPRoute as [`route`] makes, of rules as [`rule`] makes.
pub(crate) fn matching(name: &str, rules: &[(&str, &str)]) -> String {
    let rules: Vec<String> = rules.iter().map(|(matches, version)| rule(matches, version)).collect();
    route(name, &rules)
}
