//! Listeners as their proxies are told of them.

use mesh_core::names::NamespacedName;

use super::*;
use crate::translate::fixture;
use crate::world::MeshSettings;

const EDGE: &str = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  allowedListeners: {namespaces: {from: Same}}
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: Shop.example.com}
  - {name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: late, port: 443, protocol: HTTPS, tls: {options: {gateway.istio.io/tls-terminate-mode: ISTIO_SIMPLE}}}
  - {name: udp, port: 53, protocol: UDP}
---
kind: ListenerSet
metadata: {name: more, namespace: web}
spec:
  parentRef: {name: edge}
  listeners: [{name: tcp, port: 9000, protocol: TCP}]
---
kind: Service
metadata: {name: edge-istio, namespace: web}
spec: {ports: [{name: http, port: 80, targetPort: 8080}, {name: pass, port: 443}]}
---
kind: Service
metadata: {name: shop, namespace: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
kind: HTTPRoute
metadata: {name: shop, namespace: web}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [shop.example.com]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
";

fn compiled(yaml: &str) -> Vec<(String, mesh_wire::l7::Listener)> {
    let model = fixture::model(yaml, MeshSettings::default());
    let all = listeners(model.world(), &NamespacedName::new("web", "edge"), model.layer7().resources());
    all.into_iter().map(|one| (one.name, one.listener.unwrap())).collect()
}

#[test]
fn listeners_that_have_their_place_are_told_with_their_routes_and_ports() {
    let all = compiled(EDGE);
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["web/edge/listener/http", "web/edge/listener/pass", "web/edge/listener/web/more/tcp"],
        "neither who lost its place nor what is not served"
    );
    let (_, http) = &all[0];
    assert_eq!((http.port, http.target_port, http.hostname.as_str()), (80, 8080, "shop.example.com"));
    assert_eq!(http.http.as_ref().unwrap().hosts.len(), 1);
    assert_eq!(http.backends[0].hostname, "shop.web.svc.cluster.local");
    let (_, pass) = &all[1];
    assert_eq!(
        (pass.target_port, pass.tls.as_ref().unwrap().mode()),
        (0, mesh_wire::l7::server_tls::Mode::Passthrough)
    );
    let (_, tcp) = &all[2];
    assert_eq!((tcp.section.as_str(), tcp.port, tcp.tls.as_ref()), ("web/more/tcp", 9000, None));
}

#[test]
fn headers_of_load_balancers_are_expected_where_the_mesh_says_so() {
    let expected = |proxy_protocol| {
        let mut settings = MeshSettings::default();
        settings.l7.proxy_protocol = proxy_protocol;
        let model = fixture::model(EDGE, settings);
        let all = listeners(model.world(), &NamespacedName::new("web", "edge"), model.layer7().resources());
        all.into_iter().map(|one| one.listener.unwrap().proxy_protocol).collect::<Vec<_>>()
    };
    assert_eq!((expected(false), expected(true)), (vec![false; 3], vec![true; 3]));
}

#[test]
fn waypoints_and_classes_of_others_have_none() {
    assert!(compiled(&EDGE.replace("gatewayClassName: istio", "gatewayClassName: istio-waypoint")).is_empty());
    assert!(compiled(&EDGE.replace("gatewayClassName: istio", "gatewayClassName: other")).is_empty());
}

#[test]
fn what_is_told_changes_with_the_service_and_with_nothing_else() {
    let mut model = fixture::model(EDGE, MeshSettings::default());
    let pod = "{kind: Pod, metadata: {name: p, namespace: web, labels: {app: shop}}, status: {podIP: 10.1.1.1}}";
    fixture::changes(pod).into_iter().for_each(|change| model.apply(change));
    let delta = model.flush();
    assert!(delta.changes.iter().all(|change| change.type_url != mesh_wire::type_url::L7), "a pod is no configuration");
    let service = "{kind: Service, metadata: {name: edge-istio, namespace: web}, spec: {ports: [{name: http, port: 80, targetPort: 8081}]}}";
    fixture::changes(service).into_iter().for_each(|change| model.apply(change));
    let names: Vec<_> = model.flush().changes.into_iter().map(|change| change.name.to_string()).collect();
    assert!(names.contains(&"web/edge/listener/http".to_owned()), "{names:?}");
}
