//! What waypoints are told of the services that they serve.

mod credentials;
mod networks;
mod onward;
mod ports;
mod remarks;
mod rivals;
mod rules;
mod selectors;

use mesh_wire::l7;
use mesh_wire::l7::client_tls::Mode;

use super::fixture::{port, proxy, world};
use crate::translate::fixture::changes;
use crate::translate::{Model, conditions};
use crate::world::{Kind, MeshSettings};

const WEB: &str = "ns/wp/ns/web.ns.svc.cluster.local:80";

const SERVICES: &str = r"
kind: Namespace
metadata: {name: ns}
---
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: Service
metadata: {name: web, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec:
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1]
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: grpc, port: 8080}, {name: dns, port: 53, protocol: UDP}]
---
kind: Service
metadata: {name: x, namespace: ns}
spec: {clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2], selector: {app: x}, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: far, namespace: other}
spec: {clusterIP: 10.0.0.3, clusterIPs: [10.0.0.3], selector: {app: far}, ports: [{name: http, port: 80}]}
---
";

fn model(more: &str) -> Model {
    world(&format!("{SERVICES}{more}"))
}

fn web(more: &str) -> l7::Port {
    port(&model(more), WEB).expect("a port")
}

fn policy(port: &l7::Port) -> &l7::TrafficPolicy {
    port.backends[0].policy.as_ref().unwrap()
}

/// What a status says of one type.
fn said(model: &Model, kind: Kind, name: &str, type_: &str) -> (bool, String) {
    let status = model.statuses().iter().find(|(target, status)| {
        target.kind == kind && *target.key.name == *name && status.conditions.iter().any(|one| one.type_ == type_)
    });
    let (_, status) = status.unwrap_or_else(|| panic!("no {type_} of {name}: {:?}", model.statuses()));
    let condition = status.conditions.iter().find(|one| one.type_ == type_).unwrap();
    (condition.holds, condition.message.clone())
}

#[test]
fn a_waypoint_is_told_of_itself_and_of_every_port_but_udp_before_it_has_an_address() {
    let model = model("");
    let names: Vec<_> = model.layer7().resources().keys().map(|name| name.to_string()).collect();
    assert_eq!(names, ["ns/wp", WEB, "ns/wp/ns/web.ns.svc.cluster.local:8080"]);
    let resource = &model.layer7().resources()["ns/wp"];
    assert!(resource.is_group && resource.audience.as_deref() == Some("ns/wp"));
    let port = &model.layer7().resources()[WEB];
    assert_eq!((&*port.groups, port.audience.as_deref()), (&["ns/wp".into()][..], Some("ns/wp")));
    let proxy = proxy(&model, "ns/wp").unwrap();
    assert_eq!((proxy.role(), proxy.serves_workloads, &*proxy.refuse_all), (l7::proxy::Role::Waypoint, false, ""));
    let settings = proxy.settings.unwrap();
    assert_eq!((settings.trust_domains, settings.connect_timeout.unwrap().seconds), (vec!["cluster.local".into()], 10));
}

#[test]
fn a_canary_waypoint_is_told_the_same() {
    let model = world(&format!(
        "{}{}",
        SERVICES.replace("use-waypoint: wp", "use-waypoint: wp, istio.io/use-waypoint-canary: new"),
        "
kind: Gateway
metadata: {name: new, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
"
    ));
    let mut canary = port(&model, "ns/new/ns/web.ns.svc.cluster.local:80").unwrap();
    canary.gateway = "ns/wp".into();
    assert_eq!(Some(canary), port(&model, WEB));
}

#[test]
fn waypoints_of_other_controllers_and_service_entries_of_wildcards() {
    let model = model(
        "
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/other}
---
kind: Gateway
metadata: {name: foreign, namespace: ns}
spec: {gatewayClassName: theirs, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
kind: ServiceEntry
metadata: {name: out, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec: {hosts: ['*.example.com'], location: MESH_EXTERNAL, resolution: DYNAMIC_DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
status: {addresses: [{host: '*.example.com', value: 240.240.0.1}]}
---
kind: ServiceEntry
metadata: {name: theirs, namespace: ns, labels: {istio.io/use-waypoint: foreign}}
spec: {hosts: [theirs.example], addresses: [10.9.9.9], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}
",
    );
    assert!(model.layer7().resources().keys().all(|name| !name.contains("foreign")));
    let port = port(&model, "ns/wp/ns/*.example.com:80").unwrap();
    let backend = &port.backends[0];
    assert_eq!((&*backend.dynamic_wildcard, backend.external), ("*.example.com", true));
    assert_eq!(port.addresses, [vec![240, 240, 0, 1]]);
}

#[test]
fn routing_row_15_in_the_mesh_hostnames_of_a_route_do_not_matter() {
    let port = web("
kind: HTTPRoute
metadata: {name: r, namespace: ns}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  hostnames: [other.example]
  rules: [{backendRefs: [{name: x, port: 80}]}]
");
    let table = port.http.unwrap();
    assert_eq!((table.hosts[0].hostnames.as_slice(), table.rules.len()), (["*".to_owned()].as_slice(), 1));
    assert_eq!(port.backends[1].hostname, "x.ns.svc.cluster.local");
}

#[test]
fn routing_row_6_of_equal_matches_the_older_route_wins() {
    let route = |name: &str, created: u8, backend: &str| {
        format!(
            "
kind: HTTPRoute
metadata: {{name: {name}, namespace: ns, creationTimestamp: '1970-01-01T00:00:0{created}Z'}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web}}]
  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]
---
"
        )
    };
    let port = web(&format!("{}{}", route("r1", 2, "web"), route("r2", 1, "x")));
    let table = port.http.unwrap();
    let first = table.hosts[0].entries[0].rule;
    let origin = table.rules[usize::try_from(first).unwrap()].origin.as_ref().unwrap();
    assert_eq!(origin.name, "r2");
}

#[test]
fn gateway_row_15_a_backend_of_another_namespace_needs_no_grant_in_the_mesh() {
    let port = web("
kind: HTTPRoute
metadata: {name: r, namespace: ns}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: far, namespace: other, port: 80}]}]
");
    assert_eq!(port.backends[1].hostname, "far.other.svc.cluster.local");
    let rule = &port.http.unwrap().rules[0];
    let Some(l7::http_rule::Action::Forward(forward)) = &rule.action else { panic!("{rule:?}") };
    assert_eq!(forward.backends[0].target, Some(l7::weighted_backend::Target::Backend(1)));
}

#[test]
fn routes_of_the_gateway_api_win_over_virtual_services_and_the_status_says_so() {
    let model = model(
        "
kind: HTTPRoute
metadata: {name: r, namespace: ns}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: x, port: 80}]}]
---
kind: VirtualService
metadata: {name: vs, namespace: ns}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
",
    );
    let table = port(&model, WEB).unwrap().http.unwrap();
    assert!(table.rules.iter().all(|rule| rule.origin.as_ref().unwrap().kind == "HTTPRoute"));
    let (holds, message) = said(&model, Kind::VirtualService, "vs", "istio.io/Served");
    assert!(!holds && message.contains("routes of the Gateway API"), "{message}");
}

#[test]
fn routing_row_16_settings_of_a_port_stand_for_themselves() {
    let more = "
kind: DestinationRule
metadata: {name: dr, namespace: ns}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 7}
    portLevelSettings: [{port: {number: 8080}, loadBalancer: {simple: ROUND_ROBIN}}]
";
    let model = model(more);
    let plain = port(&model, WEB).unwrap();
    assert_eq!(policy(&plain).outlier_detection.as_ref().unwrap().consecutive_5xx, 7);
    let own = port(&model, "ns/wp/ns/web.ns.svc.cluster.local:8080").unwrap();
    assert_eq!(policy(&own).outlier_detection, None);
    assert_eq!(policy(&own).load_balancer.as_ref().unwrap().simple(), l7::load_balancer::Simple::RoundRobin);
    assert_eq!(
        (plain.backends[0].http(), own.backends[0].http()),
        (l7::backend::Http::Http1, l7::backend::Http::Http2)
    );
}

#[test]
fn rules_are_looked_for_near_the_client_first_then_by_the_most_specific_host() {
    let rule = |name: &str, namespace: &str, host: &str, retries: u8| {
        format!(
            "
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{host: '{host}', trafficPolicy: {{connectionPool: {{http: {{maxRetries: {retries}}}}}}}}}
---
"
        )
    };
    let retries = |more: &str| policy(&web(more)).connection_pool.as_ref().unwrap().max_retries;
    let root = rule("root", "istio-system", "web.ns.svc.cluster.local", 1);
    let wide = rule("wide", "ns", "*.svc.cluster.local", 2);
    let narrow = rule("narrow", "ns", "web", 3);
    assert_eq!(retries(&root), 1);
    assert_eq!(retries(&format!("{root}{wide}")), 2);
    assert_eq!(retries(&format!("{root}{wide}{narrow}")), 3);
    assert_eq!(retries(&rule("other", "other", "web.ns.svc.cluster.local", 4)), 0, "of neither namespace");
}

fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

const BACKEND_TLS: &str = "
kind: BackendTLSPolicy
metadata: {name: tls, namespace: ns}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  validation: {hostname: web.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}
---
";

#[test]
fn gateway_row_18_without_its_authority_a_backend_is_not_called_at_all() {
    let mut model = model(BACKEND_TLS);
    let refused = port(&model, WEB).unwrap();
    assert!(refused.backends[0].refuse.contains("ConfigMap ns/ca"), "{}", refused.backends[0].refuse);
    assert_eq!(policy(&refused).tls, None);
    let pem = certificate().replace('\n', "\n    ");
    let map = format!("kind: ConfigMap\nmetadata: {{name: ca, namespace: ns}}\ndata:\n  ca.crt: |\n    {pem}\n");
    changes(&map).into_iter().for_each(|change| model.apply(change));
    model.flush();
    let port = port(&model, WEB).unwrap();
    let tls = policy(&port).tls.as_ref().unwrap();
    assert_eq!((&*port.backends[0].refuse, tls.mode(), &*tls.sni), ("", Mode::Simple, "web.example"));
    assert!(!tls.roots.is_empty());
}

#[test]
fn tls_settings_that_cannot_be_honoured_refuse() {
    let rule = |tls: &str| {
        let text = format!(
            "
kind: DestinationRule
metadata: {{name: dr, namespace: ns}}
spec: {{host: web, trafficPolicy: {{tls: {tls}}}}}
"
        );
        let port = web(&text);
        (port.backends[0].refuse.clone(), policy(&port).tls.clone())
    };
    for (tls, part) in [
        ("{mode: SIMPLE, credentialName: gone}", "there is no Secret ns/gone"),
        ("{mode: MUTUAL}", "credentialName"),
        ("{mode: SIMPLE, caCertificates: /etc/own.pem}", "/etc/own.pem"),
        ("{mode: MUTUAL, clientCertificate: /a, privateKey: /b}", "clientCertificate"),
    ] {
        let (refuse, made) = rule(tls);
        assert!(refuse.contains(part) && made.is_none(), "{tls}: {refuse}");
    }
    let (refuse, made) = rule("{mode: SIMPLE, sni: a.example, caCertificates: /etc/ssl/certs/ca-certificates.crt}");
    assert_eq!((&*refuse, made.unwrap().sni.as_str()), ("", "a.example"));
    assert_eq!(rule("{mode: ISTIO_MUTUAL}"), (String::new(), None));
}

#[test]
fn gateway_row_20_a_policy_with_a_selector_has_no_effect_at_a_waypoint() {
    let model = model(
        "
kind: AuthorizationPolicy
metadata: {name: selected, namespace: ns}
spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}
---
kind: AuthorizationPolicy
metadata: {name: attached, namespace: ns}
spec: {targetRefs: [{group: '', kind: Service, name: web}], rules: [{to: [{operation: {methods: [GET]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: wide, namespace: ns}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], action: DENY, rules: [{}]}
---
kind: AuthorizationPolicy
metadata: {name: class, namespace: istio-system}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}], action: AUDIT, rules: [{}]}
",
    );
    let names = |all: &[l7::Authorization]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&port(&model, WEB).unwrap().authorizations), ["attached"]);
    assert_eq!(names(&proxy(&model, "ns/wp").unwrap().authorizations), ["class", "wide"]);
}

#[test]
fn what_cannot_be_enforced_closes_what_it_guards_and_says_so() {
    let attached = |spec: &str| {
        format!(
            "
kind: AuthorizationPolicy
metadata: {{name: p, namespace: ns}}
spec: {{targetRefs: [{{group: '', kind: Service, name: web}}], {spec}}}
---
"
        )
    };
    let refused = |spec: &str| port(&model(&attached(spec)), WEB).unwrap().refuse_all;
    assert!(refused("action: CUSTOM, provider: {name: x}, rules: [{}]").contains("CUSTOM"));
    assert!(refused("rules: [{when: [{key: experimental.envoy.filters.x, values: [a]}]}]").contains("experimental"));
    assert_eq!(refused("rules: [{when: [{key: 'request.headers[x]', values: [a]}]}]"), "");
    let model = model(&attached("action: CUSTOM, provider: {name: x}, rules: [{}]"));
    let (holds, message) = said(&model, Kind::Authorization, "p", "WaypointAccepted");
    assert!(!holds && message.contains("nothing is let through"), "{message}");
    let request = "
kind: RequestAuthentication
metadata: {name: jwt, namespace: ns}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], jwtRules: [{issuer: i}]}
";
    let model = self::model(request);
    assert!(proxy(&model, "ns/wp").unwrap().refuse_all.contains("tokens"));
    let _ = conditions::WAYPOINT_MANAGER;
}

#[test]
fn pods_that_come_and_go_compute_nothing_of_layer_7() {
    let pod = |name: &str, ready: &str| {
        format!(
            "
kind: Pod
metadata: {{name: {name}, namespace: ns, uid: u-{name}, labels: {{app: web}}}}
spec: {{nodeName: n1}}
status: {{podIP: 10.1.0.{}, podIPs: [{{ip: 10.1.0.{}}}], conditions: [{{type: Ready, status: '{ready}'}}]}}
---
kind: EndpointSlice
metadata: {{name: web-{name}, namespace: ns, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.1.0.9]}}]
---
",
            name.len(),
            name.len()
        )
    };
    let mut model = model(&pod("a", "True"));
    let before = (model.layer7().computed(), model.layer7().resources().clone());
    for ready in ["False", "True"] {
        for name in ["a", "bb", "ccc"] {
            changes(&pod(name, ready)).into_iter().for_each(|change| model.apply(change));
            let delta = model.flush();
            assert!(delta.changes.iter().all(|change| change.type_url != mesh_wire::type_url::L7));
        }
    }
    assert_eq!((model.layer7().computed(), model.layer7().resources()), (before.0, &before.1));
}

#[test]
fn a_mesh_wide_retry_policy_is_told_even_where_there_are_no_routes() {
    let mut settings = MeshSettings::default();
    settings.l7.default_retry = Some(serde_json::from_str(r#"{"attempts": 5, "retryOn": "5xx"}"#).unwrap());
    let model = crate::translate::fixture::model(SERVICES.trim_end_matches("---\n"), settings);
    let table = port(&model, WEB).unwrap().http.unwrap();
    assert_eq!(table.rules[0].retry.as_ref().unwrap().attempts, 5);
}
