//! Exact metrics and access-log lines.

#![allow(clippy::indexing_slicing)] // reason: tests

use std::io;
use std::sync::Mutex;

use mesh_telemetry::log::{self, Format};

use super::*;
use crate::state::fixture::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `body` logs, without times.
fn logged(filter: &str, body: impl FnOnce()) -> Vec<String> {
    let sink = Sink::default();
    let options = log::Options { component: "test", format: Format::Plain, default_filter: filter.to_owned() };
    let (subscriber, handle) = log::build(options, Box::new(sink.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, body);
    handle.flush();
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect()
}

fn info(direction: Direction) -> ConnectionInfo {
    let world = World::new().with([
        address(pod("shop/web", "10.1.0.5")),
        address(pod("shop/cart-1", "10.1.0.77")),
        service_address(service("shop/cart.svc", &["172.20.0.9"], &[(80, 8080)])),
    ]);
    let snapshot = world.snapshot();
    let peer = |name: &str| {
        let workload = snapshot.workload_by_uid(&format!("Kubernetes//Pod/shop/{name}")).unwrap().clone();
        Peer { identity: Some(workload.identity.clone()), workload: Some(workload), baggage: None }
    };
    ConnectionInfo {
        direction,
        src_addr: "10.1.0.5:40000".parse().unwrap(),
        dst_addr: "10.1.0.77:15008".parse().unwrap(),
        hbone_addr: Some("10.1.0.77:8080".into()),
        source: peer("web"),
        destination: peer("cart-1"),
        service: snapshot.services().next().cloned(),
        mutual_tls: true,
    }
}

const ENDS: &str = "src.addr=10.1.0.5:40000 src.workload=web src.namespace=shop \
    src.identity=spiffe://cluster.local/ns/shop/sa/web src.cluster=Kubernetes dst.addr=10.1.0.77:15008 \
    dst.hbone_addr=10.1.0.77:8080 dst.service=cart.svc dst.workload=cart-1 dst.namespace=shop \
    dst.identity=spiffe://cluster.local/ns/shop/sa/cart-1 dst.cluster=Kubernetes";

#[test]
fn row_17_log_lines_count_bytes_from_the_workloads_side() {
    let report = Report::new(&Registry::new(), false);
    let lines = logged("info", || {
        for direction in [Direction::Outbound, Direction::Inbound] {
            let connection = report.opened(info(direction));
            connection.received(1000);
            connection.sent(10);
            connection.closed(Outcome::Complete);
        }
    });
    let outbound = format!(
        "info\taccess\tconnection complete\t{ENDS} direction=outbound bytes_sent=1000 bytes_recv=10 duration=0ms"
    );
    let inbound = format!(
        "info\taccess\tconnection complete\t{ENDS} direction=inbound bytes_sent=10 bytes_recv=1000 duration=0ms"
    );
    assert_eq!(lines, [outbound, inbound]);
}

#[test]
fn errors_drops_and_early_refusals_have_their_own_lines() {
    let report = Report::new(&Registry::new(), false);
    let lines = logged("debug", || {
        let failed = Outcome::Failed { flag: ResponseFlag::Connect, error: "backend refused".into() };
        report.opened(info(Direction::Outbound)).closed(failed);
        drop(report.opened(info(Direction::Inbound)));
        let addr = |text: &str| text.parse().unwrap();
        report.refused(Direction::Outbound, addr("10.1.0.5:1"), addr("127.0.0.1:15001"), "loop");
    });
    assert_eq!(lines[0], format!("debug\taccess\tconnection opened\t{ENDS} direction=outbound"));
    assert!(lines[1].starts_with("error\taccess\tconnection complete\t"), "{}", lines[1]);
    assert!(lines[1].ends_with("duration=0ms error=\"backend refused\""), "{}", lines[1]);
    assert!(lines[3].ends_with("error=\"connection closed by drain\""), "{}", lines[3]);
    assert_eq!(
        lines[4],
        "warn\taccess\tconnection failed\tsrc.addr=10.1.0.5:1 dst.addr=127.0.0.1:15001 direction=outbound error=loop"
    );
}

const LABELS: &str = "source_workload=\"web\",source_canonical_service=\"web\",source_canonical_revision=\"unknown\",\
    source_workload_namespace=\"shop\",source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"web\",\
    source_version=\"unknown\",source_cluster=\"Kubernetes\",destination_service=\"cart.svc\",\
    destination_service_namespace=\"shop\",destination_service_name=\"cart\",destination_workload=\"cart-1\",\
    destination_canonical_service=\"cart-1\",destination_canonical_revision=\"unknown\",\
    destination_workload_namespace=\"shop\",destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart-1\",\
    destination_app=\"cart-1\",destination_version=\"unknown\",destination_cluster=\"Kubernetes\",\
    request_protocol=\"tcp\"";

#[test]
fn rows_16_and_18_counters_have_all_labels_and_both_ends_agree_on_bytes() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let connection = report.opened(info(Direction::Outbound));
    connection.received(1000);
    connection.sent(10);
    connection.closed(Outcome::Complete);
    let denied = Outcome::Failed { flag: ResponseFlag::Deny, error: "denied".into() };
    report.opened(info(Direction::Inbound)).closed(denied);
    let text = registry.encode();
    for (name, reporter, flag, value) in [
        ("opened", "source", "-", 1),
        ("closed", "source", "-", 1),
        ("opened", "destination", "-", 1),
        ("closed", "destination", "DENY", 1),
        ("failed", "destination", "DENY", 1),
    ] {
        let line = format!(
            "istio_tcp_connections_{name}_total{{reporter=\"{reporter}\",{LABELS},response_flags=\"{flag}\",\
             connection_security_policy=\"mutual_tls\"}} {value}"
        );
        assert!(text.contains(&line), "{line}\nis missing in\n{text}");
    }
    let bytes = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{reporter=\"source\""))).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(
        (bytes("istio_tcp_received_bytes_total"), bytes("istio_tcp_sent_bytes_total")),
        ("1000".into(), "10".into())
    );
    assert!(!text.contains("failed_total{reporter=\"source\""));
}

#[test]
fn row_19_what_is_not_known_is_the_text_unknown() {
    let registry = Registry::new();
    let mut passthrough = info(Direction::Outbound);
    passthrough.destination = Peer::default();
    passthrough.service = None;
    passthrough.mutual_tls = false;
    Report::new(&registry, false).opened(passthrough).closed(Outcome::Complete);
    let text = registry.encode();
    let line = text.lines().find(|line| line.starts_with("istio_tcp_connections_opened_total")).unwrap();
    for label in [
        "source_principal",
        "destination_service",
        "destination_workload",
        "destination_principal",
        "connection_security_policy",
    ] {
        assert!(line.contains(&format!("{label}=\"unknown\"")), "{label} in {line}");
    }
}

#[test]
fn a_peer_known_from_baggage_only_is_named_by_it() {
    let registry = Registry::new();
    let mut remote = info(Direction::Inbound);
    let baggage = BaggagePeer {
        workload_name: Some("far".into()),
        canonical_name: Some("far-svc".into()),
        region: Some("r1".into()),
        ..BaggagePeer::default()
    };
    remote.source = Peer { workload: None, baggage: Some(baggage), identity: remote.source.identity };
    Report::new(&registry, false).opened(remote).closed(Outcome::Complete);
    let text = registry.encode();
    assert!(text.contains("source_workload=\"far\",source_canonical_service=\"far-svc\""), "{text}");
    assert!(text.contains("source_app=\"far\""), "{text}");
    assert!(text.contains("source_region=\"r1\",source_zone=\"unknown\",destination_region=\"unknown\""), "{text}");
}

#[test]
fn sockets_are_counted_while_their_guard_lives() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let guard = report.socket_opened(Direction::Inbound);
    assert!(registry.encode().contains("istio_tcp_sockets_open{reporter=\"destination\"} 1"));
    drop(guard);
    assert!(registry.encode().contains("istio_tcp_sockets_open{reporter=\"destination\"} 0"));
}

#[test]
fn a_denial_names_both_ends_the_rule_and_the_nearest_change() {
    use mesh_policy::{Connection as Seen, Policy, evaluate};
    use mesh_wire::security::{Action, Authorization, Scope};
    let message = Authorization {
        rules: vec![from_principal("x/ns/a/sa/b")],
        ..policy("shop/p", Scope::Namespace, Action::Allow)
    };
    let policies = [Arc::new(Policy::decode("shop/p", message).unwrap())];
    let info = info(Direction::Inbound);
    let seen = Seen {
        source_ip: info.src_addr.ip(),
        identity: info.source.identity.clone(),
        destination: "10.1.0.77:8080".parse().unwrap(),
    };
    let (source, destination) = (info.source.workload.unwrap(), info.destination.workload.unwrap());
    let verdict = evaluate(&policies, &seen);
    let report = Report::new(&Registry::new(), false);
    let denial = Denial {
        src_addr: info.src_addr,
        source: Some(&source),
        destination: &destination,
        connection: &seen,
        policies: &policies,
        verdict: &verdict,
    };
    let lines = logged("info", || report.denied(&denial));
    assert_eq!(
        lines,
        ["warn\tdenial\tconnection denied\tsrc.addr=10.1.0.5:40000 src.workload=web src.namespace=shop \
          src.identity=spiffe://cluster.local/ns/shop/sa/web dst.addr=10.1.0.77:8080 dst.workload=cart-1 \
          dst.namespace=shop dst.identity=spiffe://cluster.local/ns/shop/sa/cart-1 policy=shop/p \
          reason=\"allow policies exist but none matched: shop/p\" \
          nearest_allow=\"add principal cluster.local/ns/shop/sa/web to rule 0 of allow policy shop/p\""]
    );
}
