use super::*;
use crate::translate::conditions::{BACKEND_POLICY_MANAGER, StatusTarget};
use crate::translate::{Model, fixture};
use crate::world::MeshSettings;

const SERVICE: &str = "kind: Service\nmetadata: {name: a, namespace: web}\nspec: {clusterIP: 10.0.0.1, ports: [{name: https, port: 443}]}\n---\n";

fn policy(name: &str, age: u32, target: &str, validation: &str) -> String {
    format!(
        "kind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: web, generation: 2, creationTimestamp: '1970-01-01T00:00:{age}Z'}}\nspec: {{targetRefs: [{{group: '', kind: Service, {target}}}], validation: {{hostname: a.example, {validation}}}}}\n---\n"
    )
}

fn model(yaml: &str) -> Model {
    fixture::model(yaml, MeshSettings::default())
}

/// `controller kind/name: type=status/reason ...` of each ancestor.
fn told(model: &Model, kind: Kind, name: &str) -> Vec<String> {
    let key = NamespacedName::new("web", name);
    let target = StatusTarget { kind, key, manager: BACKEND_POLICY_MANAGER };
    let Some(Parts::Ancestors(all)) = model.statuses().get(&target).map(|one| &one.parts) else { return Vec::new() };
    let one = |one: &Attached| {
        let conditions = one.conditions.iter().map(|one| format!("{}={}/{}", one.type_, one.holds, one.reason));
        let reference = &one.reference;
        format!("{}/{}: {}", reference.kind(), reference.name, conditions.collect::<Vec<_>>().join(" "))
    };
    all.iter().map(one).collect()
}

const SYSTEM: &str = "wellKnownCACertificates: System";

#[test]
fn every_verdict_on_a_backend_tls_policy() {
    for (target, validation, wanted) in [
        ("name: a", SYSTEM, "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs"),
        ("name: a, sectionName: https", SYSTEM, "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs"),
        ("name: a, sectionName: http", SYSTEM, "Accepted=false/TargetNotFound"),
        ("name: b", SYSTEM, "Accepted=false/TargetNotFound"),
        (
            "name: a",
            "caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]",
            "Accepted=false/NoValidCACertificate ResolvedRefs=false/InvalidCACertificateRef",
        ),
        (
            "name: a",
            "caCertificateRefs: [{group: '', kind: Pod, name: gone}]",
            "Accepted=false/NoValidCACertificate ResolvedRefs=false/InvalidKind",
        ),
        ("name: a", "wellKnownCACertificates: Mine", "Accepted=false/Invalid ResolvedRefs=true/ResolvedRefs"),
    ] {
        let mut model = model(&(SERVICE.to_owned() + &policy("p", 10, target, validation)));
        model.apply(crate::world::Change::Delete(Kind::ConfigMap, NamespacedName::new("web", "gone")));
        model.flush();
        let ancestors = told(&model, Kind::BackendTlsPolicy, "p");
        let [only] = ancestors.as_slice() else { panic!("{ancestors:?}") };
        assert_eq!(only.split_once(": ").unwrap().1, wanted, "{target} {validation}");
    }
    let ignored = policy("p", 10, "name: a", SYSTEM)
        .replace("{name: p,", "{name: p, annotations: {istio.io/ignore-policy-attachment: 'true'},");
    let model = model(&(SERVICE.to_owned() + &ignored));
    assert!(told(&model, Kind::BackendTlsPolicy, "p")[0].contains("Accepted=false/IgnoredByIstio"));
}

#[test]
fn gateway_row_18_a_policy_without_authorities_is_not_accepted() {
    let gone = NamespacedName::new("web", "gone");
    let written = policy("p", 10, "name: a", "caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]");
    let mut model = model(&(SERVICE.to_owned() + &written));
    assert!(told(&model, Kind::BackendTlsPolicy, "p").is_empty(), "nobody has looked for it yet");
    model.apply(crate::world::Change::Delete(Kind::ConfigMap, gone));
    model.flush();
    let wanted = "Service/a: Accepted=false/NoValidCACertificate ResolvedRefs=false/InvalidCACertificateRef";
    assert_eq!(told(&model, Kind::BackendTlsPolicy, "p"), [wanted]);
}

#[test]
fn the_older_policy_for_a_target_and_section_is_in_force() {
    let yaml = SERVICE.to_owned()
        + &policy("young", 30, "name: a", SYSTEM)
        + &policy("old", 10, "name: a", SYSTEM)
        + &policy("section", 40, "name: a, sectionName: https", SYSTEM);
    let mut model = model(&yaml);
    let accepted = |model: &Model, name: &str| told(model, Kind::BackendTlsPolicy, name)[0].clone();
    assert!(accepted(&model, "young").contains("Accepted=false/Conflicted"));
    assert!(accepted(&model, "old").contains("Accepted=true") && accepted(&model, "section").contains("Accepted=true"));
    model.apply(crate::world::Change::Delete(Kind::BackendTlsPolicy, NamespacedName::new("web", "old")));
    model.flush();
    assert!(accepted(&model, "young").contains("Accepted=true"), "its place is free");
}

#[test]
fn gateways_that_reach_a_target_are_ancestors_too() {
    let edge = "kind: Gateway\nmetadata: {name: edge, namespace: web}\nspec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}\n---\n";
    let route = "kind: HTTPRoute\nmetadata: {name: r, namespace: web}\nspec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: a, port: 443}]}]}\n---\n";
    let mut model = model(&(SERVICE.to_owned() + &policy("p", 10, "name: a", SYSTEM)));
    let apply = |model: &mut Model, yaml: &str| {
        fixture::changes(yaml).into_iter().for_each(|change| model.apply(change));
        model.flush();
    };
    apply(&mut model, route);
    assert_eq!(told(&model, Kind::BackendTlsPolicy, "p").len(), 1, "the gateway does not exist");
    apply(&mut model, edge);
    let both = told(&model, Kind::BackendTlsPolicy, "p");
    assert!(
        both.len() == 2 && both[0].starts_with("Service/a: ") && both[1].starts_with("Gateway/edge: Accepted=true"),
        "{both:?}"
    );
    model.apply(crate::world::Change::Delete(Kind::HttpRoute, NamespacedName::new("web", "r")));
    model.flush();
    assert_eq!(told(&model, Kind::BackendTlsPolicy, "p").len(), 1);
}

#[test]
fn a_traffic_policy_says_what_of_it_is_served() {
    let policy = |name: &str, age: u32, rest: &str| {
        format!(
            "kind: XBackendTrafficPolicy\nmetadata: {{name: {name}, namespace: web, creationTimestamp: '1970-01-01T00:00:{age}Z'}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: a}}], retryConstraint: {{budget: {{percent: 10}}}}{rest}}}\n---\n"
        )
    };
    let model = model(
        &(SERVICE.to_owned() + &policy("old", 10, ", sessionPersistence: {sessionName: x}") + &policy("young", 20, "")),
    );
    assert_eq!(told(&model, Kind::TrafficPolicy, "old"), ["Service/a: Accepted=true/Accepted"]);
    assert_eq!(told(&model, Kind::TrafficPolicy, "young"), ["Service/a: Accepted=false/Conflicted"]);
    let target = StatusTarget {
        kind: Kind::TrafficPolicy,
        key: NamespacedName::new("web", "old"),
        manager: BACKEND_POLICY_MANAGER,
    };
    let status = &model.statuses()[&target];
    assert!(status.all_conditions()[0].message.contains("sessionPersistence is not served"));
}
