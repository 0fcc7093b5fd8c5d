//! Exact metrics and access-log lines.

#![allow(clippy::indexing_slicing)] // reason: tests

mod bounds;
mod denials;
mod gone;

use std::io;
use std::time::Duration;

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

fn world() -> World {
    World::new().with([
        address(pod("shop/web", "10.1.0.5")),
        address(pod("shop/cart-1", "10.1.0.77")),
        service_address(service("shop/cart.svc", &["172.20.0.9"], &[(80, 8080)])),
    ])
}

fn info(direction: Direction) -> ConnectionInfo {
    info_of(direction, &world().snapshot())
}

fn info_of(direction: Direction, snapshot: &Snapshot) -> ConnectionInfo {
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
fn ops_row_17_log_lines_count_bytes_from_the_workloads_side() {
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

/// One line of the exposition.
fn series(name: &str, reporter: &str, flag: &str, value: u64) -> String {
    format!(
        "istio_tcp_{name}_total{{reporter=\"{reporter}\",{LABELS},response_flags=\"{flag}\",\
         connection_security_policy=\"mutual_tls\"}} {value}\n"
    )
}

#[test]
fn ops_row_16_counters_have_all_labels_and_both_ends_agree_on_bytes() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    for direction in [Direction::Outbound, Direction::Inbound] {
        let connection = report.opened(info(direction));
        connection.received(900);
        connection.received(100);
        connection.sent(10);
        connection.closed(Outcome::Complete);
    }
    let text = registry.encode();
    for reporter in ["source", "destination"] {
        for (name, value) in
            [("connections_opened", 1), ("connections_closed", 1), ("received_bytes", 1000), ("sent_bytes", 10)]
        {
            let line = series(name, reporter, "-", value);
            assert!(text.contains(&line), "{line}\nis missing in\n{text}");
        }
    }
    assert!(!text.contains("failed_total{"), "{text}");
}

#[test]
fn ops_row_18_a_denied_connection_is_opened_closed_and_failed() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let denied = Outcome::Failed { flag: ResponseFlag::Deny, error: "denied".into() };
    report.opened(info(Direction::Inbound)).closed(denied);
    let text = registry.encode();
    for line in [
        series("connections_opened", "destination", "-", 1),
        series("connections_closed", "destination", "DENY", 1),
        series("connections_failed", "destination", "DENY", 1),
    ] {
        assert!(text.contains(&line), "{line}\nis missing in\n{text}");
    }
    assert!(!text.contains(&series("connections_closed", "destination", "-", 1)));
}

#[test]
fn each_flag_has_its_name() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    for flag in ResponseFlag::ALL {
        report.opened(info(Direction::Outbound)).closed(Outcome::Failed { flag, error: "e".into() });
    }
    let text = registry.encode();
    for flag in
        ["DENY", "CONNECT", "TLS_FAILURE", "H2_HANDSHAKE_FAILURE", "NETWORK_POLICY", "IDENTITY_ERROR", "CERT_REVOKED"]
    {
        assert!(text.contains(&series("connections_failed", "source", flag, 1)), "{flag}: {text}");
    }
}

#[test]
fn bytes_of_an_open_connection_show_at_the_next_scrape() {
    let registry = Registry::new();
    let connection = Report::new(&registry, false).opened(info(Direction::Outbound));
    connection.received(7);
    assert!(registry.encode().contains(&series("received_bytes", "source", "-", 7)));
    connection.received(3);
    assert!(registry.encode().contains(&series("received_bytes", "source", "-", 10)));
    assert!(registry.encode().contains(&series("connections_opened", "source", "-", 1)));
    assert!(!registry.encode().contains("connections_closed_total{"));
}

#[test]
fn ops_row_19_what_is_not_known_is_the_text_unknown() {
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
fn a_peer_cannot_forge_a_series_with_its_baggage() {
    let registry = Registry::new();
    let mut remote = info(Direction::Inbound);
    let baggage = BaggagePeer { workload_name: Some("x\"} 1\nforged 2".into()), ..BaggagePeer::default() };
    remote.source = Peer { workload: None, baggage: Some(baggage), identity: None };
    Report::new(&registry, false).opened(remote).closed(Outcome::Complete);
    let text = registry.encode();
    assert!(text.contains(r#"source_workload="x\"} 1\nforged 2""#), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("forged")));
}

#[test]
fn behind_a_gateway_the_destination_is_who_answered() {
    let registry = Registry::new();
    let mut across = info(Direction::Outbound);
    let baggage = BaggagePeer { workload_name: Some("far".into()), ..BaggagePeer::default() };
    let identity = Some("spiffe://td2/ns/n/sa/s".parse().unwrap());
    across.destination = Peer { workload: None, baggage: Some(baggage), identity };
    Report::new(&registry, false).opened(across).closed(Outcome::Complete);
    let text = registry.encode();
    assert!(text.contains("destination_service=\"cart.svc\""), "{text}");
    assert!(text.contains("destination_workload=\"far\""), "{text}");
    assert!(text.contains("destination_principal=\"spiffe://td2/ns/n/sa/s\""), "{text}");
}

#[test]
fn lookups_of_host_names_are_counted() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let source = info(Direction::Outbound).source.workload.unwrap();
    report.looked_up(&source, "db.example");
    report.looked_up(&source, "db.example");
    let text = registry.encode();
    let line = "istio_on_demand_dns_total{source_workload=\"web\",source_canonical_service=\"web\",\
        source_canonical_revision=\"unknown\",source_workload_namespace=\"shop\",\
        source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"web\",source_version=\"unknown\",\
        source_cluster=\"Kubernetes\",hostname=\"db.example\"} 2\n";
    assert!(text.contains(line), "{line}\nis missing in\n{text}");
}

#[test]
fn open_connections_are_listed_by_pod() {
    let report = Report::new(&Registry::new(), false);
    let (out, arriving) = (report.opened(info(Direction::Outbound)), report.opened(info(Direction::Inbound)));
    out.received(1000);
    out.sent(10);
    let all = report.connections(None);
    assert_eq!(all["connections"].as_array().unwrap().len(), 2);
    assert_eq!(all["leftOut"], 0);
    let of_web = report.connections(Some(("shop", "web")));
    let [shown] = &of_web["connections"].as_array().unwrap()[..] else { panic!("{of_web}") };
    assert_eq!(shown["pod"], serde_json::json!({"namespace": "shop", "name": "web"}));
    assert_eq!(shown["direction"], "outbound");
    assert_eq!((&shown["bytesSent"], &shown["bytesReceived"]), (&1000.into(), &10.into()));
    assert_eq!(shown["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(shown["destination"]["workload"], "cart-1");
    assert_eq!(shown["hboneAddr"], "10.1.0.77:8080");
    assert_eq!(shown["service"], "shop/cart.svc");
    assert!(shown["ageMs"].is_u64());
    out.closed(Outcome::Complete);
    assert_eq!(report.connections(Some(("shop", "web")))["connections"], serde_json::json!([]));
    drop(arriving);
    assert_eq!(report.connections(None)["connections"], serde_json::json!([]));
}
