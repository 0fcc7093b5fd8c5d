//! The must-pass table of the API surface.

use super::*;

#[test]
fn api_row_1_selector_and_target_refs_are_rejected() {
    let both = "selector: {matchLabels: {app: web}}\ntargetRefs: [{kind: Service, group: '', name: web}]";
    let message = &["spec: selector, targetRefs are all set: expected at most one"][..];
    rejected("AuthorizationPolicy", &[(both, message)]);
    rejected("RequestAuthentication", &[(both, message)]);
    rejected("Telemetry", &[(both, message)]);
}

#[test]
fn api_row_2_a_target_of_kind_http_route_is_rejected() {
    let spec = "targetRefs: [{kind: HTTPRoute, group: gateway.networking.k8s.io, name: web}]";
    rejected("AuthorizationPolicy", &[(spec, &["spec.targetRefs[0]", "\"HTTPRoute\"", "Service", "GatewayClass"])]);
}

#[test]
fn api_row_3_deny_needs_rules_and_allow_does_not() {
    rejected("AuthorizationPolicy", &[("action: DENY", &["action DENY without rules"])]);
    accepted("AuthorizationPolicy", &["action: ALLOW", "{}"]);
}

#[test]
fn api_row_4_port_modes_need_a_selector() {
    let ports = "portLevelMtls: {8080: {mode: STRICT}}";
    rejected("PeerAuthentication", &[(ports, &["portLevelMtls without a selector"])]);
    accepted("PeerAuthentication", &["selector: {matchLabels: {app: web}}\nportLevelMtls: {8080: {mode: STRICT}}"]);
}

#[test]
fn api_row_5_the_host_of_all_is_rejected() {
    rejected("ServiceEntry", &[("hosts: ['*']", &["spec.hosts[0]: \"*\": expected a DNS name"])]);
}

#[test]
fn api_row_6_a_wildcard_cannot_be_looked_up() {
    let spec = "hosts: ['*.x.io']\nresolution: DNS\nports: [{number: 443, name: tls, protocol: TLS}]";
    rejected("ServiceEntry", &[(spec, &["spec.hosts[0]: \"*.x.io\"", "resolution DNS and no endpoints"])]);
}

#[test]
fn api_row_7_blocks_and_several_tcp_hosts_without_resolution_are_accepted() {
    let spec = "hosts: [a.x.io, b.x.io]\nresolution: NONE\naddresses: [10.0.0.0/8]\nports: [{number: 25, name: tcp, protocol: TCP}]";
    accepted("ServiceEntry", &[spec]);
}

#[test]
fn api_row_8_an_empty_address_in_a_network_is_warned_about() {
    warned("WorkloadEntry", &[("network: n2", "address is empty")]);
}

#[test]
fn api_row_9_an_empty_address_without_network_is_rejected() {
    rejected("WorkloadEntry", &[("labels: {app: web}", &["address is empty and network too"])]);
}

#[test]
fn api_row_10_a_maglev_table_that_is_no_prime_is_rejected() {
    let spec = |size: u64| {
        format!(
            "host: web\ntrafficPolicy: {{loadBalancer: {{consistentHash: {{useSourceIp: true, maglev: {{tableSize: {size}}}}}}}}}"
        )
    };
    rejected("DestinationRule", &[(&spec(65_536), &["maglev.tableSize: 65536: expected a prime number"])]);
    rejected("DestinationRule", &[(&spec(5_000_011), &["tableSize"]), (&spec(1), &["tableSize"])]);
    accepted("DestinationRule", &[&spec(65_537), &spec(2)]);
}

#[test]
fn api_row_11_the_host_of_all_is_not_for_the_mesh() {
    let route = "http: [{route: [{destination: {host: web}}]}]";
    rejected("VirtualService", &[(&format!("hosts: ['*']\n{route}"), &["spec.hosts[0]: \"*\""])]);
    rejected("VirtualService", &[(&format!("hosts: ['*']\ngateways: [mesh, g]\n{route}"), &["spec.hosts[0]"])]);
    accepted("VirtualService", &[&format!("hosts: ['*']\ngateways: [infra/g]\n{route}")]);
}

#[test]
fn api_row_12_weights_of_zero_are_rejected() {
    let spec =
        "hosts: [web]\nhttp: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 0}]}]";
    rejected("VirtualService", &[(spec, &["spec.http[0]: route: 2 destinations whose weights sum to 0"])]);
}

#[test]
fn api_row_13_keys_come_one_way() {
    let spec = "targetRefs: [{kind: Service, name: web}]\njwtRules: [{issuer: i, jwks: '{\"keys\":[]}', jwksUri: 'https://x.io/keys'}]";
    rejected("RequestAuthentication", &[(spec, &["spec.jwtRules[0]: jwksUri, jwks: expected at most one"])]);
}

#[test]
fn api_row_14_a_target_with_a_namespace_is_rejected() {
    let one = "targetRef: {kind: Service, name: web, namespace: shop}";
    let many = "targetRefs: [{kind: Service, name: web, namespace: shop}]";
    rejected(
        "AuthorizationPolicy",
        &[(one, &["spec.targetRef: namespace is set"]), (many, &["spec.targetRefs[0]: namespace is set"])],
    );
}

#[test]
fn api_row_15_a_sampling_rate_above_100_is_rejected() {
    let spec = "tracing: [{randomSamplingPercentage: 120}]";
    rejected(
        "Telemetry",
        &[(spec, &["spec.tracing[0].randomSamplingPercentage: 120: expected a percentage from 0 to 100"])],
    );
}

#[test]
fn api_row_16_a_sum_of_63_characters_is_rejected() {
    let spec = |length: usize| format!("url: oci://x.io/p:1\nsha256: '{}'", "a".repeat(length));
    rejected("WasmPlugin", &[(&spec(63), &["spec.sha256", "64 hexadecimal digits"])]);
    accepted("WasmPlugin", &[&spec(64)]);
}

#[test]
fn api_row_17_an_empty_selector_is_warned_about() {
    for kind in ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "Telemetry"] {
        warned(kind, &[("selector: {}", "matchLabels is empty: this counts as no selector")]);
    }
}

#[test]
fn api_row_18_custom_needs_a_provider() {
    rejected("AuthorizationPolicy", &[("action: CUSTOM\nrules: [{}]", &["action CUSTOM without provider"])]);
}
