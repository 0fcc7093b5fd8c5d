//! Section 10 of the gateway controller's spec: backends, grants, and what their absence does.

use super::*;

fn rule(refs: &str) -> String {
    http_route("r", &format!("  rules: [{{backendRefs: [{refs}]}}]"))
}

fn served(refs: &str, more: &str) -> (String, String) {
    let model = model(&(open_edge() + &services("web") + &services("far") + more + &rule(refs)));
    let answer = listener(&model, "http").get("http://h/");
    (answer, says(&model, "web/r", words::RESOLVED_REFS))
}

#[test]
fn routing_row_7_weights_are_kept_and_zero_takes_nothing() {
    let (answer, status) =
        served("{name: a, port: 80, weight: 8}, {name: b, port: 80, weight: 2}, {name: c, port: 80, weight: 0}", "");
    assert_eq!((answer.as_str(), status.as_str()), ("web/a.web:80=8, web/b.web:80=2", "True ResolvedRefs"));
}

#[test]
fn routing_row_8_the_share_of_a_missing_backend_gets_500() {
    let (answer, status) = served("{name: a, port: 80}, {name: missing, port: 80}", "");
    assert_eq!((answer.as_str(), status.as_str()), ("web/a.web:80, 500", "False BackendNotFound"));
}

#[test]
fn without_weight_or_backends_the_answer_is_500() {
    assert_eq!(
        served("{name: a, port: 80, weight: 0}", ""),
        ("500 all backendRefs have weight 0".into(), "True ResolvedRefs".into())
    );
    assert_eq!(served("", "").0, "500 the rule has no backendRefs");
    let model = model(&(open_edge() + &http_route("r", "")));
    assert_eq!(
        listener(&model, "http").get("http://h/x"),
        "500 the rule has no backendRefs",
        "no rules is one for everything"
    );
}

#[test]
fn every_kind_of_reference_has_its_verdict() {
    let entry = "kind: ServiceEntry\nmetadata: {name: ext, namespace: web}\nspec: {hosts: [api.example.com], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: DNS}\n---\nkind: ServiceEntry\nmetadata: {name: two, namespace: web}\nspec: {hosts: [x.example.com, y.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n---\n";
    let istio = "group: networking.istio.io, kind";
    for (reference, answer, status) in [
        ("{name: a, port: 81}".to_owned(), "500", "False BackendNotFound"),
        ("{name: a, port: 80, group: '', kind: Pod}".to_owned(), "500", "False InvalidKind"),
        ("{name: a, port: 80, group: x.io, kind: Service}".to_owned(), "500", "False InvalidKind"),
        (
            format!("{{name: api.example.com, port: 443, {istio}: Hostname}}"),
            "web/api.example.com:443",
            "True ResolvedRefs",
        ),
        (
            format!("{{name: API.example.com., port: 443, {istio}: Hostname}}"),
            "web/api.example.com:443",
            "True ResolvedRefs",
        ),
        (
            format!("{{name: a.web.svc.cluster.local, port: 80, {istio}: Hostname}}"),
            "web/a.web:80",
            "True ResolvedRefs",
        ),
        (format!("{{name: a.far.svc.cluster.local, port: 80, {istio}: Hostname}}"), "500", "False RefNotPermitted"),
        (format!("{{name: none.example.com, port: 443, {istio}: Hostname}}"), "500", "False BackendNotFound"),
        (format!("{{name: ext, port: 443, {istio}: ServiceEntry}}"), "web/api.example.com:443", "True ResolvedRefs"),
        (format!("{{name: two, port: 80, {istio}: ServiceEntry}}"), "500", "False BackendNotFound"),
        (format!("{{name: gone, port: 80, {istio}: ServiceEntry}}"), "500", "False BackendNotFound"),
        (
            "{name: a, port: 80, group: multicluster.x-k8s.io, kind: ServiceImport}".to_owned(),
            "500",
            "False BackendNotFound",
        ),
        ("{name: a, port: 80, namespace: web}".to_owned(), "web/a.web:80", "True ResolvedRefs"),
        ("{name: a, port: 80, namespace: far}".to_owned(), "500", "False RefNotPermitted"),
        ("{name: nothing, port: 80, namespace: far}".to_owned(), "500", "False RefNotPermitted"),
    ] {
        assert_eq!(served(&reference, entry), (answer.to_owned(), status.to_owned()), "{reference}");
    }
    let (answer, status) =
        served(&format!("{{name: api.example.com, port: 443, namespace: web, {istio}: Hostname}}"), entry);
    assert!(answer.starts_with("500 rule 0: backendRefs[0]: "), "{answer}");
    assert_eq!(status, "False InvalidDestination");
}

#[test]
fn a_service_of_all_clusters_is_imported() {
    let scopes = serde_json::from_value(serde_json::json!([{"scope": "GLOBAL"}])).unwrap();
    let settings = MeshSettings { scopes, ..MeshSettings::default() };
    let yaml = open_edge()
        + &services("web")
        + &rule("{name: a, port: 80, group: multicluster.x-k8s.io, kind: ServiceImport}");
    let model = fixture::model(&yaml, settings);
    assert_eq!(listener(&model, "http").get("http://h/"), "web/a.web:80");
}

/// What a grant has to say for `web`'s HTTPRoutes to name `far`'s Service `a`.
fn grant(from: &str, to: &str) -> String {
    format!("kind: ReferenceGrant\nmetadata: {{name: g, namespace: far}}\nspec: {{from: [{from}], to: [{to}]}}\n---\n")
}

const FROM: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}";

#[test]
fn routing_row_20_another_namespace_needs_a_grant() {
    let far = "{name: a, port: 80, namespace: far}";
    assert_eq!(served(far, ""), ("500".into(), "False RefNotPermitted".into()));
    for (from, to, holds) in [
        (FROM, "{group: '', kind: Service}", true),
        (FROM, "{group: '', kind: Service, name: a}", true),
        (FROM, "{group: '', kind: Service, name: b}", false),
        (FROM, "{group: '', kind: Secret}", false),
        (FROM, "{group: apps, kind: Service}", false),
        ("{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: web}", "{group: '', kind: Service}", false),
        ("{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}", "{group: '', kind: Service}", false),
        ("{group: '', kind: HTTPRoute, namespace: web}", "{group: '', kind: Service}", false),
        (
            &format!("{{group: x, kind: Other, namespace: z}}, {FROM}"),
            "{group: x, kind: Other}, {group: '', kind: Service}",
            true,
        ),
    ] {
        let (answer, status) = served(far, &grant(from, to));
        let wanted = if holds { ("far/a.far:80", "True ResolvedRefs") } else { ("500", "False RefNotPermitted") };
        assert_eq!((answer.as_str(), status.as_str()), wanted, "{from} {to}");
    }
    // One of another namespace permits nothing.
    let elsewhere = grant(FROM, "{group: '', kind: Service}").replace("namespace: far}\nspec", "namespace: web}\nspec");
    assert_eq!(served(far, &elsewhere).1, "False RefNotPermitted");
}

#[test]
fn a_host_of_another_namespace_needs_the_consent_of_whoever_gives_it() {
    let host =
        |name: &str, port: u16| format!("{{name: {name}, port: {port}, group: networking.istio.io, kind: Hostname}}");
    let service = host("a.far.svc.cluster.local", 80);
    for (from, to, holds) in [
        (FROM, "{group: '', kind: Service, name: a}", true),
        (FROM, "{group: '', kind: Service, name: b}", false),
        (FROM, "{group: networking.istio.io, kind: Hostname}", false),
        ("{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: web}", "{group: '', kind: Service}", false),
    ] {
        let wanted = if holds { ("far/a.far:80", "True ResolvedRefs") } else { ("500", "False RefNotPermitted") };
        assert_eq!(served(&service, &grant(from, to)), (wanted.0.to_owned(), wanted.1.to_owned()), "{from} {to}");
    }
    let entry = |exported: &str| {
        format!(
            "kind: ServiceEntry\nmetadata: {{name: ext, namespace: far}}\nspec: {{hosts: [api.example.com], exportTo: \
             {exported}, ports: [{{number: 443, name: https, protocol: HTTPS}}], resolution: DNS}}\n---\n"
        )
    };
    for (exported, holds) in [("[]", true), ("['*']", true), ("[web]", true), ("[.]", false), ("[other]", false)] {
        let wanted =
            if holds { ("far/api.example.com:443", "True ResolvedRefs") } else { ("500", "False RefNotPermitted") };
        let found = served(&host("api.example.com", 443), &entry(exported));
        assert_eq!(found, (wanted.0.to_owned(), wanted.1.to_owned()), "{exported}");
    }
    // Mirrors are backends, too.
    let rules = format!(
        "  rules: [{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {service}}}}}], backendRefs: [{{name: a, port: 80}}]}}]"
    );
    let model = model(&(open_edge() + &services("web") + &services("far") + &http_route("r", &rules)));
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False RefNotPermitted");
}

#[test]
fn gateway_row_14_a_grant_resolves_a_route_that_nobody_touches() {
    let mut model = model(&(open_edge() + &services("far") + &rule("{name: a, port: 80, namespace: far}")));
    assert_eq!(listener(&model, "http").get("http://h/"), "500");
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False RefNotPermitted");
    let granted = grant(FROM, "{group: '', kind: Service}");
    fixture::changes(&granted).into_iter().for_each(|change| model.apply(change));
    let delta = model.flush();
    assert!(delta.statuses.iter().any(|(target, _)| target.kind == Kind::HttpRoute), "the status is told");
    assert_eq!(listener(&model, "http").get("http://h/"), "far/a.far:80");
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "True ResolvedRefs");
    model.apply(crate::world::Change::Delete(Kind::ReferenceGrant, key("far/g")));
    model.flush();
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False RefNotPermitted", "and taken back at once");
}

#[test]
fn only_the_rule_with_the_bad_reference_is_affected() {
    let rules = "  rules:\n  - {matches: [{path: {value: /far}}], backendRefs: [{name: a, port: 80, namespace: far}]}\n  - {backendRefs: [{name: a, port: 80}]}";
    let served =
        listener(&model(&(open_edge() + &services("web") + &services("far") + &http_route("r", rules))), "http");
    assert_eq!((served.get("http://h/far").as_str(), served.get("http://h/near").as_str()), ("500", "web/a.web:80"));
}

#[test]
fn filters_of_a_backend_are_for_its_share() {
    let rules = "  rules:\n  - matches: [{path: {value: /x}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /rule}}}]\n    backendRefs:\n    - {name: a, port: 80}\n    - {name: b, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: in.example, path: {type: ReplaceFullPath, replaceFullPath: /own}}}]}\n    - {name: c, port: 80, filters: [{type: RequestRedirect, requestRedirect: {hostname: out.example}}]}\n    - {name: c, port: 80, weight: 7, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}]}";
    let model = model(&(open_edge() + &services("web") + &http_route("r", rules)));
    assert_eq!(
        listener(&model, "http").get("http://h/x/y"),
        "web/a.web:80 /rule/y, web/b.web:80 in.example /own, http://out.example/x/y /rule/y, 500=7 /rule/y"
    );
    assert_eq!(says(&model, "web/r", words::RESOLVED_REFS), "False InvalidFilter");
}

#[test]
fn protocols_that_a_route_cannot_use_are_told() {
    let more = "kind: Service\nmetadata: {name: odd, namespace: web}\nspec: {clusterIP: 10.0.0.1, ports: [{name: dns, port: 53, protocol: UDP}, {name: s, port: 8443, appProtocol: kubernetes.io/wss}]}\n---\n";
    assert_eq!(served("{name: odd, port: 53}", more), ("500".into(), "False UnsupportedProtocol".into()));
    assert_eq!(served("{name: odd, port: 8443}", more), ("web/odd.web:8443".into(), "True ResolvedRefs".into()));
    let grpc = "kind: GRPCRoute\nmetadata: {name: g, namespace: web}\nspec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: odd, port: 8443}]}]}\n---\n";
    let model = model(&(open_edge() + more + grpc));
    let [parent] = parents(&model, Kind::GrpcRoute, "web/g").try_into().unwrap();
    assert_eq!(brief(&parent.conditions, words::RESOLVED_REFS), "False UnsupportedProtocol");
}
