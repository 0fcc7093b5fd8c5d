//! What ports speak, and backends that may not be called.

use super::*;

#[test]
fn a_port_for_websockets_inside_tls_is_called_over_tls_by_routes_and_passed_on_otherwise() {
    let model = model(
        "
kind: Service
metadata: {name: chat, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.4, clusterIPs: [10.0.0.4], selector: {app: chat}, ports: [{name: s, port: 443, appProtocol: kubernetes.io/wss}]}
---
kind: HTTPRoute
metadata: {name: r, namespace: ns}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: chat, port: 443}]}]
",
    );
    let called = port(&model, WEB).unwrap();
    let Some(l7::http_rule::Action::Forward(forward)) = &called.http.as_ref().unwrap().rules[0].action else {
        panic!()
    };
    let Some(l7::weighted_backend::Target::Backend(index)) = forward.backends[0].target else { panic!() };
    let backend = &called.backends[usize::try_from(index).unwrap()];
    let tls = backend.policy.as_ref().unwrap().tls.as_ref().unwrap();
    assert_eq!((tls.mode(), backend.http(), tls.insecure_skip_verify), (Mode::Simple, l7::backend::Http::Http1, false));
    let own = port(&model, "ns/wp/ns/chat.ns.svc.cluster.local:443").unwrap();
    assert_eq!((own.protocol(), policy(&own).tls.clone()), (l7::Protocol::Tls, None));
}

#[test]
fn a_port_whose_server_speaks_first_is_not_looked_into() {
    let model = model(
        "
kind: Service
metadata: {name: db, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.4, clusterIPs: [10.0.0.4], selector: {app: db}, ports: [{name: mysql, port: 3306}]}
",
    );
    assert_eq!(port(&model, "ns/wp/ns/db.ns.svc.cluster.local:3306").unwrap().protocol(), l7::Protocol::Tcp);
}

#[test]
fn a_tunnel_is_refused_where_connections_would_go_into_it() {
    let model = model(
        "
kind: Service
metadata: {name: db, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.4, clusterIPs: [10.0.0.4], selector: {app: db}, ports: [{name: tcp, port: 1}, {name: http, port: 2}]}
---
kind: DestinationRule
metadata: {name: dr, namespace: ns}
spec: {host: db, trafficPolicy: {tunnel: {targetHost: far.example, targetPort: 443}}}
",
    );
    let refused = |number: u16| {
        let port = port(&model, &format!("ns/wp/ns/db.ns.svc.cluster.local:{number}")).unwrap();
        (port.backends[0].refuse.clone(), port.refuse_all)
    };
    assert_eq!(refused(1), ("DestinationRule: tunnel is not served".to_owned(), String::new()));
    assert_eq!(refused(2), (String::new(), String::new()));
}

#[test]
fn one_backend_with_unusable_tls_refuses_alone() {
    let port = web("
kind: DestinationRule
metadata: {name: dr, namespace: ns}
spec:
  host: x
  trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL, credentialName: gone}}]}
  subsets: [{name: v1, labels: {v: '1'}, trafficPolicy: {tls: {mode: DISABLE}}}]
---
kind: VirtualService
metadata: {name: vs, namespace: ns}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: x}, weight: 1}
    - {destination: {host: x, subset: v1}, weight: 1}
    - {destination: {host: web}, weight: 1}
");
    let refusing: Vec<_> =
        port.backends.iter().map(|one| (&*one.hostname, &*one.subset, !one.refuse.is_empty())).collect();
    assert_eq!(
        refusing.iter().filter(|one| one.2).map(|one| (one.0, one.1)).collect::<Vec<_>>(),
        [("x.ns.svc.cluster.local", "")]
    );
    assert_eq!((refusing.len(), &*port.refuse_all), (3, ""));
    assert!(port.backends.iter().all(|one| one.refuse.is_empty() || one.policy.as_ref().unwrap().tls.is_none()));
}
