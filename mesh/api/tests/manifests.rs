//! Manifests of every kind: accepted ones are read and written without loss, rejected ones break the rule they name.
//!
//! `tests/manifests/<definition>/{accepted,rejected}-*.yaml`; a file may hold several documents. A rejected document
//! has a line `# expect: ` with the rule's message, or with the path of the field that the schema itself refuses. A
//! line `# old: FILE` makes the document an update of that file's.
// Helpers of tests panic like tests do; clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/cost.rs"]
mod cost;
#[path = "support/manifest.rs"]
mod manifest;

use std::collections::BTreeSet;

use kube_cel::{Validator, compile_schema};
use mesh_api::{extensions, gateway, networking, security, telemetry};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use manifest::{Manifest, definitions, manifests, rules};

#[test]
fn accepted_manifests_are_read_and_written_without_loss() {
    for manifest in manifests().into_iter().filter(|one| one.expected.is_none()) {
        assert_eq!(rewritten(&manifest), manifest.object["spec"], "{manifest}");
    }
}

#[test]
fn every_kind_has_accepted_and_rejected_manifests() {
    let all = manifests();
    for definition in definitions() {
        for rejected in [false, true] {
            let found = all.iter().any(|one| one.definition == definition.name && one.expected.is_some() == rejected);
            assert!(found, "{}: no manifest with rejected = {rejected}", definition.name);
        }
    }
}

#[test]
fn rules_accept_and_reject_as_the_manifests_say() {
    let all = manifests();
    for definition in definitions() {
        let compiled = compile_schema(&definition.schema);
        assert!(!compiled.has_errors(), "{}: {:?}", definition.name, compiled.compilation_errors());
        let messages: BTreeSet<_> = rules(&definition.schema).into_iter().map(|rule| rule.message).collect();
        for manifest in all.iter().filter(|one| one.definition == definition.name) {
            let found: Vec<_> =
                match Validator::new().validate_compiled(&compiled, &manifest.object, manifest.old.as_ref()) {
                    Ok(()) => Vec::new(),
                    Err(errors) => errors.into_iter().map(|error| error.message).collect(),
                };
            match &manifest.expected {
                None => assert!(found.is_empty(), "{manifest}: {found:?}"),
                Some(expected) if messages.contains(expected) => {
                    assert_eq!(found, std::slice::from_ref(expected), "{manifest}");
                }
                // The schema refuses it before any rule is asked.
                Some(expected) => assert!(expected.starts_with("spec."), "{manifest}: no rule says {expected:?}"),
            }
        }
    }
}

#[test]
fn every_rule_has_a_manifest_that_it_rejects() {
    let all = manifests();
    for definition in definitions() {
        for rule in rules(&definition.schema) {
            let shown = all
                .iter()
                .any(|one| one.definition == definition.name && one.expected.as_deref() == Some(rule.message.as_str()));
            assert!(shown, "{}: no manifest for {:?} at {}", definition.name, rule.message, rule.path);
        }
    }
}

#[test]
fn rules_name_their_field() {
    for definition in definitions() {
        for rule in rules(&definition.schema) {
            let known = definition.schema.to_string();
            let named = rule
                .message
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(|word| word.len() > 2 && known.contains(&format!("\"{word}\":")));
            assert!(named, "{}: {:?} names no field", definition.name, rule.message);
        }
    }
}

#[test]
fn rules_stay_within_what_an_api_server_grants() {
    for definition in definitions() {
        let mut total = 0;
        for rule in rules(&definition.schema) {
            let cost = cost::of(&rule);
            assert!(cost <= cost::RULE_MAX, "{}: {cost} for {:?} at {}", definition.name, rule.text, rule.path);
            total += cost;
        }
        assert!(total <= cost::DEFINITION_MAX, "{}: {total}", definition.name);
    }
}

/// The spec of a manifest after it was read into its type and written again.
fn rewritten(manifest: &Manifest) -> Value {
    let read: fn(&Value) -> Value = match manifest.definition.as_str() {
        "authorizationpolicies.security.istio.io" => again::<security::AuthorizationPolicySpec>,
        "peerauthentications.security.istio.io" => again::<security::PeerAuthenticationSpec>,
        "requestauthentications.security.istio.io" => again::<security::RequestAuthenticationSpec>,
        "serviceentries.networking.istio.io" => again::<networking::ServiceEntrySpec>,
        "workloadentries.networking.istio.io" => again::<networking::WorkloadEntrySpec>,
        "workloadgroups.networking.istio.io" => again::<networking::WorkloadGroupSpec>,
        "destinationrules.networking.istio.io" => again::<networking::DestinationRuleSpec>,
        "virtualservices.networking.istio.io" => again::<networking::VirtualServiceSpec>,
        "gateways.networking.istio.io" => again::<networking::GatewaySpec>,
        "sidecars.networking.istio.io" => again::<networking::SidecarSpec>,
        "proxyconfigs.networking.istio.io" => again::<networking::ProxyConfigSpec>,
        "envoyfilters.networking.istio.io" => again::<networking::EnvoyFilterSpec>,
        "telemetries.telemetry.istio.io" => again::<telemetry::TelemetrySpec>,
        "wasmplugins.extensions.istio.io" => again::<extensions::WasmPluginSpec>,
        "trafficextensions.extensions.istio.io" => again::<extensions::TrafficExtensionSpec>,
        "gatewayclasses.gateway.networking.k8s.io" => again::<gateway::GatewayClassSpec>,
        "gateways.gateway.networking.k8s.io" => again::<gateway::GatewaySpec>,
        "httproutes.gateway.networking.k8s.io" => again::<gateway::HTTPRouteSpec>,
        "grpcroutes.gateway.networking.k8s.io" => again::<gateway::GRPCRouteSpec>,
        "tlsroutes.gateway.networking.k8s.io" => again::<gateway::TLSRouteSpec>,
        "tcproutes.gateway.networking.k8s.io" => again::<gateway::TCPRouteSpec>,
        "udproutes.gateway.networking.k8s.io" => again::<gateway::UDPRouteSpec>,
        "referencegrants.gateway.networking.k8s.io" => again::<gateway::ReferenceGrantSpec>,
        "listenersets.gateway.networking.k8s.io" => again::<gateway::ListenerSetSpec>,
        "backendtlspolicies.gateway.networking.k8s.io" => again::<gateway::BackendTLSPolicySpec>,
        "xbackendtrafficpolicies.gateway.networking.x-k8s.io" => again::<gateway::XBackendTrafficPolicySpec>,
        other => panic!("no type for {other}"),
    };
    read(&manifest.object["spec"])
}

fn again<T: DeserializeOwned + Serialize>(spec: &Value) -> Value {
    let read: T = serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{error} in {spec}"));
    serde_json::to_value(read).unwrap()
}
