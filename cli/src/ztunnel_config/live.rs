//! The table of open connections with their ends and what they have moved: more than a config dump has.

use serde_json::Value;

use super::Direction;
use super::connections::Filter;
use crate::dump::{Row, entries, text};

/// Where a proxy of ours answers; `about` is one pod, as `(namespace, name)`.
pub(super) fn path(about: Option<&(String, String)>) -> String {
    let all = "/debug/connections";
    about.map_or_else(|| all.to_owned(), |(namespace, name)| format!("{all}?pod={namespace}/{name}"))
}

pub(super) const HEADER: [&str; 9] =
    ["WORKLOAD", "DIRECTION", "PEER", "PEER IDENTITY", "SERVICE", "TARGET", "SENT", "RECEIVED", "AGE"];

pub(super) fn rows(answer: &Value, filter: &Filter) -> Vec<Row> {
    entries(answer, "connections").into_iter().filter(|one| is_wanted(one, filter)).map(row).collect()
}

fn is_wanted(connection: &Value, filter: &Filter) -> bool {
    let (namespace, name) = pod(connection);
    let direction = match filter.direction {
        None => true,
        Some(Direction::Inbound) => text(connection, "direction") == "inbound",
        Some(Direction::Outbound) => text(connection, "direction") == "outbound",
    };
    direction
        && filter.namespace.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(namespace))
        && filter.about.as_ref().is_none_or(|(ns, pod)| ns == namespace && pod == name)
}

fn row(connection: &Value) -> Row {
    let (namespace, name) = pod(connection);
    let inbound = text(connection, "direction") == "inbound";
    let (peer, peer_addr) = if inbound { ("source", "src") } else { ("destination", "dst") };
    let end = connection.get(peer).unwrap_or(&Value::Null);
    let peer = match text(end, "workload") {
        "" => text(connection, peer_addr).to_owned(),
        workload => format!("{workload}.{}", text(end, "namespace")),
    };
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let target = match text(connection, "hboneAddr") {
        "" => text(connection, "dst"),
        authority => authority,
    };
    let number = |key: &str| connection.get(key).and_then(Value::as_u64).unwrap_or_default();
    let cells = vec![
        format!("{name}.{namespace}"),
        if inbound { "Inbound" } else { "Outbound" }.to_owned(),
        peer,
        or_dash(text(end, "identity")),
        or_dash(text(connection, "service")),
        target.to_owned(),
        bytes(number("bytesSent")),
        bytes(number("bytesReceived")),
        age(number("ageMs")),
    ];
    Row { cells, source: connection.clone() }
}

/// `(namespace, name)` of the pod that the connection belongs to.
fn pod(connection: &Value) -> (&str, &str) {
    let pod = connection.get("pod").unwrap_or(&Value::Null);
    (text(pod, "namespace"), text(pod, "name"))
}

/// Tells when the proxy did not show all.
pub(super) fn warn_about_left_out(answer: &Value) {
    let left_out = answer.get("leftOut").and_then(Value::as_u64).unwrap_or_default();
    if left_out > 0 {
        crate::output::note(format!("{left_out} more connections are open: name a pod to see its own"));
    }
}

/// `1.5 KiB`, as people read it.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// The two largest units.
fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ends_and_what_was_moved_are_shown() {
        let answer = json!({"leftOut": 0, "connections": [
            {"pod": {"namespace": "demo", "name": "web"}, "direction": "outbound", "src": "10.0.0.1:5000",
             "dst": "10.0.0.9:15008", "hboneAddr": "10.0.0.9:8080", "service": "demo/cart.demo.svc.cluster.local",
             "source": {"workload": "web", "namespace": "demo"},
             "destination": {"workload": "cart-1", "namespace": "demo", "identity": "spiffe://td/ns/demo/sa/cart"},
             "mutualTls": true, "bytesSent": 1536, "bytesReceived": 10, "ageMs": 61_500},
            {"pod": {"namespace": "demo", "name": "cart-1"}, "direction": "inbound", "src": "192.0.2.1:5000",
             "dst": "10.0.0.9:8080", "source": {}, "destination": {"workload": "cart-1", "namespace": "demo"},
             "mutualTls": false, "bytesSent": 0, "bytesReceived": 0, "ageMs": 5},
        ]});
        let mut filter = Filter { direction: None, raw: true, namespace: None, about: None };
        let cells =
            |filter: &Filter| rows(&answer, filter).into_iter().map(|row| row.cells.join("|")).collect::<Vec<_>>();
        let (out, arriving) = (
            "web.demo|Outbound|cart-1.demo|spiffe://td/ns/demo/sa/cart|demo/cart.demo.svc.cluster.local|\
             10.0.0.9:8080|1.5 KiB|10 B|1m1s",
            "cart-1.demo|Inbound|192.0.2.1:5000|-|-|10.0.0.9:8080|0 B|0 B|0s",
        );
        assert_eq!(cells(&filter), [out, arriving]);
        filter.direction = Some(Direction::Inbound);
        assert_eq!(cells(&filter), [arriving]);
        filter = Filter { direction: None, about: Some(("demo".into(), "web".into())), ..filter };
        assert_eq!(cells(&filter), [out]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 1023, 1024, 1 << 30, 5 << 40].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 GiB", "5120.0 GiB"]);
        assert_eq!([0, 59_999, 60_000, 3_660_000, 90_000_000].map(age), ["0s", "59s", "1m0s", "1h1m", "1d1h"]);
    }
}
