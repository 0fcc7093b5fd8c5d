//! Paths from a change to what depends on it that `property` takes rarely: after the change everything is what is computed
//! from the objects alone, and it is not what it was before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::translate::{Model, fixture};
use crate::world::MeshSettings;

/// Tells a model of `rest` and `before` of `change`: another version of the one object that `before` is.
fn follows(rest: &str, before: &str, change: &str) {
    let mut model = fixture::model(&format!("{rest}---\n{before}"), MeshSettings::default());
    let old = model.clone();
    fixture::changes(change).into_iter().for_each(|change| model.apply(change));
    model.flush();
    let fresh = fixture::model(&format!("{rest}---\n{change}"), MeshSettings::default());
    assert!(everything(&model) == everything(&fresh), "{:#?}\n{:#?}", everything(&model), everything(&fresh));
    assert_ne!(old.layer7().resources(), model.layer7().resources(), "the change has an effect");
}

/// All that is published and said.
fn everything(model: &Model) -> impl PartialEq + std::fmt::Debug {
    (
        model.addresses().clone(),
        model.authorizations().clone(),
        model.layer7().resources().clone(),
        model.statuses().clone(),
    )
}

fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) -> String {
    let data: Vec<_> = data.iter().map(|(key, text)| format!("{key}: {}", STANDARD.encode(text))).collect();
    format!("kind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{{}}}\n", data.join(", "))
}

/// A certificate and its key, PEM.
fn pem() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["x.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

const EDGE: &str = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
";

#[test]
fn a_grant_reaches_a_secret_that_only_a_listener_set_names() {
    let (chain, key) = pem();
    let set = "
kind: ListenerSet
metadata: {name: more, namespace: team, uid: u2}
spec:
  parentRef: {name: edge, namespace: web}
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: certs}]}}]
";
    let certificate = secret("certs", "cert", &[("tls.crt", &chain), ("tls.key", &key)]);
    let grant = |from: &str| {
        format!(
            "kind: ReferenceGrant\nmetadata: {{name: g, namespace: certs}}\nspec: {{from: [{{group: \
             gateway.networking.k8s.io, kind: ListenerSet, namespace: {from}}}], to: [{{group: '', kind: Secret}}]}}\n"
        )
    };
    let rest = [EDGE, set, &certificate].join("---\n");
    follows(&rest, &grant("other"), &grant("team"));
    follows(&rest, &grant("team"), &grant("other"));
}

#[test]
fn a_pod_reaches_the_gateway_that_the_user_deploys() {
    let rest = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
  addresses: [{type: Hostname, value: mine}]
---
kind: Service
metadata: {name: mine, namespace: web}
spec: {clusterIP: 10.0.0.7, clusterIPs: [10.0.0.7], selector: {proxy: mine}, ports: [{name: http, port: 80}]}
---
kind: AuthorizationPolicy
metadata: {name: closed, namespace: web}
spec: {selector: {matchLabels: {tier: outer}}, action: DENY, rules: [{}]}
";
    let pod = |tier: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: p, namespace: web, uid: u, labels: {{proxy: mine, tier: {tier}}}}}\nspec: \
             {{nodeName: n1, serviceAccountName: edge-istio}}\nstatus: {{podIP: 10.1.0.9, podIPs: [{{ip: 10.1.0.9}}]}}\n"
        )
    };
    follows(rest, &pod("inner"), &pod("outer"));
    follows(rest, &pod("outer"), &pod("inner"));
}

const CALLED: &str = "
kind: Gateway
metadata: {name: wp, namespace: web}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.0.0.9}]}
---
kind: Service
metadata: {name: shop, namespace: web, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], selector: {app: shop}, ports: [{name: http, port: 80}]}
";

#[test]
fn a_secret_reaches_the_backends_that_it_is_the_credential_of() {
    let rule = "
kind: DestinationRule
metadata: {name: shop, namespace: web}
spec: {host: shop, trafficPolicy: {tls: {mode: SIMPLE, sni: x.example, credentialName: roots}}}
";
    let roots = || secret("web", "roots", &[("ca.crt", &pem().0)]);
    follows(&[CALLED, rule].join("---\n"), &roots(), &roots());
}

#[test]
fn a_config_map_reaches_the_backends_that_it_is_the_authority_of() {
    let policy = "
kind: BackendTLSPolicy
metadata: {name: shop, namespace: web}
spec:
  targetRefs: [{group: '', kind: Service, name: shop}]
  validation: {hostname: x.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: roots}]}
";
    let roots = || {
        let data = serde_json::json!({"ca.crt": pem().0});
        format!("kind: ConfigMap\nmetadata: {{name: roots, namespace: web}}\ndata: {data}\n")
    };
    follows(&[CALLED, policy].join("---\n"), &roots(), &roots());
}
