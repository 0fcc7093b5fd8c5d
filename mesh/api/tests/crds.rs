//! The checked-in definitions are those of the types, and such as an API server takes.
// Helpers of tests panic like tests do; clippy knows only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use mesh_api::crds;

#[test]
fn checked_in_definitions_are_current() {
    let deploy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for (folder, definitions) in [("charts/base/crds", crds::all()), ("crds/gateway-api", crds::gateway_api())] {
        let folder = deploy.join(folder);
        let mut wanted: Vec<_> = definitions.iter().map(|crd| format!("{}.yaml", name(crd))).collect();
        let mut found: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "{}", folder.display());
        for crd in definitions {
            let file = folder.join(format!("{}.yaml", name(&crd)));
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let made = serde_saphyr::to_string(&crd).unwrap();
            assert_eq!(text, made, "{} is stale: run `make crds`", file.display());
        }
    }
}

#[test]
fn versions_scope_and_names_are_those_of_the_reference() {
    let three: &[(&str, bool)] = &[("v1", true), ("v1beta1", false), ("v1alpha3", false)];
    let one: &[(&str, bool)] = &[("v1", true)];
    let two: &[(&str, bool)] = &[("v1", true), ("v1beta1", false)];
    let alpha: &[(&str, bool)] = &[("v1alpha1", true)];
    for (wanted, short, versions) in [
        ("authorizationpolicies.security.istio.io", Some("ap"), two),
        ("peerauthentications.security.istio.io", Some("pa"), two),
        ("requestauthentications.security.istio.io", Some("ra"), two),
        ("serviceentries.networking.istio.io", Some("se"), three),
        ("workloadentries.networking.istio.io", Some("we"), three),
        ("workloadgroups.networking.istio.io", Some("wg"), three),
        ("destinationrules.networking.istio.io", Some("dr"), three),
        ("virtualservices.networking.istio.io", Some("vs"), three),
        ("gateways.networking.istio.io", Some("gw"), three),
        ("sidecars.networking.istio.io", None, three),
        ("proxyconfigs.networking.istio.io", None, &[("v1beta1", true)]),
        ("envoyfilters.networking.istio.io", None, &[("v1alpha3", true)]),
        ("telemetries.telemetry.istio.io", Some("telemetry"), &[("v1", false), ("v1alpha1", true)]),
        ("wasmplugins.extensions.istio.io", None, alpha),
        ("trafficextensions.extensions.istio.io", None, alpha),
        ("gatewayclasses.gateway.networking.k8s.io", Some("gc"), two),
        ("gateways.gateway.networking.k8s.io", Some("gtw"), two),
        ("httproutes.gateway.networking.k8s.io", None, two),
        ("grpcroutes.gateway.networking.k8s.io", None, one),
        ("tlsroutes.gateway.networking.k8s.io", None, one),
        ("tcproutes.gateway.networking.k8s.io", None, one),
        ("udproutes.gateway.networking.k8s.io", None, one),
        ("referencegrants.gateway.networking.k8s.io", Some("refgrant"), &[("v1", false), ("v1beta1", true)]),
        ("listenersets.gateway.networking.k8s.io", Some("lset"), one),
        ("backendtlspolicies.gateway.networking.k8s.io", Some("btlspolicy"), one),
        ("xbackendtrafficpolicies.gateway.networking.x-k8s.io", Some("xbtrafficpolicy"), alpha),
    ] {
        let crd = every().into_iter().find(|crd| name(crd) == wanted).unwrap_or_else(|| panic!("no {wanted}"));
        let found: Vec<_> = crd.spec.versions.iter().map(|v| (v.name.as_str(), v.storage)).collect();
        assert_eq!(found, versions, "{wanted}");
        assert!(crd.spec.versions.iter().all(|v| v.served), "{wanted}");
        let has_status =
            |v: &CustomResourceDefinitionVersion| v.subresources.as_ref().is_some_and(|s| s.status.is_some());
        let grant = wanted.starts_with("referencegrants");
        assert!(crd.spec.versions.iter().all(|v| has_status(v) != grant), "{wanted}");
        let shorts: Vec<_> = crd.spec.names.short_names.iter().flatten().map(String::as_str).collect();
        assert_eq!(shorts, Vec::from_iter(short), "{wanted}");
        let scope = if wanted.starts_with("gatewayclasses") { "Cluster" } else { "Namespaced" };
        assert_eq!(crd.spec.scope, scope, "{wanted}");
        let category = if wanted.ends_with("k8s.io") { "gateway-api" } else { "istio-io" };
        assert!(crd.spec.names.categories.iter().flatten().any(|one| one == category), "{wanted}");
    }
    assert_eq!(every().len(), 26);
}

#[test]
fn schemas_are_structural() {
    for crd in every() {
        let text = serde_json::to_string(&crd).unwrap();
        for forbidden in ["$ref", "\"definitions\"", "anyOf", "oneOf", "nullable", "\"uint"] {
            assert!(!text.contains(forbidden), "{} has {forbidden}", name(&crd));
        }
        // The Gateway API promises defaults; in the mesh's own kinds what users applied stays as it was.
        assert!(!text.contains("\"default\":") || name(&crd).ends_with("k8s.io"), "{} has a default", name(&crd));
    }
}

#[test]
fn definitions_can_be_applied_from_the_command_line() {
    // `kubectl apply` keeps what it applied in an annotation; all annotations together may have 262,144 bytes.
    for crd in every() {
        let bytes = serde_json::to_string(&crd).unwrap().len();
        assert!(bytes < 250_000, "{} has {bytes} bytes", name(&crd));
    }
}

#[test]
fn every_field_is_described() {
    for crd in every() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        described(&schema["openAPIV3Schema"]["properties"]["spec"], &format!("{} spec", name(&crd)));
    }
}

fn described(schema: &serde_json::Value, path: &str) {
    let text = schema["description"].as_str().unwrap_or_default();
    assert!(!text.is_empty(), "{path} has no description");
    assert!(!text.contains("# Source"), "{path}: {text}");
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        described(child, &format!("{path}.{name}"));
    }
    if schema["items"]["properties"].is_object() {
        described(&schema["items"], &format!("{path}[]"));
    }
}

fn every() -> Vec<CustomResourceDefinition> {
    [crds::all(), crds::gateway_api()].concat()
}

fn name(crd: &CustomResourceDefinition) -> String {
    crd.metadata.name.clone().unwrap()
}
