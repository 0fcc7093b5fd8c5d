//! The tables of workloads, services, policies and certificates.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::dump::{Row, entries, text};

pub(super) const WORKLOAD_HEADER: [&str; 6] = ["NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"];
pub(super) const SERVICE_HEADER: [&str; 5] = ["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"];
pub(super) const POLICY_HEADER: [&str; 4] = ["NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"];
pub(super) const CERTIFICATE_HEADER: [&str; 7] =
    ["CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];

/// All that is given must hold; without regard to case.
pub(super) struct WorkloadFilter {
    pub(super) address: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) node: Option<String>,
    /// `(namespace, name)` of one pod.
    pub(super) about: Option<(String, String)>,
}

impl WorkloadFilter {
    fn keeps(&self, workload: &Value) -> bool {
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        let address = self.address.as_ref().is_none_or(|wanted| {
            strings(workload, "workloadIps").iter().any(|found| found.eq_ignore_ascii_case(wanted))
        });
        let about = self
            .about
            .as_ref()
            .is_none_or(|(namespace, name)| text(workload, "namespace") == namespace && text(workload, "name") == name);
        address
            && about
            && same(&self.namespace, text(workload, "namespace"))
            && same(&self.node, text(workload, "node"))
    }
}

pub(super) fn workloads(dump: &Value, filter: &WorkloadFilter) -> Vec<Row> {
    let mut rows: Vec<(String, Row)> = entries(dump, "workloads")
        .into_iter()
        .filter(|workload| filter.keeps(workload))
        .map(|workload| {
            let (namespace, name, node) = (text(workload, "namespace"), text(workload, "name"), text(workload, "node"));
            let ips = strings(workload, "workloadIps").join(",");
            let address = if ips.is_empty() { text(workload, "hostname").to_owned() } else { ips };
            let protocol = match text(workload, "protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            let cells = [namespace, name, &address, node, &waypoint(dump, workload), protocol];
            let row = Row { cells: cells.map(str::to_owned).to_vec(), source: workload.clone() };
            (format!("{name}.{namespace}\0{node}"), row)
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

pub(super) fn services(dump: &Value, namespace: Option<&str>) -> Vec<Row> {
    let healthy: BTreeMap<&str, bool> = entries(dump, "workloads")
        .into_iter()
        .map(|workload| (text(workload, "uid"), matches!(text(workload, "status"), "" | "Healthy")))
        .collect();
    let mut rows: Vec<_> = entries(dump, "services")
        .into_iter()
        .filter(|service| namespace.is_none_or(|wanted| wanted.eq_ignore_ascii_case(text(service, "namespace"))))
        .map(|service| {
            let endpoints = entries(service, "endpoints");
            let good = endpoints
                .iter()
                .filter(|endpoint| healthy.get(text(endpoint, "workloadUid")).copied().unwrap_or(false))
                .count();
            let vips = strings(service, "vips");
            let vips: Vec<&str> = vips.iter().map(|vip| vip.split_once('/').map_or(*vip, |(_, ip)| ip)).collect();
            let count = format!("{good}/{}", endpoints.len());
            let (namespace, name) = (text(service, "namespace"), text(service, "name"));
            let cells = [namespace, name, &vips.join(","), &waypoint(dump, service), &count];
            let key = [namespace, name, text(service, "hostname")].map(str::to_owned);
            (key, Row { cells: cells.map(str::to_owned).to_vec(), source: service.clone() })
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

pub(super) fn policies(dump: &Value, namespace: Option<&str>) -> Vec<Row> {
    let mut rows: Vec<Row> = entries(dump, "policies")
        .into_iter()
        .filter(|policy| namespace.is_none_or(|wanted| wanted.eq_ignore_ascii_case(text(policy, "namespace"))))
        .map(|policy| {
            let cells = ["namespace", "name", "action", "scope"].map(|key| text(policy, key).to_owned());
            Row { cells: cells.to_vec(), source: policy.clone() }
        })
        .collect();
    rows.sort_by(|a, b| a.cells.cmp(&b.cells));
    rows
}

pub(super) fn certificates(dump: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in entries(dump, "certificates") {
        let state = text(entry, "state");
        let state = if state.contains("Unavailable") { "Unavailable" } else { state };
        let (chain, roots) = (entries(entry, "certChain"), entries(entry, "rootCerts"));
        if chain.is_empty() {
            let cells = [text(entry, "identity"), "NA", state, "false", "NA", "NA", "NA"].map(str::to_owned);
            rows.push(Row { cells: cells.to_vec(), source: entry.clone() });
            continue;
        }
        let last = chain.len() - 1;
        for (index, certificate) in chain.iter().enumerate() {
            let kind = match index {
                0 => "Leaf",
                _ if index == last && roots.is_empty() => "Root",
                _ => "Intermediate",
            };
            rows.push(certificate_row(entry, certificate, kind, state));
        }
        rows.extend(roots.iter().map(|root| certificate_row(entry, root, "Root", state)));
    }
    rows
}

fn certificate_row(entry: &Value, certificate: &Value, kind: &str, state: &str) -> Row {
    let (from, until) = (text(certificate, "validFrom"), text(certificate, "expirationTime"));
    let now = k8s_openapi::jiff::Timestamp::now();
    let time = |text: &str| text.parse::<k8s_openapi::jiff::Timestamp>();
    let valid = time(from).is_ok_and(|from| from <= now) && time(until).is_ok_and(|until| now < until);
    let serial = text(certificate, "serialNumber");
    let cells = [text(entry, "identity"), kind, state, if valid { "true" } else { "false" }, &hex(serial), until, from];
    Row { cells: cells.map(str::to_owned).to_vec(), source: entry.clone() }
}

/// A decimal number of any length in hex; what is not a number stays as it is.
fn hex(decimal: &str) -> String {
    if decimal.is_empty() || !decimal.bytes().all(|byte| byte.is_ascii_digit()) {
        return decimal.to_owned();
    }
    let mut digits: Vec<u32> = decimal.bytes().map(|byte| u32::from(byte - b'0')).collect();
    let mut out = Vec::new();
    while digits.iter().any(|digit| *digit != 0) {
        let mut carry = 0;
        for digit in &mut digits {
            let value = carry * 10 + *digit;
            *digit = value / 16;
            carry = value % 16;
        }
        out.push(char::from_digit(carry, 16).unwrap_or('0'));
    }
    if out.is_empty() { "0".to_owned() } else { out.into_iter().rev().collect() }
}

/// The name of the service that a waypoint reference leads to.
fn waypoint(dump: &Value, bound: &Value) -> String {
    let Some(destination) = bound.pointer("/waypoint/destination").and_then(Value::as_str) else {
        return "None".to_owned();
    };
    entries(dump, "services")
        .into_iter()
        .find(|service| {
            format!("{}/{}", text(service, "namespace"), text(service, "hostname")) == destination
                || strings(service, "vips").contains(&destination)
        })
        .map_or_else(|| "NA".to_owned(), |service| text(service, "name").to_owned())
}

fn strings<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    entries(value, key).into_iter().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dump() -> Value {
        json!({
            "workloads": [
                {"uid": "k//Pod/demo/b", "namespace": "demo", "name": "b", "workloadIps": ["10.0.0.2"], "node": "n2",
                 "protocol": "HBONE", "status": "Unhealthy"},
                {"uid": "k//Pod/demo/a", "namespace": "demo", "name": "a", "workloadIps": ["10.0.0.1", "fd00::1"],
                 "node": "n1", "protocol": "HBONE", "waypoint": {"destination": "demo/wp.demo.svc.cluster.local"}},
                {"uid": "e", "namespace": "ext", "name": "e", "hostname": "db.example", "node": ""},
            ],
            "services": {"x": {"namespace": "demo", "name": "wp", "hostname": "wp.demo.svc.cluster.local",
                "vips": ["/10.96.0.9", "/fd00::9"],
                "endpoints": {"1": {"workloadUid": "k//Pod/demo/a"}, "2": {"workloadUid": "k//Pod/demo/b"},
                              "3": {"workloadUid": "gone"}}}},
        })
    }

    fn cells(rows: Vec<Row>) -> Vec<String> {
        rows.into_iter().map(|row| row.cells.join("|")).collect()
    }

    fn no_filter() -> WorkloadFilter {
        WorkloadFilter { address: None, namespace: None, node: None, about: None }
    }

    #[test]
    fn workloads_are_sorted_and_name_their_waypoint() {
        assert_eq!(
            cells(workloads(&dump(), &no_filter())),
            ["demo|a|10.0.0.1,fd00::1|n1|wp|HBONE", "demo|b|10.0.0.2|n2|None|HBONE", "ext|e|db.example||None|TCP"]
        );
    }

    #[test]
    fn filters_must_all_hold_and_ignore_case() {
        let filter = WorkloadFilter { namespace: Some("DEMO".into()), node: Some("n2".into()), ..no_filter() };
        assert_eq!(cells(workloads(&dump(), &filter)), ["demo|b|10.0.0.2|n2|None|HBONE"]);
        let filter = WorkloadFilter { address: Some("FD00::1".into()), ..no_filter() };
        assert_eq!(workloads(&dump(), &filter).len(), 1);
        let filter = WorkloadFilter { about: Some(("demo".into(), "a".into())), ..no_filter() };
        assert_eq!(workloads(&dump(), &filter).len(), 1);
    }

    #[test]
    fn endpoints_count_healthy_known_workloads() {
        assert_eq!(cells(services(&dump(), None)), ["demo|wp|10.96.0.9,fd00::9|None|1/3"]);
        assert!(services(&dump(), Some("other")).is_empty());
    }

    #[test]
    fn certificates_show_type_state_and_hex_serial() {
        let dump = json!({"certificates": [
            {"identity": "spiffe://td/ns/a/sa/b", "state": "Available",
             "certChain": [{"serialNumber": "256", "validFrom": "2000-01-01T00:00:00Z", "expirationTime": "2999-01-01T00:00:00Z"}],
             "rootCerts": [{"serialNumber": "10", "validFrom": "2000-01-01T00:00:00Z", "expirationTime": "2001-01-01T00:00:00Z"}]},
            {"identity": "spiffe://td/ns/a/sa/c", "state": "Unavailable: refused", "certChain": []},
        ]});
        assert_eq!(
            cells(certificates(&dump)),
            [
                "spiffe://td/ns/a/sa/b|Leaf|Available|true|100|2999-01-01T00:00:00Z|2000-01-01T00:00:00Z",
                "spiffe://td/ns/a/sa/b|Root|Available|false|a|2001-01-01T00:00:00Z|2000-01-01T00:00:00Z",
                "spiffe://td/ns/a/sa/c|NA|Unavailable|false|NA|NA|NA",
            ]
        );
    }

    #[test]
    fn numbers_of_any_length_turn_to_hex() {
        assert_eq!(hex("0"), "0");
        assert_eq!(hex("340282366920938463463374607431768211455"), "f".repeat(32));
        assert_eq!(hex("xyz"), "xyz");
    }
}
