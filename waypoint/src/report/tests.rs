use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;
use mesh_telemetry::metrics::Registry;

use super::*;
use crate::connection::Destination;

fn peer(source: Arc<End>) -> PeerInfo {
    PeerInfo {
        source_identity: source.identity.clone(),
        source_address: "10.1.0.5:4000".parse().unwrap(),
        destination: Destination::Address("10.9.0.1:80".parse().unwrap()),
        local_identity: None,
        via_hbone: true,
        tls: None,
        sni: None,
        source,
    }
}

fn request<'a>(peer: &'a PeerInfo, service: &'a Arc<Service>) -> Request<'a> {
    Request {
        peer,
        service: Some(service),
        destination: None,
        started: SystemTime::UNIX_EPOCH,
        duration: Duration::from_millis(3),
        status: 200,
        grpc: false,
        grpc_status: None,
        flags: Flags::NONE,
        details: "via_upstream".into(),
        request_bytes: 100,
        response_bytes: 2000,
        request_messages: 0,
        response_messages: 0,
        log: RequestLog::default(),
    }
}

fn report() -> (Registry, Local) {
    let registry = Registry::new();
    let own = "spiffe://cluster.local/ns/ns1/sa/waypoint".parse().unwrap();
    let report = Report::new(&registry, Reporter::Waypoint, own, Logged::Nothing);
    (registry, Local::new(&report))
}

fn line<'a>(text: &'a str, parts: &[&str]) -> &'a str {
    let found = text.lines().find(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    found.unwrap_or_else(|| panic!("no line with {parts:?} in\n{text}"))
}

#[test]
fn a_request_is_counted_under_the_names_that_dashboards_know() {
    let (registry, local) = report();
    let mut headers = HeaderMap::new();
    headers.insert("baggage", "k8s.cluster.name=c1,k8s.deployment.name=web,service.name=web".parse().unwrap());
    let identity = "spiffe://cluster.local/ns/ns1/sa/a".parse().unwrap();
    let peer = peer(local.source(Some(&identity), &headers));
    let service = Arc::new(Service::new("ns1", "b.ns1.svc.cluster.local"));
    local.request(&request(&peer, &service));
    local.request(&request(&peer, &service));
    let text = registry.encode();
    let requests = line(&text, &["istio_requests_total{"]);
    for part in [
        "reporter=\"waypoint\"",
        "source_workload=\"web\"",
        "source_workload_namespace=\"ns1\"",
        "source_principal=\"spiffe://cluster.local/ns/ns1/sa/a\"",
        "source_cluster=\"c1\"",
        "destination_workload=\"unknown\"",
        "destination_principal=\"spiffe://cluster.local/ns/ns1/sa/waypoint\"",
        "destination_service=\"b.ns1.svc.cluster.local\"",
        "destination_service_name=\"b\"",
        "destination_service_namespace=\"ns1\"",
        "request_protocol=\"http\"",
        "response_code=\"200\"",
        "grpc_response_status=\"\"",
        "response_flags=\"-\"",
        "connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(requests.contains(part), "{part} in {requests}");
    }
    assert!(requests.ends_with("} 2"), "{requests}");
    let bucket = |le: &str| {
        let line = line(&text, &["istio_request_duration_milliseconds_bucket", &format!("le=\"{le}\"")]);
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!((bucket("1.0"), bucket("5.0"), bucket("+Inf")), ("0".into(), "2".into(), "2".into()));
    assert!(line(&text, &["istio_request_duration_milliseconds_sum"]).ends_with(" 6.0"));
    assert!(line(&text, &["istio_response_bytes_sum"]).ends_with(" 4000.0"));
}

#[test]
fn connections_of_bytes_show_before_they_end() {
    let (registry, local) = report();
    let peer = Rc::new(peer(Arc::new(End::proven(None))));
    let opening = Opening {
        peer,
        service: Some(Arc::new(Service::new("ns1", "b.ns1.svc.cluster.local"))),
        destination: None,
        upstream: None,
        route: "".into(),
        failure: None,
    };
    let mut connection = local.connection(opening);
    connection.moved(1024, 4096);
    let text = registry.encode();
    assert!(line(&text, &["istio_tcp_connections_opened_total"]).ends_with(" 1"));
    assert!(line(&text, &["istio_tcp_received_bytes_total", "request_protocol=\"tcp\""]).ends_with(" 1024"));
    assert!(line(&text, &["istio_tcp_sent_bytes_total"]).ends_with(" 4096"));
    local.closed(&connection, Flags::UF, "");
    let text = registry.encode();
    assert!(line(&text, &["istio_tcp_connections_closed_total", "response_flags=\"UF\""]).ends_with(" 1"));
}

#[test]
fn too_many_series_are_counted_together_and_nothing_is_lost() {
    let table = series::Table::new(3);
    let labels = |workload: &str| series::Labels {
        source: Arc::new(End { workload: workload.into(), ..End::default() }),
        destination: None,
        service: None,
        mutual_tls: false,
        flags: Flags::NONE,
        kind: series::Kind::Tcp,
    };
    for n in 0..10 {
        let part = table.join(&labels(&n.to_string())).unwrap_or_else(|| table.join_anyway(&labels("")));
        series::add(&part.first, 1);
    }
    let totals = table.totals();
    assert_eq!(totals.len(), 4);
    assert_eq!(totals.iter().map(|(_, totals)| totals.first).sum::<u64>(), 10);
    table.sweep(std::time::Instant::now(), Duration::from_secs(60));
    assert_eq!(table.totals().iter().map(|(_, totals)| totals.first).sum::<u64>(), 10);
    table.sweep(std::time::Instant::now(), Duration::ZERO);
    assert!(table.totals().is_empty());
}

fn describing(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(mesh_hbone::baggage::BAGGAGE, text.parse().unwrap())])
}

/// A client can fill neither memory nor everybody's metrics with what it says of itself.
#[test]
fn a_client_that_describes_itself_anew_each_time_is_believed_for_a_while() {
    let (registry, local) = report();
    let service = Arc::new(Service::new("ns1", "b.ns1.svc.cluster.local"));
    let identity = "spiffe://cluster.local/ns/ns1/sa/a".parse().unwrap();
    for n in 0..1_000 {
        let peer = peer(local.source(Some(&identity), &describing(&format!("k8s.deployment.name=w{n}"))));
        local.request(&request(&peer, &service));
    }
    let text = registry.encode();
    let lines = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 257);
    assert!(line(&text, &["istio_requests_total{", "source_workload=\"unknown\""]).ends_with(" 744"));
    let other = "spiffe://cluster.local/ns/ns1/sa/other".parse().unwrap();
    let end = local.source(Some(&other), &describing("k8s.deployment.name=honest"));
    assert_eq!(&*end.workload, "honest", "others are not affected");
}

#[test]
fn long_descriptions_are_cut_or_not_read() {
    let (_, local) = report();
    let long = "w".repeat(500);
    let end = local.source(None, &describing(&format!("k8s.deployment.name={long}")));
    assert_eq!(end.workload.len(), 128);
    let end = local.source(None, &describing(&format!("k8s.deployment.name=w,service.name={}", "w".repeat(2_000))));
    assert_eq!((&*end.workload, &*end.app), ("", ""));
}

#[test]
fn connections_that_are_refused_do_not_make_parts_of_their_own() {
    let (_, local) = report();
    let identity = "spiffe://cluster.local/ns/ns1/sa/a".parse().unwrap();
    for _ in 0..100 {
        let peer = peer(local.source(Some(&identity), &HeaderMap::new()));
        local.refused(Opening::nowhere(Rc::new(peer), "nobody"), Flags::NR, "no_filter_chain");
    }
    assert_eq!(local.series_known(), 2, "opened and closed");
}

#[test]
fn numbers_that_grpc_does_not_know_are_one() {
    let (registry, local) = report();
    let peer = peer(local.stranger());
    let service = Arc::new(Service::new("ns1", "b.ns1.svc.cluster.local"));
    for status in [17, 18, 4_000_000_000] {
        local.request(&Request { grpc: true, grpc_status: Some(status), ..request(&peer, &service) });
    }
    assert!(line(&registry.encode(), &["istio_requests_total{", "grpc_response_status=\"2\""]).ends_with(" 3"));
}
