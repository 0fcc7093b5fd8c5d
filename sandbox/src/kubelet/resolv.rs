//! The files of name resolution that each pod gets: `resolv.conf`, `hosts`, `hostname`. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// The cluster's side of name resolution.
#[derive(Debug, Clone)]
pub(super) struct ClusterDns<'a> {
    pub(super) servers: &'a [IpAddr],
    pub(super) domain: &'a str,
    /// The node's own `resolv.conf`, for policy `Default`.
    pub(super) of_node: &'a str,
}

/// The content of `/etc/resolv.conf`.
pub(super) fn resolv_conf(pod: &Pod, dns: &ClusterDns<'_>) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let from_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        // On the host network "cluster first" means the node's own servers.
        "ClusterFirst" => spec.host_network != Some(true),
        _ => false,
    };
    let namespace = pod.namespace().unwrap_or_default();
    let (mut servers, mut searches, mut options) = if from_cluster {
        let domain = dns.domain;
        (
            dns.servers.iter().map(ToString::to_string).collect(),
            vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()],
            vec!["ndots:5".to_owned()],
        )
    } else if policy == "None" {
        (Vec::new(), Vec::new(), Vec::new())
    } else {
        parse(dns.of_node)
    };
    if let Some(config) = &spec.dns_config {
        servers.extend(config.nameservers.iter().flatten().cloned());
        searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let text = match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            options.retain(|found| found.split(':').next() != Some(&name));
            options.push(text);
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in servers.iter().take(SERVERS_MAX) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// Servers, search domains and options of a `resolv.conf`.
fn parse(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let mut parsed = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => parsed.0.extend(words.next()),
            Some("search") => parsed.1 = words.collect(),
            Some("options") => parsed.2.extend(words),
            _ => {}
        }
    }
    parsed
}

/// The content of `/etc/hosts`.
pub(super) fn hosts(pod: &Pod, ips: &[IpAddr], domain: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let hostname = hostname(pod);
    let namespace = pod.namespace().unwrap_or_default();
    for ip in ips {
        match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
            Some(subdomain) => {
                text.push_str(&format!("{ip}\t{hostname}.{subdomain}.{namespace}.svc.{domain}\t{hostname}\n"))
            }
            None => text.push_str(&format!("{ip}\t{hostname}\n")),
        }
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// The host name of a pod.
pub(super) fn hostname(pod: &Pod) -> String {
    let named = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| pod.name_any())
}

/// Name servers that resolvers read (`MAXNS` of the C library).
const SERVERS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "demo"}, "spec": spec})).unwrap()
    }

    const NODE: &str = "# comment\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n";

    fn conf(spec: Value) -> String {
        let servers = ["10.96.0.10".parse().unwrap()];
        let dns = ClusterDns { servers: &servers, domain: "cluster.local", of_node: NODE };
        resolv_conf(&pod(spec), &dns)
    }

    #[test]
    fn each_policy_takes_its_servers() {
        let cluster = "search demo.svc.cluster.local svc.cluster.local cluster.local\n\
                       nameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search example.org\nnameserver 192.0.2.1\noptions edns0\n";
        let table = [
            (json!({}), cluster),
            (json!({"dnsPolicy": "ClusterFirst"}), cluster),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), node),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (json!({"dnsPolicy": "Default"}), node),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}),
                "search x\nnameserver 1.1.1.1\noptions ndots:2 rotate\n",
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(conf(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn options_replace_and_servers_are_limited() {
        let text = conf(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}],
            "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"]}}));
        assert!(text.ends_with("options ndots:1\n"), "{text}");
        assert_eq!(text.matches("nameserver").count(), 3);
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let ips = ["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let text = hosts(
            &pod(json!({"subdomain": "db", "hostname": "zero",
                "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["a", "b"]}]})),
            &ips,
            "cluster.local",
        );
        assert!(text.contains("10.244.1.2\tzero.db.demo.svc.cluster.local\tzero\n"));
        assert!(text.contains("fd00::2\tzero.db"));
        assert!(text.ends_with("10.0.0.9\ta\tb\n"));
        assert!(hosts(&pod(json!({})), &ips, "cluster.local").contains("10.244.1.2\tweb-1\n"));
    }
}
