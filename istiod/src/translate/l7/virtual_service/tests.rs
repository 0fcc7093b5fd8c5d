//! VirtualServices at the waypoint of a service.

use mesh_route::{Action, Limits, RequestView, Table};
use mesh_wire::l7;

use crate::translate::l7::fixture::{port, world};

fn table(port: &l7::Port) -> l7::HttpTable {
    port.http.clone().expect("a table")
}

/// Hostname and subset of the backend of a request, or the status of the answer.
fn goes(port: &l7::Port, path: &str) -> String {
    let table = Table::compile(&table(port), &Limits::default()).unwrap();
    let headers = http::HeaderMap::new();
    let request = RequestView {
        method: "GET",
        scheme: "http",
        authority: "web",
        path,
        query: None,
        headers: &headers,
        port: 80,
        claims: None,
    };
    let Some(found) = table.find(&request) else { return "404".to_owned() };
    match &found.rule.action {
        Action::Forward(_) => {
            let rule = &table_rule(port, found.rule_index);
            let Some(l7::http_rule::Action::Forward(forward)) = &rule.action else { panic!("{rule:?}") };
            let names = forward.backends.iter().map(|one| match &one.target {
                Some(l7::weighted_backend::Target::Backend(index)) => {
                    let backend = &port.backends[usize::try_from(*index).unwrap()];
                    let name = backend.hostname.split('.').next().unwrap();
                    format!("{name}{}:{}", if backend.subset.is_empty() { "" } else { "-" }, backend.subset)
                        .trim_end_matches(':')
                        .to_owned()
                }
                Some(l7::weighted_backend::Target::Unusable(one)) => format!("{}{}", one.status, one.flag),
                None => "nothing".to_owned(),
            });
            names.collect::<Vec<_>>().join(",")
        }
        Action::Unusable(one) => format!("{}{}", one.status.as_u16(), one.flag),
        Action::Redirect(_) => "redirect".to_owned(),
        Action::Direct(one) => one.status.as_u16().to_string(),
    }
}

fn table_rule(port: &l7::Port, index: usize) -> l7::HttpRule {
    table(port).rules[index].clone()
}

const SERVICES: &str = r"
kind: Namespace
metadata: {name: ns, labels: {istio.io/use-waypoint: wp}}
---
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: Service
metadata: {name: web, namespace: ns}
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], selector: {app: web}, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: x, namespace: ns}
spec: {clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2], selector: {app: x}, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: v, namespace: ns}
spec: {clusterIP: 10.0.0.3, clusterIPs: [10.0.0.3], selector: {app: v}, ports: [{name: http, port: 80}]}
---
";

fn web(more: &str) -> l7::Port {
    port(&world(&format!("{SERVICES}{more}")), "ns/wp/ns/web.ns.svc.cluster.local:80").expect("a port")
}

#[test]
fn without_routes_everything_goes_to_the_service() {
    let port = web("");
    assert_eq!((port.http, port.default_backend, port.backends.len()), (None, 0, 1));
    assert_eq!(port.addresses, [vec![10, 0, 0, 1]]);
}

#[test]
fn routing_row_13_a_prefix_of_a_virtual_service_is_any_text() {
    let port = web("
kind: VirtualService
metadata: {name: one, namespace: ns}
spec: {hosts: [web], http: [{match: [{uri: {prefix: /foo}}], route: [{destination: {host: x}}]}]}
");
    assert_eq!((goes(&port, "/foobar"), goes(&port, "/bar")), ("x".into(), "404".into()));
}

#[test]
fn routing_row_14_the_first_that_matches_wins_and_a_catch_all_ends_the_list() {
    let port = web("
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {prefix: /a}}], route: [{destination: {host: x}}]}
  - {route: [{destination: {host: v}}]}
  - {match: [{uri: {prefix: /a/b}}], route: [{destination: {host: web}}]}
");
    assert_eq!((goes(&port, "/a/b"), goes(&port, "/c")), ("x".into(), "v".into()));
    assert_eq!(table(&port).rules.len(), 2, "what is never reached is not told");
}

#[test]
fn several_are_concatenated_the_oldest_first_and_those_of_other_places_do_not_count() {
    let port = web("
kind: VirtualService
metadata: {name: young, namespace: ns, creationTimestamp: '1970-01-01T00:00:02Z'}
spec: {hosts: [web.ns.svc.cluster.local], http: [{route: [{destination: {host: v}}]}]}
---
kind: VirtualService
metadata: {name: old, namespace: ns, creationTimestamp: '1970-01-01T00:00:01Z'}
spec: {hosts: ['*.ns.svc.cluster.local'], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: x}}]}]}
---
kind: VirtualService
metadata: {name: consumer, namespace: other}
spec: {hosts: [web.ns.svc.cluster.local], http: [{route: [{destination: {host: x.ns.svc.cluster.local}}]}]}
---
kind: VirtualService
metadata: {name: edge, namespace: ns}
spec: {hosts: [web], gateways: [edge], http: [{route: [{destination: {host: x}}]}]}
---
kind: VirtualService
metadata: {name: hidden, namespace: ns}
spec: {hosts: [web], exportTo: [other], http: [{route: [{destination: {host: x}}]}]}
");
    assert_eq!((goes(&port, "/a"), goes(&port, "/b")), ("x".into(), "v".into()));
}

#[test]
fn matches_that_a_waypoint_cannot_judge_never_hold() {
    let port = web(
        "
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [web]
  http:
  - {match: [{sourceLabels: {app: a}}, {gateways: [edge]}, {port: 81}, {sourceNamespace: a}], route: [{destination: {host: x}}]}
  - {match: [{gateways: [mesh, edge], port: 80}], route: [{destination: {host: v}}]}
",
    );
    assert_eq!((goes(&port, "/"), table(&port).rules.len()), ("v".into(), 1));
}

#[test]
fn where_no_route_is_for_the_port_everything_goes_to_the_service() {
    for written in [
        "{match: [{port: 8080}], route: [{destination: {host: x}}]}",
        "{match: [{sourceLabels: {app: a}}], route: [{destination: {host: x}}]}",
        "{match: [{gateways: [edge]}, {gateways: [edge], port: 80}], route: [{destination: {host: x}}]}",
    ] {
        let port = web(&format!(
            "
kind: VirtualService
metadata: {{name: one, namespace: ns}}
spec: {{hosts: [web], gateways: [mesh, edge], http: [{written}]}}
"
        ));
        assert_eq!((port.http, port.default_backend), (None, 0), "{written}");
        assert_eq!(port.backends[0].hostname, "web.ns.svc.cluster.local");
    }
}

#[test]
fn a_subset_needs_a_destination_rule_and_an_unknown_host_is_no_cluster() {
    let routes = "
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {exact: /s}}], route: [{destination: {host: web, subset: v1}}]}
  - {match: [{uri: {exact: /u}}], route: [{destination: {host: nobody}}]}
";
    let port = web(routes);
    assert_eq!((goes(&port, "/s"), goes(&port, "/u")), ("503NC".into(), "503NC".into()));
    let rule = "
---
kind: DestinationRule
metadata: {name: one, namespace: ns}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}
";
    let port = web(&format!("{routes}{rule}"));
    assert_eq!(goes(&port, "/s"), "web-:v1");
    assert_eq!(port.backends[1].subset_labels["version"], "v1");
}

#[test]
fn a_delegate_is_asked_within_what_the_root_lets_through() {
    let port = web("
kind: VirtualService
metadata: {name: root, namespace: ns}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {prefix: /team}}], delegate: {name: team, namespace: other}, timeout: 3s}
  - {match: [{uri: {prefix: /gone}}], delegate: {name: gone}}
  - {route: [{destination: {host: v}}]}
---
kind: VirtualService
metadata: {name: team, namespace: other}
spec:
  http:
  - {match: [{uri: {prefix: /team/a}}], route: [{destination: {host: x.ns.svc.cluster.local}}]}
  - {match: [{uri: {prefix: /outside}}], route: [{destination: {host: x.ns.svc.cluster.local}}]}
");
    assert_eq!(goes(&port, "/team/a"), "x");
    assert_eq!(goes(&port, "/team/b"), "v");
    assert_eq!((goes(&port, "/outside"), goes(&port, "/gone")), ("v".into(), "503NC".into()));
    assert_eq!(table(&port).rules[0].timeout.unwrap().seconds, 3);
}

#[test]
fn weights_headers_faults_and_retries_are_told() {
    let port = web("
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: x}, weight: 90, headers: {request: {set: {a: dest, b: dest}}}}
    - {destination: {host: v}, weight: 10}
    - {destination: {host: web}, weight: 0}
    headers: {request: {set: {a: route}, remove: [c]}}
    fault: {delay: {fixedDelay: 5s, percentage: {value: 0.5}}, abort: {grpcStatus: UNAVAILABLE}}
    retries: {attempts: 3, retryOn: '503', perTryTimeout: 1s}
    mirror: {host: v}
    mirrorPercentage: {value: 12.5}
    corsPolicy: {allowOrigins: [{exact: '*'}], unmatchedPreflights: IGNORE}
");
    let rule = &table(&port).rules[0];
    let Some(l7::http_rule::Action::Forward(forward)) = &rule.action else { panic!("{rule:?}") };
    assert_eq!(forward.backends.iter().map(|one| one.weight).collect::<Vec<_>>(), [90, 10]);
    let first = forward.backends[0].request_headers.as_ref().unwrap();
    let set: Vec<_> = first.set.iter().map(|one| (&*one.name, &*one.value)).collect();
    assert_eq!((set, &*first.remove), (vec![("a", "route"), ("b", "dest")], &["c".to_owned()][..]));
    assert_eq!(rule.request_headers, None, "told with each destination");
    let fault = rule.fault.as_ref().unwrap();
    assert_eq!((fault.delay_per_million, fault.abort_grpc_status, fault.abort_per_million), (5000, Some(14), 0));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, &*retry.status_codes), (3, &[503][..]));
    assert_eq!(rule.mirrors[0].per_million, 125_000);
    let cors = rule.cors.as_ref().unwrap();
    assert!(cors.any_origin && !cors.forward_unmatched_preflights);
}

#[test]
fn headers_that_only_one_of_route_and_destination_changes_stay_where_they_are() {
    let port = web("
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: x}, weight: 1, headers: {request: {set: {a: dest}}, response: {add: {r: dest}}}}
    - {destination: {host: v}, weight: 1}
    headers: {request: {set: {b: route}}, response: {add: {r: route}}}
");
    let rule = &table(&port).rules[0];
    let Some(l7::http_rule::Action::Forward(forward)) = &rule.action else { panic!("{rule:?}") };
    let pairs = |all: &[l7::Header]| all.iter().map(|one| format!("{}={}", one.name, one.value)).collect::<Vec<_>>();
    // Also for answers that come from no destination at all.
    assert_eq!(pairs(&rule.request_headers.as_ref().unwrap().set), ["b=route"]);
    assert_eq!(pairs(&forward.backends[0].request_headers.as_ref().unwrap().set), ["a=dest"]);
    assert_eq!(forward.backends[1].request_headers, None);
    // Each once, the destination's first.
    assert_eq!(rule.response_headers, None);
    assert_eq!(pairs(&forward.backends[0].response_headers.as_ref().unwrap().add), ["r=dest", "r=route"]);
    assert_eq!(pairs(&forward.backends[1].response_headers.as_ref().unwrap().add), ["r=route"]);
}

#[test]
fn a_rule_that_proxies_would_refuse_answers_with_an_error_and_keeps_its_place() {
    let port = web(
        "
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {prefix: /a}}], rewrite: {uriRegexRewrite: {match: '(', rewrite: x}}, route: [{destination: {host: x}}]}
  - {route: [{destination: {host: v}}]}
",
    );
    assert_eq!((goes(&port, "/a"), goes(&port, "/b")), ("500".into(), "v".into()));
}

#[test]
fn tls_routes_apply_to_the_services_own_name_and_tcp_routes_to_the_port() {
    let more = "
kind: Service
metadata: {name: db, namespace: ns}
spec: {clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9], selector: {app: db}, ports: [{name: tls, port: 443}, {name: tcp, port: 5432}]}
---
kind: VirtualService
metadata: {name: one, namespace: ns}
spec:
  hosts: [db]
  tls:
  - {match: [{sniHosts: [other.example]}], route: [{destination: {host: x, port: {number: 80}}}]}
  - {match: [{sniHosts: [db.ns.svc.cluster.local]}], route: [{destination: {host: v, port: {number: 80}}}]}
  tcp:
  - {match: [{port: 5432}], route: [{destination: {host: x, port: {number: 80}}, weight: 1}, {destination: {host: v}, weight: 3}]}
";
    let world = world(&format!("{SERVICES}{more}"));
    let tls = port(&world, "ns/wp/ns/db.ns.svc.cluster.local:443").unwrap();
    assert_eq!(tls.tls_rules.len(), 1);
    assert_eq!(tls.tls_rules[0].hostnames, ["db.ns.svc.cluster.local"]);
    assert!(tls.http.is_none());
    let tcp = port(&world, "ns/wp/ns/db.ns.svc.cluster.local:5432").unwrap();
    assert_eq!(tcp.tcp_rules[0].backends.iter().map(|one| one.weight).collect::<Vec<_>>(), [1, 3]);
}
