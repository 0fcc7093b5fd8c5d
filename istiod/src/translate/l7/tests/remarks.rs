//! What is found wrong with VirtualServices, DestinationRules and policies while proxies are told of them is in their
//! statuses, until it is mended.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::world::Change;

fn apply(model: &mut Model, yaml: &str) {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

fn virtual_service(rules: &str) -> String {
    format!("kind: VirtualService\nmetadata: {{name: vs, namespace: ns}}\nspec: {{hosts: [web], {rules}}}\n---\n")
}

fn rule(host: &str, spec: &str) -> String {
    format!("kind: DestinationRule\nmetadata: {{name: dr, namespace: ns}}\nspec: {{host: '{host}', {spec}}}\n---\n")
}

/// Whether it is served as written, and what is said of it.
fn served(model: &Model, kind: Kind) -> (bool, String) {
    let name = if kind == Kind::VirtualService { "vs" } else { "dr" };
    said(model, kind, name, "istio.io/Served")
}

#[test]
fn a_destination_that_cannot_be_called_is_told_by_the_virtual_service() {
    for (rules, parts) in [
        (
            "http: [{route: [{destination: {host: web}, weight: 1}, {destination: {host: gone}, weight: 1}]}]",
            &["http[0].route[1].destination: host \"gone.ns.svc.cluster.local\"", "refused (503)", "in full"][..],
        ),
        (
            "http: [{route: [{destination: {host: web, port: {number: 81}}}]}]",
            &["http[0].route[0].destination", "no port 81, its ports are 80, 8080", "name one of these"],
        ),
        (
            "http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: x}}]}, {route: [{destination: {host: web, subset: v2}}]}]",
            &["http[1].route[0].destination: no DestinationRule of host", "subset \"v2\"", "define it there"],
        ),
        (
            "http: [{mirror: {host: gone}, route: [{destination: {host: web}}]}]",
            &["http[0].mirror: host \"gone", "nothing is mirrored"],
        ),
        (
            "http: [{mirrors: [{destination: {host: gone}}], route: [{destination: {host: web}}]}]",
            &["http[0].mirrors[0].destination: host \"gone"],
        ),
        (
            "http: [{delegate: {name: nobody}}]",
            &["http[0].delegate: delegate ns/nobody", "answered with 503", "create it"],
        ),
        (
            "http: [{directResponse: {status: 200, body: {bytes: '?'}}}]",
            &["http[0]: directResponse.body.bytes: expected base64", "answered with 500"],
        ),
        (
            "http: [{match: [{uri: {regex: '('}}], route: [{destination: {host: web}}]}]",
            &["http[0]: ", "answered with 500"],
        ),
        (
            "tls: [{match: [{sniHosts: [web]}], route: [{destination: {host: x}}]}]",
            &["tls[0].match[0].sniHosts: [\"web\"]", "never holds", "with its full name"],
        ),
        (
            "tls: [{match: [{sniHosts: [web.ns.svc.cluster.local, x.ns.svc.cluster.local]}], route: [{destination: {host: x}}]}]",
            &["one match for each host"],
        ),
    ] {
        let model = model(&virtual_service(rules));
        let (holds, message) = served(&model, Kind::VirtualService);
        assert!(!holds && parts.iter().all(|part| message.contains(part)), "{rules}: {message}");
    }
    let fine = "http: [{route: [{destination: {host: x}}]}], tls: [{match: [{sniHosts: [web.ns.svc.cluster.local]}], route: [{destination: {host: x}}]}]";
    assert_eq!(served(&model(&virtual_service(fine)), Kind::VirtualService), (true, "honoured as written".to_owned()));
}

#[test]
fn a_connection_route_to_nowhere_is_told_too() {
    let model = world(&format!(
        "{}kind: VirtualService\nmetadata: {{name: vs, namespace: ns}}\nspec: {{hosts: [db], tcp: [{{route: [{{destination: {{host: gone}}}}]}}]}}\n",
        SERVICES
            .replace("name: web", "name: db")
            .replace("name: http, port: 80}, {name: grpc", "name: tcp, port: 80}, {name: tcp-b")
    ));
    let (holds, message) = served(&model, Kind::VirtualService);
    assert!(!holds && message.contains("tcp[0].route[0].destination: host \"gone"), "{message}");
}

#[test]
fn it_is_told_no_longer_once_the_subset_is_there_and_again_once_it_is_gone() {
    let mut model = model(&virtual_service("http: [{route: [{destination: {host: web, subset: v2}}]}]"));
    assert!(!served(&model, Kind::VirtualService).0);
    apply(&mut model, &rule("web", "subsets: [{name: v2, labels: {version: v2}}]"));
    assert_eq!(served(&model, Kind::VirtualService).1, "honoured as written");
    model.apply(Change::Delete(Kind::DestinationRule, "ns/dr".parse().unwrap()));
    model.flush();
    assert!(!served(&model, Kind::VirtualService).0);
}

#[test]
fn tls_settings_that_cut_a_backend_off_are_told_by_the_destination_rule() {
    let tls = |tls: &str| rule("web", &format!("trafficPolicy: {{tls: {tls}}}"));
    for (text, parts) in [
        (
            tls("{mode: SIMPLE, caCertificates: /etc/own.pem}"),
            &["trafficPolicy.tls.caCertificates: file \"/etc/own.pem\"", "use credentialName", "nothing is sent"][..],
        ),
        (
            tls("{mode: SIMPLE, sni: 'a b'}"),
            &["trafficPolicy.tls.sni: \"a b\" is no name of a server: nothing is sent"],
        ),
        (
            rule(
                "web",
                "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL, clientCertificate: /a, privateKey: /b}}]}",
            ),
            &["trafficPolicy.portLevelSettings[0].tls.clientCertificate: file \"/a\""],
        ),
        (
            rule("web", "subsets: [{name: v1, trafficPolicy: {tls: {mode: SIMPLE, caCrl: /a}}}]"),
            &["subsets[0].v1.trafficPolicy.tls.caCrl: file \"/a\""],
        ),
    ] {
        let model = model(&text);
        let (holds, message) = served(&model, Kind::DestinationRule);
        assert!(!holds && parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        let once = parts[0].split(": ").nth(1).unwrap();
        assert_eq!(message.matches(once).count(), 1, "told once: {message}");
    }
}

#[test]
fn a_credential_that_is_missing_is_told_with_the_namespace_where_it_is_looked_for() {
    let mut model = model(&rule("web", "trafficPolicy: {tls: {mode: SIMPLE, credentialName: own}}"));
    assert!(served(&model, Kind::DestinationRule).0, "it has not been looked for yet");
    for name in ["ns/own", "ns/own-cacert"] {
        model.apply(Change::Delete(Kind::Secret, name.parse().unwrap()));
    }
    model.flush();
    let (holds, message) = served(&model, Kind::DestinationRule);
    assert!(!holds && message.contains("there is no Secret ns/own"), "{message}");
    assert!(message.contains("namespace ns send nothing to web.ns.svc.cluster.local"), "{message}");
    let ca = STANDARD.encode(certificate());
    apply(&mut model, &format!("kind: Secret\nmetadata: {{name: own, namespace: ns}}\ndata: {{ca.crt: {ca}}}\n"));
    assert_eq!(served(&model, Kind::DestinationRule), (true, "honoured as written".to_owned()));
}

#[test]
fn mutual_tls_of_the_mesh_cannot_be_had_outside_of_it() {
    let more = format!(
        "kind: ServiceEntry
metadata: {{name: out, namespace: ns, labels: {{istio.io/use-waypoint: wp}}}}
spec: {{hosts: [out.example], addresses: [10.9.9.9], location: MESH_EXTERNAL, resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: 10.9.9.8}}]}}
---
{}",
        rule("out.example", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}")
    );
    let (holds, message) = served(&model(&more), Kind::DestinationRule);
    assert!(!holds && message.contains("ISTIO_MUTUAL cannot be had outside of the mesh"), "{message}");
    assert!(message.contains("send nothing to out.example"), "{message}");
}

#[test]
fn outlier_detection_that_can_never_leave_out_an_endpoint_is_told_with_the_number_of_endpoints() {
    let slice = |count: u8| {
        let endpoints: Vec<_> = (1..=count).map(|at| format!("{{addresses: [10.1.0.{at}]}}")).collect();
        format!(
            "kind: EndpointSlice
metadata: {{name: web-a, namespace: ns, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{}]
---
",
            endpoints.join(", ")
        )
    };
    let detection = |more: &str| rule("web", &format!("trafficPolicy: {{outlierDetection: {{{more}}}}}"));
    let mut model = model(&format!("{}{}", detection("consecutive5xxErrors: 3"), slice(3)));
    let (holds, message) = served(&model, Kind::DestinationRule);
    assert!(!holds && message.contains("10 % of 3 endpoints") && message.contains("at least 34"), "{message}");
    apply(&mut model, &slice(10));
    assert_eq!(served(&model, Kind::DestinationRule).1, "honoured as written");
    apply(&mut model, &slice(9));
    assert!(!served(&model, Kind::DestinationRule).0);
    apply(&mut model, &detection("maxEjectionPercent: 12"));
    assert!(served(&model, Kind::DestinationRule).0);
    apply(&mut model, &detection("maxEjectionPercent: 0"));
    assert!(served(&model, Kind::DestinationRule).1.contains("maxEjectionPercent: is 0"));
    apply(&mut model, &rule("*.ns.svc.cluster.local", "trafficPolicy: {outlierDetection: {}}"));
    let (holds, message) = served(&model, Kind::DestinationRule);
    assert!(!holds && message.contains("10 % of fewer than 10 endpoints"), "{message}");
}

#[test]
fn a_rule_that_no_proxy_goes_by_says_for_which_service_and_when_it_would() {
    let traffic = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}";
    let bound = "kind: Service\nmetadata: {name: x, namespace: ns, labels: {istio.io/use-waypoint: wp}}\nspec: {clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2], selector: {app: x}, ports: [{name: http, port: 80}]}\n---\n";
    let free = bound.replace("istio.io/use-waypoint: wp", "");
    let fine = (true, "honoured as written".to_owned());
    let mut model = model(&rule("x", traffic));
    let idle = |model: &Model, part: &str| {
        let (holds, message) = served(model, Kind::DestinationRule);
        assert!(!holds && message.contains("host \"x\"") && message.contains(part), "{message}");
    };
    idle(&model, "takes effect when the service has a waypoint");
    apply(&mut model, bound);
    assert_eq!(served(&model, Kind::DestinationRule), fine);
    apply(&mut model, &rule("x", &format!("{traffic}, exportTo: [elsewhere]")));
    idle(&model, "its waypoint does not go by this rule");
    apply(&mut model, &rule("x", traffic));
    assert_eq!(served(&model, Kind::DestinationRule), fine);
    apply(&mut model, &free);
    idle(&model, "has no waypoint");
    // A route of a service that has one leads to it; then a gateway does.
    apply(&mut model, &virtual_service("http: [{route: [{destination: {host: x}}]}]"));
    assert_eq!(served(&model, Kind::DestinationRule), fine);
    model.apply(Change::Delete(Kind::VirtualService, "ns/vs".parse().unwrap()));
    model.flush();
    idle(&model, "no gateway calls it");
    let route = "kind: HTTPRoute\nmetadata: {name: r, namespace: ns}\nspec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: x, port: 80}]}]}\n---\n";
    apply(&mut model, &format!("{EDGE}{route}"));
    assert_eq!(served(&model, Kind::DestinationRule), fine);
}

#[test]
fn a_rule_for_many_hosts_or_of_another_namespace_tells_where_it_would_have_an_effect() {
    let traffic = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}";
    assert!(served(&model(&rule("*.ns.svc.cluster.local", traffic)), Kind::DestinationRule).0, "one of them has one");
    let (holds, message) = served(&model(&rule("*.other.svc.cluster.local", traffic)), Kind::DestinationRule);
    assert!(!holds && message.contains("takes effect when one has a waypoint"), "{message}");
    let (holds, message) = served(&model(&rule("far.other.svc.cluster.local", traffic)), Kind::DestinationRule);
    assert!(!holds && message.contains("has a waypoint in namespace ns"), "{message}");
}

const EDGE: &str = "
kind: Gateway
metadata: {name: edge, namespace: ns}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
";

#[test]
fn a_policy_without_targets_says_which_gateways_it_closes_and_they_say_so_too() {
    let request = |namespace: &str, spec: &str| {
        format!("kind: RequestAuthentication\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n")
    };
    let custom = "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns}\nspec: {action: CUSTOM, provider: {name: x}, rules: [{}]}\n---\n";
    let unknown = "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns}\nspec: {rules: [{when: [{key: experimental.x, values: [a]}]}]}\n---\n";
    for (kind, policy, reason) in [
        (Kind::Request, request("istio-system", "jwtRules: [{issuer: i}]"), "tokens are not verified yet"),
        (Kind::Request, request("ns", "jwtRules: [{issuer: i}]"), "tokens are not verified yet"),
        (Kind::Authorization, custom.to_owned(), "action CUSTOM is not served yet"),
        (Kind::Authorization, unknown.to_owned(), "when.key \"experimental.x\""),
    ] {
        let mut model = model(&format!("{EDGE}{policy}"));
        assert!(!proxy(&model, "ns/edge").unwrap().refuse_all.is_empty(), "{policy}");
        let (holds, message) = said(&model, kind, "p", "WaypointAccepted");
        assert!(!holds && message.contains(reason) && message.contains("by gateway ns/edge"), "{message}");
        let (_, programmed) = said(&model, Kind::Gateway, "edge", "Programmed");
        assert!(programmed.contains("all traffic is refused") && programmed.contains(reason), "{programmed}");
        assert!(!said(&model, Kind::Gateway, "wp", "Programmed").1.contains("refused"), "waypoints are not selected");
        let namespace = if policy.contains("istio-system") { "istio-system" } else { "ns" };
        model.apply(Change::Delete(kind, format!("{namespace}/p").parse().unwrap()));
        model.flush();
        assert!(!said(&model, Kind::Gateway, "edge", "Programmed").1.contains("refused"));
    }
}

#[test]
fn a_policy_for_tokens_that_selects_no_gateway_has_no_effect_and_says_so_until_it_does() {
    let text = "kind: RequestAuthentication\nmetadata: {name: p, namespace: ns}\nspec: {selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: edge}}, jwtRules: [{issuer: i}]}\n---\n";
    let mut model = model(text);
    let (holds, message) = said(&model, Kind::Request, "p", "WaypointAccepted");
    assert!(!holds && message.contains("no effect") && message.contains("targetRefs"), "{message}");
    apply(&mut model, EDGE);
    assert!(said(&model, Kind::Request, "p", "WaypointAccepted").1.contains("by gateway ns/edge"));
    model.apply(Change::Delete(Kind::Gateway, "ns/edge".parse().unwrap()));
    model.flush();
    assert!(said(&model, Kind::Request, "p", "WaypointAccepted").1.contains("no effect"));
}
