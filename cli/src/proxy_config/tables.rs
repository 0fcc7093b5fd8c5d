//! The tables of routes, clusters, endpoints and listeners.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::dump::{Row, entries, number, text, texts};

pub(super) const ROUTES: [&str; 8] = ["NAME", "DOMAINS", "ORDER", "MATCH", "ROUTE", "ACTION", "EFFECTS", "POLICIES"];
pub(super) const CLUSTERS: [&str; 9] = [
    "SERVICE FQDN",
    "PORT",
    "SUBSET",
    "ENDPOINTS",
    "EJECTED",
    "TRANSPORT",
    "BALANCER",
    "BREAKERS OPEN",
    "ACTIVE REQUESTS",
];
pub(super) const ENDPOINTS: [&str; 8] =
    ["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER", "WORKLOAD", "TRANSPORT", "LOCALITY", "ACTIVE REQUESTS"];
pub(super) const LISTENERS: [&str; 8] =
    ["ADDRESSES", "PORT", "PROTOCOL", "HOSTNAME", "CERTIFICATE", "EXPIRES", "DESTINATION", "POLICIES"];

/// All that is given must hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) fqdn: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) subset: Option<String>,
    pub(super) name: Option<String>,
    pub(super) address: Option<String>,
    pub(super) status: Option<String>,
}

impl Filter {
    /// Whether a host is the one that is asked for: itself, by its first labels, or as a pattern that covers it.
    fn host(&self, host: &str) -> bool {
        let Some(wanted) = &self.fqdn else { return true };
        let (host, wanted) = (host.to_ascii_lowercase(), wanted.to_ascii_lowercase());
        let begins = host.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let covers = host.strip_prefix('*').is_some_and(|suffix| !suffix.is_empty() && wanted.ends_with(suffix));
        begins || covers
    }

    fn port(&self, row: &Value) -> bool {
        self.port.is_none_or(|wanted| ["port", "podPort"].iter().any(|key| number(row, key) == u64::from(wanted)))
    }

    fn subset(&self, cluster: &Value) -> bool {
        self.subset.as_ref().is_none_or(|wanted| wanted == text(cluster, "subset"))
    }

    fn name(&self, found: &[&str]) -> bool {
        self.name.as_ref().is_none_or(|wanted| found.iter().any(|one| one == wanted))
    }
}

pub(super) fn routes(dump: &Value, filter: &Filter) -> Vec<Row> {
    let keep = |row: &&Value| {
        let name = text(row, "listener");
        let (host, _) = name.rsplit_once(':').unwrap_or((name, ""));
        let hosts = filter.host(host) || texts(row, "hosts").iter().any(|host| filter.host(host));
        hosts && filter.port(row) && filter.name(&[name, host, text(row, "resource")])
    };
    let row = |row: &Value| {
        let policies = match row.get("refuseAll").and_then(Value::as_str) {
            Some(reason) => format!("REFUSES ALL: {reason}"),
            None => or_dash(texts(row, "policies").join(",")),
        };
        let cells = vec![
            text(row, "listener").to_owned(),
            domains(row),
            number(row, "order").to_string(),
            text(row, "match").to_owned(),
            or_dash(text(row, "route").to_owned()),
            action(row),
            or_dash(texts(row, "effects").join("; ")),
            policies,
        ];
        Row { cells, source: row.clone() }
    };
    entries(dump, "routes").into_iter().filter(keep).map(row).collect()
}

fn domains(row: &Value) -> String {
    let hosts = texts(row, "hosts");
    let more = hosts.len() as u64 + number(row, "hostsLeftOut");
    let shown: Vec<&str> = hosts.into_iter().take(DOMAINS_MAX).collect();
    match more.saturating_sub(shown.len() as u64) {
        0 => shown.join(","),
        more => format!("{} and {more} more", shown.join(",")),
    }
}

/// Where requests go, or what answers them.
fn action(row: &Value) -> String {
    if let Some(answer) = row.get("answer").and_then(Value::as_str) {
        return answer.to_owned();
    }
    let backends = entries(row, "backends");
    match backends.as_slice() {
        [] => "no backend".to_owned(),
        [only] => target(only).into_owned(),
        several => {
            several.iter().map(|one| format!("{} {}", text(one, "share"), target(one))).collect::<Vec<_>>().join(", ")
        }
    }
}

/// One of several backends.
pub(crate) fn target(backend: &Value) -> Cow<'_, str> {
    match (backend.get("service"), backend.get("redirect"), backend.get("error")) {
        (Some(Value::String(service)), ..) => service.into(),
        (_, Some(Value::String(redirect)), _) => redirect.into(),
        (_, _, Some(status)) => format!("answers with {status}: {}", text(backend, "reason")).into(),
        _ => format!("nowhere: {}", text(backend, "reason")).into(),
    }
}

pub(super) fn clusters(dump: &Value, filter: &Filter) -> Vec<Row> {
    let keep = |cluster: &&Value| filter.host(&service(cluster)) && filter.port(cluster) && filter.subset(cluster);
    let row = |cluster: &Value| {
        let port = match number(cluster, "port") {
            0 => "-".to_owned(),
            port => port.to_string(),
        };
        let refused = cluster.get("refuse").and_then(Value::as_str).map(|why| format!("REFUSED: {why}"));
        let cells = vec![
            service(cluster).into_owned(),
            port,
            or_dash(text(cluster, "subset").to_owned()),
            format!("{}/{}", number(cluster, "endpointsHealthy"), number(cluster, "endpointsTotal")),
            number(cluster, "endpointsEjected").to_string(),
            refused.unwrap_or_else(|| or_dash(texts(cluster, "transport").join(" or "))),
            or_dash(text(cluster, "balancer").to_owned()),
            or_dash(texts(cluster, "breakersOpen").join(",")),
            number(cluster.get("stats").unwrap_or(&json!({})), "upstream_rq_active").to_string(),
        ];
        Row { cells, source: cluster.clone() }
    };
    entries(dump, "clusters").into_iter().filter(keep).map(row).collect()
}

/// Of a cluster that is no longer configured only its name is known.
fn service(cluster: &Value) -> Cow<'_, str> {
    match (text(cluster, "service"), text(cluster, "wildcard")) {
        ("", "") => {
            let host = text(cluster, "name").rsplit('|').next().unwrap_or_default();
            format!("{host} (no longer configured)").into()
        }
        (_, wildcard) if !wildcard.is_empty() => wildcard.into(),
        (service, _) => service.into(),
    }
}

pub(super) fn endpoints(dump: &Value, filter: &Filter) -> Vec<Row> {
    let of_cluster = |cluster: &&Value| {
        filter.host(&service(cluster)) && filter.subset(cluster) && filter.name(&[text(cluster, "name")])
    };
    let mut rows = Vec::new();
    for cluster in entries(dump, "clusters").into_iter().filter(of_cluster) {
        for endpoint in entries(cluster, "endpoints") {
            let ejected = endpoint.get("ejected").and_then(Value::as_bool).unwrap_or(false);
            let status = text(endpoint, "status");
            let address = match text(endpoint, "hostname") {
                "" => text(endpoint, "address").to_owned(),
                host => format!("{host}:{}", port_of(text(endpoint, "address"))),
            };
            if !keeps_endpoint(filter, cluster, &address, status, ejected) {
                continue;
            }
            let cells = vec![
                address,
                status.to_owned(),
                if ejected { "EJECTED" } else { "OK" }.to_owned(),
                text(cluster, "name").to_owned(),
                workload(text(endpoint, "id")),
                text(endpoint, "transport").to_owned(),
                or_dash(text(endpoint, "locality").to_owned()),
                number(endpoint, "activeRequests").to_string(),
            ];
            let mut source = endpoint.clone();
            if let Some(fields) = source.as_object_mut() {
                fields.insert("cluster".to_owned(), text(cluster, "name").into());
            }
            rows.push(Row { cells, source });
        }
    }
    rows
}

fn keeps_endpoint(filter: &Filter, cluster: &Value, address: &str, status: &str, ejected: bool) -> bool {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let wanted_port =
        filter.port.is_none_or(|wanted| number(cluster, "port") == u64::from(wanted) || port == wanted.to_string());
    let same = |wanted: &String| wanted == address || wanted.trim_matches(['[', ']']) == host.trim_matches(['[', ']']);
    let wanted_status = filter.status.as_ref().is_none_or(|wanted| match wanted.to_ascii_lowercase().as_str() {
        "ejected" => ejected,
        "healthy" => status == "HEALTHY" && !ejected,
        _ => status != "HEALTHY",
    });
    wanted_port && filter.address.as_ref().is_none_or(same) && wanted_status
}

/// `name.namespace` of a workload's id, such as `<cluster>//Pod/<namespace>/<name>`; any other id as it is.
fn workload(id: &str) -> String {
    match id.split('/').collect::<Vec<_>>().as_slice() {
        [_, _, "Pod", namespace, name] => format!("{name}.{namespace}"),
        _ => or_dash(id.to_owned()),
    }
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(_, port)| port)
}

pub(super) fn listeners(dump: &Value, filter: &Filter) -> Vec<Row> {
    let keep = |row: &&Value| {
        let addresses = texts(row, "addresses");
        let address = filter.address.as_ref().is_none_or(|wanted| addresses.iter().any(|found| found == wanted));
        address && filter.host(text(row, "hostname")) && filter.port(row)
    };
    let row = |row: &Value| {
        let port = match (number(row, "port"), number(row, "podPort")) {
            (port, 0) => port.to_string(),
            (port, pod) if port == pod => port.to_string(),
            (port, pod) => format!("{port} (pod: {pod})"),
        };
        let (certificate, expires) = certificate(row);
        let policies = match row.get("refuseAll").and_then(Value::as_str) {
            Some(reason) => format!("REFUSES ALL: {reason}"),
            None => or_dash(texts(row, "policies").join(",")),
        };
        let cells = vec![
            or_dash(texts(row, "addresses").join(",")),
            port,
            text(row, "protocol").to_owned(),
            if text(row, "hostname").is_empty() { "*".to_owned() } else { text(row, "hostname").to_owned() },
            certificate,
            expires,
            text(row, "destination").to_owned(),
            policies,
        ];
        Row { cells, source: row.clone() }
    };
    entries(dump, "listeners").into_iter().filter(keep).map(row).collect()
}

/// Names of the certificates of a listener, and when the first of them ends.
fn certificate(row: &Value) -> (String, String) {
    let Some(tls) = row.get("tls").filter(|tls| tls.is_object()) else { return ("-".to_owned(), "-".to_owned()) };
    if text(tls, "mode") == "passthrough" {
        return ("passed through".to_owned(), "-".to_owned());
    }
    let all = entries(tls, "certificates");
    let mut names: Vec<&str> = all.iter().flat_map(|one| texts(one, "names")).collect();
    names.dedup();
    let first = all.iter().min_by_key(|one| text(one, "expirationTime"));
    let expires = first.map_or_else(
        || "-".to_owned(),
        |one| match text(one, "state") {
            "valid" => text(one, "expirationTime").to_owned(),
            state => format!("{} {}", state.to_uppercase(), text(one, "expirationTime")),
        },
    );
    let shown = match (names.is_empty(), text(tls, "identity")) {
        (false, _) => names.join(","),
        (true, "mesh") => "of the mesh".to_owned(),
        (true, _) => "-".to_owned(),
    };
    (shown, expires)
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Host names of one row.
const DOMAINS_MAX: usize = 2;

#[cfg(test)]
mod tests;
