//! The security kinds, and what every kind has in common.

use super::*;

const RULE: &str = "rules: [{from: [{source: {namespaces: [shop]}}]}]";

#[test]
fn every_field_of_an_authorization_policy_is_judged() {
    let source = |source: &str| format!("rules: [{{from: [{{source: {source}}}]}}]");
    let operation =
        |one: &str| format!("targetRefs: [{{kind: Service, name: web}}]\nrules: [{{to: [{{operation: {one}}}]}}]");
    let when = |one: &str| format!("rules: [{{when: [{one}]}}]");
    rejected(
        "AuthorizationPolicy",
        &[
            ("action: PERMIT", &["spec.action: \"PERMIT\": expected one of ALLOW, DENY, AUDIT, CUSTOM"]),
            (&format!("{RULE}\nprovider: {{name: x}}"), &["spec.provider: not allowed with action ALLOW"]),
            ("action: CUSTOM\nprovider: {name: ''}\nrules: [{}]", &["spec.provider.name: \"\""]),
            ("rules: [{from: []}]", &["from is an empty list"]),
            ("rules: [{from: [{}]}]", &["spec.rules[0].from[0].source: missing"]),
            ("rules: [{to: [{operation: {}}]}]", &["operation is empty"]),
            (&source("{}"), &["spec.rules[0].from[0].source: source is empty"]),
            (&source("{principals: []}"), &["source is empty"]),
            (&source("{principals: ['']}"), &["principals[0]: \"\""]),
            (&source("{principals: ['spiffe://td/ns/a/sa/b']}"), &["without spiffe://"]),
            (
                &source("{ipBlocks: [10.0.0.0/33]}"),
                &["spec.rules[0].from[0].source.ipBlocks[0]: \"10.0.0.0/33\": expected an IP"],
            ),
            (&source("{notIpBlocks: [x]}"), &["notIpBlocks[0]"]),
            (&source("{remoteIpBlocks: ['1.2.3']}"), &["remoteIpBlocks[0]"]),
            (&source("{serviceAccounts: ['a/b/c']}"), &["serviceAccounts[0]"]),
            (&source("{serviceAccounts: ['*']}"), &["no wildcards"]),
            (&source(&format!("{{serviceAccounts: [{}]}}", ["a"; 17].join(", "))), &["17 items: expected at most 16"]),
            (&source(&format!("{{serviceAccounts: [{}]}}", "a".repeat(321))), &["at most 320"]),
            (&source("{serviceAccounts: [a], namespaces: [b]}"), &["only one way to name the caller"]),
            (&operation("{ports: ['0']}"), &["operation.ports[0]: \"0\""]),
            (&operation("{ports: ['65536']}"), &["65536"]),
            (&operation("{ports: ['+80']}"), &["+80"]),
            (&operation("{notPorts: [http]}"), &["notPorts[0]"]),
            (&operation("{paths: ['/a/{x}']}"), &["path template"]),
            (&operation("{paths: ['/a/{**}/{*}']}"), &["path template"]),
            (&operation("{paths: ['/a/{*}*']}"), &["path template"]),
            (&when("{values: [a]}"), &["spec.rules[0].when[0].key: missing"]),
            (&when("{key: source.ip}"), &["neither values nor notValues"]),
            (&when("{key: source.ip, values: [x]}"), &["values[0]: \"x\""]),
            (&when("{key: destination.port, notValues: ['0']}"), &["notValues[0]"]),
            (&when("{key: source.mood, values: [good]}"), &["when[0].key: \"source.mood\": expected one of"]),
            (&when("{key: 'request.headers[a b]', values: [x]}"), &["when[0].key"]),
            (&when("{key: 'request.auth.claims[]', values: [x]}"), &["when[0].key"]),
            ("selector: {matchLabels: {'': x}}", &["selector.matchLabels"]),
            ("selector: {matchLabels: {app: 'w*'}}", &["selector.matchLabels[\"app\"]: \"w*\""]),
            (&format!("selector: {{matchLabels: {{app: {}}}}}", "a".repeat(64)), &["at most 63"]),
            ("targetRefs: [{kind: Service}]", &["spec.targetRefs[0].name: missing"]),
            (
                "targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]",
                &["root namespace \"istio-system\""],
            ),
            (
                &format!("targetRefs: [{}]", ["{kind: Service, name: a}"; 17].join(", ")),
                &["17 items: expected at most 16"],
            ),
        ],
    );
}

#[test]
fn what_an_authorization_policy_may_say() {
    let source = |source: &str| format!("rules: [{{from: [{{source: {source}}}]}}]");
    let operation =
        |one: &str| format!("targetRefs: [{{kind: Service, name: web}}]\nrules: [{{to: [{{operation: {one}}}]}}]");
    let when = |one: &str| format!("rules: [{{when: [{one}]}}]");
    accepted(
        "AuthorizationPolicy",
        &[
            RULE,
            "rules: [{}]",
            &source("{principals: ['*'], notNamespaces: ['a*'], ipBlocks: [10.0.0.1, 'fd00::/8']}"),
            &source("{serviceAccounts: [cart, shop/web]}"),
            &operation(
                "{hosts: ['*.x.io'], methods: [GET], ports: ['80'], paths: ['/a*', '/b/{*}/c/{**}', '/x/{**}/y']}",
            ),
            &when("{key: 'request.headers[x-id]', values: ['a*']}"),
            &when("{key: 'request.auth.claims[a][b]', notValues: [x]}"),
            &when("{key: connection.sni, values: [x.io]}"),
        ],
    );
}

#[test]
fn custom_policies_do_not_look_at_identities() {
    let spec = |rule: &str| {
        format!("action: CUSTOM\nprovider: {{name: ext}}\ntargetRefs: [{{kind: Service, name: web}}]\nrules: [{rule}]")
    };
    for field in ["principals", "namespaces", "requestPrincipals", "serviceAccounts", "notPrincipals"] {
        let rule = format!("{{from: [{{source: {{{field}: [a]}}}}]}}");
        rejected("AuthorizationPolicy", &[(&spec(&rule), &[&format!("{field} with action CUSTOM")[..]])]);
    }
    rejected("AuthorizationPolicy", &[(&spec("{when: [{key: source.principal, values: [a]}]}"), &["when[0].key"])]);
    accepted(
        "AuthorizationPolicy",
        &[&spec("{from: [{source: {ipBlocks: [10.0.0.1]}}], to: [{operation: {paths: [/a]}}]}")],
    );
}

#[test]
fn what_an_authorization_policy_cannot_do_is_told() {
    warned(
        "AuthorizationPolicy",
        &[
            (
                "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]",
                "spec.rules[0]: this rule only has HTTP attributes",
            ),
            ("action: AUDIT\nrules: [{}]", "action AUDIT is not enforced by node proxies"),
            ("rules: [{to: [{operation: {hosts: [a*b]}}]}]", "only a wildcard at one end"),
            ("rules: [{to: [{operation: {methods: [get]}}]}]", "compared by case"),
            ("targetRef: {kind: Service, name: web}", "targetRef is deprecated"),
        ],
    );
    let mixed = "action: DENY\nrules: [{to: [{operation: {paths: [/admin], ports: ['80']}}]}]";
    accepted("AuthorizationPolicy", &[mixed]);
}

#[test]
fn dry_run_is_for_policies_that_answer() {
    let annotated = |kind: &str, action: &str, value: &str| {
        let (group, _) = KINDS.iter().find(|(_, one)| *one == kind).unwrap();
        format!(
            "{{apiVersion: {group}/v1, kind: {kind}, metadata: {{namespace: shop, annotations: {{istio.io/dry-run: '{value}'}}}}, spec: {{{action}}}}}"
        )
    };
    let rules = "rules: [{}]";
    assert_eq!(judge(&annotated("AuthorizationPolicy", rules, "true")), Verdict::default());
    assert_eq!(
        judge(&annotated("AuthorizationPolicy", &format!("action: DENY, {rules}"), "false")),
        Verdict::default()
    );
    for (kind, action, value, part) in [
        ("AuthorizationPolicy", "rules: [{}]", "maybe", "\"maybe\": expected true or false"),
        ("AuthorizationPolicy", "action: AUDIT, rules: [{}]", "true", "only ALLOW and DENY"),
        ("PeerAuthentication", "mtls: {mode: STRICT}", "true", "only an AuthorizationPolicy"),
    ] {
        let errors = judge(&annotated(kind, action, value)).errors.join("\n");
        assert!(errors.contains(part), "{part} is missing from {errors}");
    }
    let internal = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {annotations: {internal.istio.io/parents: x}}, spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}}";
    assert!(judge(internal).errors.join("").contains("internal.istio.io/parents"));
}

#[test]
fn modes_of_a_peer_authentication_are_judged() {
    let ports = |ports: &str| format!("selector: {{matchLabels: {{app: web}}}}\nportLevelMtls: {ports}");
    rejected(
        "PeerAuthentication",
        &[
            (
                "mtls: {mode: STRONG}",
                &["spec.mtls.mode: \"STRONG\": expected one of UNSET, DISABLE, PERMISSIVE, STRICT"],
            ),
            (&ports("{'0': {mode: STRICT}}"), &["spec.portLevelMtls[\"0\"]: expected a port from 1 to 65535"]),
            (&ports("{'http': {mode: STRICT}}"), &["portLevelMtls[\"http\"]"]),
            (&ports("{'80': {mode: X}}"), &["portLevelMtls[\"80\"].mode"]),
            ("selector: {}\nportLevelMtls: {'80': {mode: STRICT}}", &["without a selector that has labels"]),
        ],
    );
    warned("PeerAuthentication", &[("mtls: {mode: DISABLE}", "spec.mtls: mode DISABLE is PERMISSIVE in ambient")]);
    accepted("PeerAuthentication", &["mtls: {mode: STRICT}", "{}"]);
}

#[test]
fn token_rules_are_judged() {
    let rule = |rule: &str| format!("targetRefs: [{{kind: Service, name: web}}]\njwtRules: [{{{rule}}}]");
    let keys = "issuer: i, jwksUri: 'https://x.io'";
    rejected(
        "RequestAuthentication",
        &[
            (&rule("jwksUri: 'https://x.io'"), &["spec.jwtRules[0].issuer: missing"]),
            (&rule("issuer: '', jwksUri: 'https://x.io'"), &["issuer: \"\""]),
            (&rule("issuer: me"), &["issuer \"me\" is no URL to find keys at"]),
            (
                &rule("issuer: i, jwksUri: 'ftp://x.io'"),
                &["jwksUri: \"ftp://x.io\": expected an http:// or https:// URL"],
            ),
            (&rule("issuer: i, jwksUri: 'https://x.io:99999'"), &["jwksUri"]),
            (&rule(&format!("issuer: i, jwksUri: 'https://x.io/{}'", "a".repeat(2048))), &["at most 2048 bytes"]),
            (&rule("issuer: i, jwks: 'not json'"), &["spec.jwtRules[0].jwks: expected a JSON object"]),
            (&rule("issuer: i, jwks: '{\"keys\":[{}]}'"), &["a kty in every key"]),
            (&rule(&format!("{keys}, audiences: ['']")), &["audiences[0]"]),
            (&rule(&format!("{keys}, fromHeaders: [{{prefix: x}}]")), &["fromHeaders[0].name: missing"]),
            (&rule(&format!("{keys}, fromHeaders: [{{name: 'a b'}}]")), &["fromHeaders[0].name: \"a b\""]),
            (&rule(&format!("{keys}, fromParams: ['']")), &["fromParams[0]"]),
            (&rule(&format!("{keys}, fromCookies: ['']")), &["fromCookies[0]"]),
            (&rule(&format!("{keys}, outputPayloadToHeader: 'a:b'")), &["outputPayloadToHeader"]),
            (
                &rule(&format!("{keys}, outputClaimToHeaders: [{{header: x}}]")),
                &["outputClaimToHeaders[0].claim: missing"],
            ),
            (&rule(&format!("{keys}, timeout: 0s")), &["timeout: \"0s\": expected a duration of 1ms or more"]),
            (&rule(&format!("{keys}, forwardOriginalToken: 'yes'")), &["expected true or false"]),
            (
                &rule(&format!("{keys}, spaceDelimitedClaims: [a, a]")),
                &["spaceDelimitedClaims[1]: \"a\": expected each value once"],
            ),
        ],
    );
    let private = rule("issuer: i, jwks: '{\"keys\":[{\"kty\":\"RSA\",\"d\":\"secret-part\"}]}'");
    warned("RequestAuthentication", &[(&private, "a private key is among the keys")]);
    assert!(
        !format!("{:?}", judge(&of("RequestAuthentication", &private))).contains("secret-part"),
        "no secret in a message"
    );
    warned(
        "RequestAuthentication",
        &[("jwtRules: [{issuer: 'https://x.io'}]", "tokens are not checked by node proxies")],
    );
    accepted(
        "RequestAuthentication",
        &[
            &rule("issuer: 'https://accounts.x.io'"),
            &rule(&format!(
                "{keys}, audiences: [a], fromHeaders: [{{name: x-jwt, prefix: 'Bearer '}}], fromParams: [t], fromCookies: [c], outputPayloadToHeader: x-p, outputClaimToHeaders: [{{header: x-s, claim: sub}}], forwardOriginalToken: true, timeout: 5s, spaceDelimitedClaims: [scope]"
            )),
        ],
    );
}

#[test]
fn silence_about_what_has_no_effect_can_be_asked_for() {
    let reference = Context { warn_unserved: false, ..Context::default() };
    for (kind, spec) in [
        ("Sidecar", "egress: [{hosts: ['./*']}]"),
        ("EnvoyFilter", "configPatches: [{applyTo: CLUSTER, patch: {operation: REMOVE}}]"),
        ("ServiceEntry", "hosts: [x.io]\nexportTo: ['.']"),
        ("PeerAuthentication", "mtls: {mode: DISABLE}"),
    ] {
        assert_eq!(judge_in(&of(kind, spec), &reference), Verdict::default(), "{kind}");
        warned(
            kind,
            &[(spec, "ambient")].map(|(spec, part)| (spec, if kind == "EnvoyFilter" { "no effect" } else { part })),
        );
    }
}

#[test]
fn messages_are_bounded_and_joined() {
    let many: Vec<_> = (0..200).map(|_| "x").collect();
    let verdict = judge(&of(
        "AuthorizationPolicy",
        &format!("rules: [{{from: [{{source: {{ipBlocks: [{}]}}}}]}}]", many.join(", ")),
    ));
    assert_eq!(verdict.errors.len(), MESSAGES_MAX + 1);
    assert_eq!(verdict.errors.last().unwrap(), "and 150 more");
    let long = judge(&of("AuthorizationPolicy", &format!("action: {}", "x".repeat(100_000))));
    assert!(long.errors.iter().all(|message| message.len() < 300));
}

#[test]
fn unknown_fields_and_wrong_sorts_are_told() {
    warned("PeerAuthentication", &[("mtls: {mod: STRICT}", "spec.mtls.mod: this field is unknown and has no effect")]);
    rejected("PeerAuthentication", &[("mtls: STRICT", &["spec.mtls: \"STRICT\": expected an object"])]);
    rejected(
        "ServiceEntry",
        &[
            ("hosts: x.io", &["spec.hosts: \"x.io\": expected a list"]),
            ("hosts: [3]", &["spec.hosts[0]: 3: expected a string"]),
        ],
    );
}
