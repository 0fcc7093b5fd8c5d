//! TLSRoutes and TCPRoutes at listeners: section 4 of the routing spec.

use super::*;

fn tls(name: &str, hosts: &str, backend: &str) -> String {
    format!(
        "kind: TLSRoute\nmetadata: {{name: {name}, namespace: web}}\nspec: {{parentRefs: [{{name: edge}}], hostnames: [{hosts}], rules: [{{backendRefs: [{backend}]}}]}}\n---\n"
    )
}

fn tcp(name: &str, age: u32, backend: &str) -> String {
    format!(
        "kind: TCPRoute\nmetadata: {{name: {name}, namespace: web, creationTimestamp: '1970-01-01T00:00:{age}Z'}}\nspec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{backend}]}}]}}\n---\n"
    )
}

fn targets(rule: &l7::L4Rule, names: &Names) -> Vec<String> {
    let target = |one: &l7::WeightedBackend| match one.target.as_ref().unwrap() {
        l7::weighted_backend::Target::Backend(index) => {
            format!("{}={}", names.0[usize::try_from(*index).unwrap()], one.weight)
        }
        l7::weighted_backend::Target::Unusable(one) => one.reason.clone(),
    };
    rule.backends.iter().map(target).collect()
}

#[test]
fn the_most_specific_server_name_comes_first() {
    let yaml = edge("  - {name: tls, port: 443, protocol: TLS, hostname: '*.example', tls: {mode: Passthrough}}")
        + &services("web")
        + &tls("r1", "'*.example', x.example, y.other", "{name: a, port: 80}")
        + &tls("r2", "'*.long.example', x.example", "{name: b, port: 80}");
    let served = listener(&model(&yaml), "tls");
    let rules = served.routed.tls_rules.iter().map(|one| {
        let rule = one.rule.as_ref().unwrap();
        (one.hostnames.join(" "), targets(rule, &served.names).join(" "), one.origin.as_ref().unwrap().name.clone())
    });
    let rules: Vec<_> = rules.collect();
    let wanted = [
        ("x.example", "web/a.web:80=1", "r1"),
        ("x.example", "web/b.web:80=1", "r2"),
        ("*.long.example", "web/b.web:80=1", "r2"),
        ("*.example", "web/a.web:80=1", "r1"),
    ];
    assert_eq!(rules, wanted.map(|(hosts, backend, name)| (hosts.into(), backend.into(), name.into())));
    assert_eq!(served.routed.http, None);
}

#[test]
fn of_several_tcp_routes_the_oldest_carries_the_traffic() {
    let yaml = edge("  - {name: tcp, port: 9000, protocol: TCP}")
        + &services("web")
        + &tcp("young", 30, "{name: a, port: 80}")
        + &tcp("old", 10, "{name: b, port: 80, weight: 3}, {name: gone, port: 80}, {name: c, port: 80, weight: 0}");
    let model = model(&yaml);
    let served = listener(&model, "tcp");
    let [first, _] = served.routed.tcp_rules.as_slice() else { panic!("{:?}", served.routed) };
    let found = targets(first, &served.names);
    assert_eq!(found[0], "web/b.web:80=3");
    assert!(found[1].contains("web/gone does not exist") && found.len() == 2, "{found:?}");
    for (name, resolved) in [("web/old", "False BackendNotFound"), ("web/young", "True ResolvedRefs")] {
        let [parent] = parents(&model, Kind::TcpRoute, name).try_into().unwrap();
        assert_eq!(brief(&parent.conditions, words::ACCEPTED), "True Accepted");
        assert_eq!(brief(&parent.conditions, words::RESOLVED_REFS), resolved, "{name}");
    }
}

#[test]
fn a_tcp_rule_without_weight_or_meaning_closes() {
    let yaml = edge("  - {name: tcp, port: 9000, protocol: TCP}") + &services("web");
    let rule = |backend: &str| {
        let served = listener(&model(&(yaml.clone() + &tcp("r", 10, backend))), "tcp");
        targets(&served.routed.tcp_rules[0], &served.names)
    };
    assert!(rule("{name: a, port: 80, weight: 0}").is_empty());
    let malformed = rule("{name: a, port: 80}, {name: b.c, port: 80}");
    assert!(malformed.len() == 1 && malformed[0].contains("backendRefs[1]"), "{malformed:?}");
}

#[test]
fn a_listener_without_routes_has_no_table() {
    let served = listener(&model(&open_edge()), "http");
    assert!(served.routed.is_empty());
}
