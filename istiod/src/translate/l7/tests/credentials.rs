//! Which Secrets backends need, and what happens until they were read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_core::names::NamespacedName;

use super::*;
use crate::world::Change;

fn rule(host: &str, tls: &str) -> String {
    format!(
        "kind: DestinationRule\nmetadata: {{name: {host}, namespace: ns}}\nspec: {{host: {host}, trafficPolicy: {{tls: {tls}}}}}\n---\n"
    )
}

fn authority(name: &str, certificate: &str) -> String {
    let pem = STANDARD.encode(certificate);
    format!("kind: Secret\nmetadata: {{name: {name}, namespace: ns}}\ndata: {{ca.crt: {pem}}}\n---\n")
}

fn apply(model: &mut Model, yaml: &str) {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
}

/// Everything that backends need, with who names it.
fn needed(model: &Model) -> Vec<String> {
    let all = model.layer7().materials(model.world());
    all.into_iter().map(|((kind, key), by)| format!("{} {key} by {by}", kind.name())).collect()
}

#[test]
fn only_what_a_proxy_needs_for_its_own_backends_is_read() {
    let many: Vec<_> = (0..50).map(|number| format!("{{name: v{number}, labels: {{v: a}}, trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: c{number}}}}}}}")).collect();
    let rules = format!(
        "kind: DestinationRule\nmetadata: {{name: many, namespace: ns}}\nspec: {{host: x, subsets: [{}]}}\n---\n",
        many.join(", ")
    );
    let elsewhere = "kind: Gateway\nmetadata: {name: wp, namespace: other}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n";
    let yaml = format!("{rules}{elsewhere}");
    assert!(needed(&model(&yaml)).is_empty(), "nobody calls it");
    let route = "kind: VirtualService\nmetadata: {name: vs, namespace: ns}\nspec: {hosts: [web], http: [{route: [{destination: {host: x, subset: v7}}]}]}\n";
    let called = model(&format!("{yaml}{route}"));
    assert_eq!(needed(&called), ["Secret ns/c7 by ns", "Secret ns/c7-cacert by ns"]);
    // Before anything was computed, too: the first publication waits for it.
    let mut unflushed = Model::default();
    unflushed.apply(Change::Settings(MeshSettings::default().into()));
    changes(&format!("{SERVICES}{yaml}{route}")).into_iter().for_each(|change| unflushed.apply(change));
    assert_eq!(needed(&unflushed), needed(&called));
}

#[test]
fn a_credential_that_is_yet_to_be_read_cuts_nobody_off_who_had_another() {
    let (old, new) = (certificate(), certificate());
    let with = |name: &str| rule("web", &format!("{{mode: SIMPLE, sni: a.example, credentialName: {name}}}"));
    let mut model = model(&format!("{}{}", with("old"), authority("old", &old)));
    let roots = |model: &Model| {
        let port = port(model, WEB).unwrap();
        let roots = policy(&port).tls.as_ref().map(|tls| String::from_utf8(tls.roots.clone()).unwrap());
        (port.backends[0].refuse.clone(), roots)
    };
    assert_eq!(roots(&model), (String::new(), Some(old.clone())));
    apply(&mut model, &with("new"));
    assert_eq!(roots(&model), (String::new(), Some(old)), "the new one has not been looked for yet");
    // What else is said is in force at once.
    apply(
        &mut model,
        "kind: AuthorizationPolicy\nmetadata: {name: closed, namespace: ns}\nspec: {targetRefs: [{group: '', kind: Service, name: web}], action: DENY, rules: [{}]}\n",
    );
    assert_eq!(port(&model, WEB).unwrap().authorizations.len(), 1);
    apply(&mut model, &authority("new", &new));
    assert_eq!(roots(&model), (String::new(), Some(new)));
    apply(&mut model, &with("gone"));
    for name in ["gone", "gone-cacert"] {
        model.apply(Change::Delete(Kind::Secret, NamespacedName::new("ns", name)));
    }
    model.flush();
    let (refuse, tls) = roots(&model);
    assert!(refuse.contains("there is no Secret ns/gone") && tls.is_none(), "{refuse}: it is known not to exist");
}

#[test]
fn what_went_without_tls_waits_for_its_credential() {
    let mut model = model(&rule("web", "{mode: DISABLE}"));
    assert_eq!(port(&model, WEB).unwrap().backends[0].refuse, "");
    apply(&mut model, &rule("web", "{mode: SIMPLE, credentialName: new}"));
    assert_ne!(port(&model, WEB).unwrap().backends[0].refuse, "");
}
