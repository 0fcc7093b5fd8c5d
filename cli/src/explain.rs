//! `meltemi explain`: asks the node proxy of the source what it would do with a connection, and why.
//!
//! The proxy answers with the same functions that decide real traffic, on the state that it has right now.

use anyhow::{Context, Result, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::output::{self, Format};
use crate::proxy::{self, Which};

/// Explains what would happen to a connection: which proxy, which rule, why, and what would allow it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi explain sleep-5d9c7.demo web.demo:80
  meltemi explain sleep-5d9c7 10.96.14.2:80 -n demo -o json")]
pub struct Explain {
    /// Source pod: <name>[.<namespace>].
    source: String,
    /// Destination: <ip>:<port>, or <service or pod>[.<namespace>]:<port>.
    destination: String,
    /// How to print.
    #[arg(long, short = 'o', default_value = "short")]
    output: Format,
    /// Admin port of the node proxy.
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
        let which = proxy::parse_target(&self.source, default)?;
        let Which::Pod { namespace, name } = &which else { unreachable!("a target is a pod") };
        let found = proxy::find(&client, &cluster.istio_namespace, &which).await?;
        let about = found.about.as_ref().unwrap_or(&found.proxy);
        ensure!(
            about.annotations().get(mesh_api::labels::REDIRECTION).map(String::as_str)
                == Some(mesh_api::labels::REDIRECTION_ENABLED),
            "pod {name}.{namespace} is not in the mesh: its connections go out as they are, and the destination sees no \
             identity.\nPut it in:  kubectl label namespace {namespace} istio.io/dataplane-mode=ambient"
        );
        let destination = resolve(&client, default, &self.destination).await?;
        let path = format!("/explain?src={namespace}/{name}&dst={}", escape(&destination));
        let answer = proxy::get_json(&client, &found.proxy, self.proxy_admin_port, &path).await?;
        if self.output != Format::Short {
            return output::machine(self.output, &answer);
        }
        output::line(render(&answer, &format!("{name}.{namespace}"), &self.destination))
    }
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
    let mut out = vec![format!(
        "{source} -> {destination}: {}",
        match answer.get("allowed").and_then(Value::as_bool) {
            Some(true) => "ALLOWED",
            Some(false) => "REFUSED",
            None => "UNKNOWN",
        }
    )];
    let mut field = |title: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push(format!("  {title:<12} {value}"));
        }
    };
    field("source", text("/source/identity"));
    field("path", text("/path/description"));
    field("destination", text("/destination/identity"));
    field("decided by", text("/decision/proxy"));
    field("rule", text("/decision/policy"));
    field("why", text("/decision/reason"));
    let policies = answer.get("policies").and_then(Value::as_array);
    for policy in policies.into_iter().flatten() {
        let part = |key: &str| policy.get(key).and_then(Value::as_str).unwrap_or_default();
        out.push(format!("  {:<12} {} {}: {}", "policy", part("action"), part("name"), part("verdict")));
    }
    if let Some(change) = text("/nearest") {
        out.push(format!("  {:<12} {change}", "to allow it"));
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_names_who_decided_why_and_what_would_allow_it() {
        let answer = json!({
            "allowed": false,
            "source": {"identity": "spiffe://cluster.local/ns/demo/sa/sleep"},
            "path": {"description": "HBONE to 10.244.2.3:15008"},
            "destination": {"identity": "spiffe://cluster.local/ns/demo/sa/web"},
            "decision": {"proxy": "ztunnel on node-2", "policy": "demo/no-sleep rule 0", "reason": "denied by policy demo/no-sleep"},
            "policies": [{"name": "demo/no-sleep", "action": "Deny", "verdict": "matches (rule 0)"}],
            "nearest": "remove rule 0 of demo/no-sleep",
        });
        let text = render(&answer, "sleep.demo", "web.demo:80");
        assert!(text.starts_with("sleep.demo -> web.demo:80: REFUSED\n"), "{text}");
        for part in
            ["ztunnel on node-2", "demo/no-sleep rule 0", "to allow it  remove rule 0", "Deny demo/no-sleep: matches"]
        {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn addresses_of_both_families_take_a_port() {
        assert_eq!(with_port("10.0.0.1", "80"), "10.0.0.1:80");
        assert_eq!(escape(&with_port("fd00::1", "80")), "%5Bfd00::1%5D:80");
    }
}
