//! The table of open connections.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Direction;
use crate::dump::{Row, entries, text};

pub(super) const HEADER: [&str; 6] = ["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"];

/// All that is given must hold.
pub(super) struct Filter {
    pub(super) direction: Option<Direction>,
    /// Addresses instead of names.
    pub(super) raw: bool,
    pub(super) namespace: Option<String>,
    /// `(namespace, name)` of one pod.
    pub(super) about: Option<(String, String)>,
}

pub(super) fn rows(dump: &Value, filter: &Filter) -> Vec<Row> {
    let names = if filter.raw { Names::default() } else { Names::of(dump) };
    let mut pods: Vec<&Value> = entries(dump, "workloadState");
    pods.sort_by_key(|pod| (info(pod, "namespace"), info(pod, "name")));
    let mut rows = Vec::new();
    for pod in pods {
        let (namespace, name) = (info(pod, "namespace"), info(pod, "name"));
        let wanted = filter.namespace.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(namespace));
        let about = filter.about.as_ref().is_none_or(|(ns, pod)| ns == namespace && pod == name);
        if !wanted || !about {
            continue;
        }
        let workload = format!("{name}.{namespace}");
        for (direction, key, title) in
            [(Direction::Inbound, "inbound", "Inbound"), (Direction::Outbound, "outbound", "Outbound")]
        {
            if filter.direction.is_some_and(|wanted| wanted != direction) {
                continue;
            }
            let connections = pod.get("connections").map(|all| entries(all, key)).unwrap_or_default();
            rows.extend(connections.into_iter().map(|connection| {
                let [source, target, actual] = ["src", "originalDst", "actualDst"].map(|key| text(connection, key));
                let (local, remote, target) = match direction {
                    Direction::Inbound => (names.of_addr(actual), names.of_addr(source), target.to_owned()),
                    Direction::Outbound => (names.of_addr(source), names.of_addr(actual), names.of_addr(target)),
                };
                let protocol = text(connection, "protocol");
                let cells = [workload.as_str(), title, &local, &remote, &target, protocol].map(str::to_owned);
                Row { cells: cells.to_vec(), source: pod.clone() }
            }));
        }
    }
    rows
}

fn info<'a>(pod: &'a Value, key: &str) -> &'a str {
    pod.get("info").map(|info| text(info, key)).unwrap_or_default()
}

/// Names of addresses that the dump knows.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(dump: &Value) -> Self {
        let mut names = BTreeMap::new();
        for workload in entries(dump, "workloads") {
            for ip in entries(workload, "workloadIps").into_iter().filter_map(Value::as_str) {
                names.insert(ip.to_owned(), format!("{}.{}", text(workload, "name"), text(workload, "namespace")));
            }
        }
        for service in entries(dump, "services") {
            for vip in entries(service, "vips").into_iter().filter_map(Value::as_str) {
                let ip = vip.split_once('/').map_or(vip, |(_, ip)| ip);
                names.insert(ip.to_owned(), text(service, "hostname").to_owned());
            }
        }
        Self(names)
    }

    fn of_addr(&self, addr: &str) -> String {
        let Some((ip, port)) = addr.rsplit_once(':') else { return addr.to_owned() };
        match self.0.get(ip.trim_matches(['[', ']'])) {
            Some(name) => format!("{name}:{port}"),
            None => addr.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_stand_for_addresses_unless_raw() {
        let dump = json!({
            "workloads": [{"name": "web", "namespace": "demo", "workloadIps": ["10.0.0.1", "fd00::1"]}],
            "services": [{"hostname": "web.demo.svc.cluster.local", "vips": ["/10.96.0.9"]}],
            "workloadState": {"u1": {"info": {"name": "web", "namespace": "demo"}, "connections": {
                "inbound": [{"src": "10.0.0.7:4000", "originalDst": "[fd00::1]:8080", "actualDst": "[fd00::1]:8080", "protocol": "HBONE"}],
                "outbound": [{"src": "10.0.0.1:5000", "originalDst": "10.96.0.9:80", "actualDst": "10.0.0.9:15008", "protocol": "HBONE"}]}}},
        });
        let mut filter = Filter { direction: None, raw: false, namespace: None, about: None };
        let cells =
            |filter: &Filter| rows(&dump, filter).into_iter().map(|row| row.cells.join("|")).collect::<Vec<_>>();
        assert_eq!(
            cells(&filter),
            [
                "web.demo|Inbound|web.demo:8080|10.0.0.7:4000|[fd00::1]:8080|HBONE",
                "web.demo|Outbound|web.demo:5000|10.0.0.9:15008|web.demo.svc.cluster.local:80|HBONE",
            ]
        );
        filter.raw = true;
        filter.direction = Some(Direction::Outbound);
        assert_eq!(cells(&filter), ["web.demo|Outbound|10.0.0.1:5000|10.0.0.9:15008|10.96.0.9:80|HBONE"]);
        filter.namespace = Some("other".into());
        assert!(cells(&filter).is_empty());
    }
}
