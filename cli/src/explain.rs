//! `meltemi explain`: asks the node proxy of the source what it would do with a connection, and why; and where a waypoint
//! is on the way, what that would do with a request.
//!
//! The proxies answer with the same functions that decide real traffic, on the state that they have right now.

mod request;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::gateway_pod;
use crate::output::{self, Format};
use crate::proxy::{self, Which};
use request::Wanted;

/// Explains what would happen to a connection: which proxy, which rule, why, and what would allow it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi explain sleep-5d9c7.demo web.demo:80
  meltemi explain sleep-5d9c7 10.96.14.2:80 -n demo -o json
  meltemi explain sleep-5d9c7.demo http://web.demo/cart -X POST -H 'x-tester: yes'
  meltemi explain gateway/edge.shop https://shop.example.com/    a request from outside that reaches a gateway")]
pub struct Explain {
    /// Source pod: <name>[.<namespace>]; gateway/<name>[.<namespace>] for a request from outside that reaches it.
    source: String,
    /// Destination: <ip>:<port>, or <service or pod>[.<namespace>]:<port>; http://<one of those>/<path> for a request.
    destination: String,
    /// Method of the request.
    #[arg(short = 'X', long, default_value = "GET")]
    method: http::Method,
    /// Header of the request, `name: value`, any number.
    #[arg(short = 'H', long = "header", value_parser = parse_header)]
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// How to print.
    #[arg(long, short = 'o', default_value = "short")]
    output: Format,
    /// Admin port of the proxies.
    #[arg(long, default_value_t = 15000)]
    proxy_admin_port: u16,
}

impl Explain {
    /// Runs the command.
    ///
    /// # Errors
    /// Says which end does not exist, or that no proxy can answer.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        let client = cluster.client().await?;
        let default = cluster.namespace_or(&client);
        if gateway_pod::is_gateway(&self.source) {
            return self.at_gateway(&client, cluster, default).await;
        }
        let which = proxy::parse_target(&self.source, default)?;
        let Which::Pod { namespace, name } = &which else { unreachable!("a target is a pod") };
        let found = proxy::find(&client, &cluster.istio_namespace, &which).await?;
        let wanted = Wanted::read(&self.destination, &self.method, &self.headers)?;
        let connection = wanted.as_ref().map_or(&self.destination, |wanted| &wanted.destination);
        let destination = resolve(&client, default, connection).await?;
        let path = format!("/explain?src={namespace}/{name}&dst={}", escape(&destination));
        let mut answer = proxy::get_json(&client, &found.proxy, self.proxy_admin_port, &path).await?;
        if let Some(wanted) = &wanted {
            let said = wanted.ask(&client, &cluster.istio_namespace, &answer, self.proxy_admin_port).await?;
            let said = said.unwrap_or_else(|| "no waypoint is on the way: requests are not looked at".into());
            if let Some(fields) = answer.as_object_mut() {
                fields.insert("request".to_owned(), said);
            }
        }
        if self.output != Format::Short {
            return output::machine(self.output, &answer);
        }
        output::line(render(&answer, &format!("{name}.{namespace}"), &self.destination))
    }

    /// A request from outside of the mesh.
    async fn at_gateway(&self, client: &Client, cluster: &Cluster, default_namespace: &str) -> Result<()> {
        let wanted = Wanted::read(&self.destination, &self.method, &self.headers)?;
        let wanted = wanted.with_context(|| {
            format!(
                "{:?}: a gateway is asked about requests, expected http://<host>/<path> or https://",
                self.destination
            )
        })?;
        let gateway = gateway_pod::find(client, default_namespace, Some(&self.source)).await?;
        let said = wanted.ask_gateway(client, &cluster.istio_namespace, &gateway, self.proxy_admin_port).await?;
        if self.output != Format::Short {
            return output::machine(self.output, &said);
        }
        let mut lines = vec![format!("outside -> {}: {}", self.destination, request::outcome(&said))];
        lines.extend(request::render(&said));
        output::line(lines.join("\n"))
    }
}

fn parse_header(text: &str) -> Result<(http::HeaderName, http::HeaderValue)> {
    let (name, value) = text.split_once(':').with_context(|| format!("{text:?}: expected `name: value`"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// Turns a service or pod name into the address that a client would dial.
async fn resolve(client: &Client, default_namespace: &str, destination: &str) -> Result<String> {
    let (host, port) = destination
        .rsplit_once(':')
        .with_context(|| format!("{destination:?}: expected <host>:<port>, for example web.demo:80"))?;
    let _: u16 = port.parse().with_context(|| format!("{destination:?}: {port:?} is not a port"))?;
    if host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return Ok(destination.to_owned());
    }
    let mut parts = host.split('.');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or(default_namespace);
    if let Some(service) = Api::<Service>::namespaced(client.clone(), namespace).get_opt(name).await? {
        let ip = service.spec.and_then(|spec| spec.cluster_ip).filter(|ip| !ip.is_empty() && ip != "None");
        let ip =
            ip.with_context(|| format!("service {name}.{namespace} has no address: name one of its pods instead"))?;
        return Ok(with_port(&ip, port));
    }
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), namespace);
    let pod =
        pods.get_opt(name).await?.with_context(|| format!("no service and no pod {name} in namespace {namespace}"))?;
    let ip = pod.status.and_then(|status| status.pod_ip).with_context(|| format!("pod {name} has no address yet"))?;
    Ok(with_port(&ip, port))
}

fn with_port(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn escape(text: &str) -> String {
    text.replace('[', "%5B").replace(']', "%5D")
}

/// The answer for people: every field in the order in which the connection meets it.
fn render(answer: &Value, source: &str, destination: &str) -> String {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    let outcome = match answer.pointer("/verdict/allowed").and_then(Value::as_bool) {
        Some(true) => "ALLOWED",
        Some(false) => "REFUSED",
        None => "UNKNOWN",
    };
    let request = answer.get("request").filter(|said| said.is_object());
    // Where the connection passes, the request decides.
    let shown = request.filter(|_| outcome == "ALLOWED").map_or_else(|| outcome.to_owned(), request::outcome);
    let mut out = vec![format!("{source} -> {destination}: {shown}")];
    let mut field = |title: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push(format!("  {title:<12} {value}"));
        }
    };
    let owned = |pointer: &str| text(pointer).map(str::to_owned);
    field("source", owned("/source/identity"));
    field("path", path(answer));
    field("destination", owned("/destination/workload/identity").or_else(|| owned("/destination/waypoint/identity")));
    field("decided by", owned("/verdict/by").or_else(|| owned("/path/by")));
    let rule = answer.pointer("/verdict/rule").and_then(Value::as_u64);
    let policy = owned("/verdict/policy");
    field("rule", policy.map(|policy| rule.map_or(policy.clone(), |rule| format!("{policy} rule {rule}"))));
    field("why", owned("/verdict/reason"));
    for policy in answer.get("policies").and_then(Value::as_array).into_iter().flatten() {
        field("policy", Some(verdict(policy)));
    }
    // What the waypoint would do is told below, where it was asked.
    field("note", owned("/note").filter(|_| request.is_none()));
    if outcome == "REFUSED" {
        field("to allow it", owned("/nearestAllow"));
    }
    field("request", owned("/request"));
    out.extend(request.map(request::render).unwrap_or_default());
    out.join("\n")
}

/// How the bytes travel, in one line.
fn path(answer: &Value) -> Option<String> {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    let dial = text("/path/dial").unwrap_or_default();
    Some(match text("/path/kind")? {
        "hbone" => format!("HBONE: mutual TLS to {dial}, for {}", text("/path/authority").unwrap_or_default()),
        "hbone-to-waypoint" => format!("HBONE to the waypoint at {dial}"),
        "refused" => "none: the source's own node proxy refuses".to_owned(),
        kind => format!("{kind} to {dial}: {}", text("/path/reason").unwrap_or_default()),
    })
}

/// What one policy says by itself.
fn verdict(policy: &Value) -> String {
    let text = |key: &str| policy.get(key).and_then(Value::as_str).unwrap_or_default();
    let matched = policy.get("matchedRule").and_then(Value::as_u64);
    let says = matched.map_or("does not match".to_owned(), |rule| format!("rule {rule} matches"));
    let dry = policy.get("dryRun").and_then(Value::as_bool).unwrap_or(false);
    format!("{} {}: {says}{}", text("action"), text("policy"), if dry { " (dry run)" } else { "" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_names_who_decided_why_and_what_would_allow_it() {
        let answer = json!({
            "source": {"identity": "spiffe://cluster.local/ns/demo/sa/sleep"},
            "path": {"kind": "hbone", "dial": "10.244.2.3:15008", "authority": "10.244.2.3:8080"},
            "destination": {"workload": {"identity": "spiffe://cluster.local/ns/demo/sa/web"}},
            "policies": [{"policy": "demo/no-sleep", "action": "DENY", "dryRun": false, "matchedRule": 0}],
            "verdict": {"allowed": false, "by": "ztunnel of demo/web-1", "policy": "demo/no-sleep", "rule": 0,
                        "reason": "explicitly denied"},
            "nearestAllow": "remove rule 0 of demo/no-sleep",
        });
        let text = render(&answer, "sleep.demo", "web.demo:80");
        assert!(text.starts_with("sleep.demo -> web.demo:80: REFUSED\n"), "{text}");
        for part in [
            "path         HBONE: mutual TLS to 10.244.2.3:15008, for 10.244.2.3:8080",
            "decided by   ztunnel of demo/web-1",
            "rule         demo/no-sleep rule 0",
            "policy       DENY demo/no-sleep: rule 0 matches",
            "to allow it  remove rule 0",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn what_is_allowed_needs_no_advice() {
        let answer = json!({"verdict": {"allowed": true, "reason": "no policy requires anything"}, "nearestAllow": "x",
                            "path": {"kind": "passthrough", "dial": "1.2.3.4:80", "reason": "not known"}});
        let text = render(&answer, "a.b", "c:80");
        assert!(text.contains("ALLOWED") && !text.contains("to allow it"), "{text}");
        assert!(text.contains("passthrough to 1.2.3.4:80: not known"), "{text}");
    }

    #[test]
    fn addresses_of_both_families_take_a_port() {
        assert_eq!(with_port("10.0.0.1", "80"), "10.0.0.1:80");
        assert_eq!(escape(&with_port("fd00::1", "80")), "%5Bfd00::1%5D:80");
    }
}
