//! The CustomResourceDefinitions of the kinds in this crate, made from its types.
//!
//! `make crds` writes them under `deploy/`; a test keeps the files current.

mod defaults;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{extensions, gateway, networking, security, telemetry};

/// The mesh's own kinds, which an installation brings.
pub fn all() -> Vec<CustomResourceDefinition> {
    let stable = |crd| mesh(crd, &["v1", "v1beta1", "v1alpha3"], "v1");
    let security = |crd| mesh(crd, &["v1", "v1beta1"], "v1");
    let alpha = |crd| mesh(crd, &["v1alpha1"], "v1alpha1");
    vec![
        security(security::AuthorizationPolicy::crd()),
        security(security::PeerAuthentication::crd()),
        security(security::RequestAuthentication::crd()),
        stable(networking::ServiceEntry::crd()),
        stable(networking::WorkloadEntry::crd()),
        stable(networking::WorkloadGroup::crd()),
        stable(networking::DestinationRule::crd()),
        stable(networking::VirtualService::crd()),
        stable(networking::Gateway::crd()),
        stable(networking::Sidecar::crd()),
        mesh(networking::ProxyConfig::crd(), &["v1beta1"], "v1beta1"),
        mesh(networking::EnvoyFilter::crd(), &["v1alpha3"], "v1alpha3"),
        mesh(telemetry::Telemetry::crd(), &["v1", "v1alpha1"], "v1alpha1"),
        alpha(extensions::WasmPlugin::crd()),
        alpha(extensions::TrafficExtension::crd()),
    ]
}

/// The kinds of the Gateway API, for clusters that have none. Where they are installed already, theirs stay.
pub fn gateway_api() -> Vec<CustomResourceDefinition> {
    let graduated = |crd, defaults| published(crd, &["v1", "v1beta1"], "v1", defaults);
    let stable = |crd, defaults| published(crd, &["v1"], "v1", defaults);
    vec![
        graduated(gateway::GatewayClass::crd(), defaults::GATEWAY_CLASS.to_vec()),
        graduated(gateway::Gateway::crd(), defaults::GATEWAY.to_vec()),
        graduated(gateway::HTTPRoute::crd(), defaults::http_route()),
        stable(gateway::GRPCRoute::crd(), defaults::grpc_route()),
        stable(gateway::TLSRoute::crd(), defaults::l4_route()),
        stable(gateway::TCPRoute::crd(), defaults::l4_route()),
        stable(gateway::UDPRoute::crd(), defaults::l4_route()),
        published(gateway::ReferenceGrant::crd(), &["v1", "v1beta1"], "v1beta1", Vec::new()),
        stable(gateway::ListenerSet::crd(), defaults::listener_set()),
        stable(gateway::BackendTLSPolicy::crd(), Vec::new()),
        published(
            gateway::XBackendTrafficPolicy::crd(),
            &["v1alpha1"],
            "v1alpha1",
            defaults::BACKEND_TRAFFIC_POLICY.to_vec(),
        ),
    ]
}

/// A kind of the Gateway API: versions, defaults, and the word of approval.
fn published(
    crd: CustomResourceDefinition,
    versions: &[&str],
    stored: &str,
    defaults: Vec<defaults::Default>,
) -> CustomResourceDefinition {
    let mut crd = served_as(crd, versions, stored);
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            defaults::fill(schema, &defaults);
        }
    }
    // The API server takes definitions of these groups only with a word on who approved them.
    let annotations = crd.metadata.annotations.get_or_insert_default();
    let approval = "unapproved, definition of the published Gateway API made by this mesh";
    annotations.insert("api-approved.kubernetes.io".to_owned(), approval.to_owned());
    crd
}

/// A kind of the mesh: versions, and the labels and annotations that installers look for.
fn mesh(crd: CustomResourceDefinition, versions: &[&str], stored: &str) -> CustomResourceDefinition {
    let mut crd = served_as(crd, versions, stored);
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert("app".to_owned(), "istio-pilot".to_owned());
    labels.insert("chart".to_owned(), "istio".to_owned());
    // Definitions stay when the chart is uninstalled: deleting them would delete every policy.
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    crd
}

/// Serves one schema under several versions, of which one is stored.
fn served_as(mut crd: CustomResourceDefinition, versions: &[&str], stored: &str) -> CustomResourceDefinition {
    let mut made = crd.spec.versions;
    let kind = &crd.spec.names.kind;
    for version in &mut made {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schema::finish(schema, kind);
        }
    }
    let derived = made.into_iter().next();
    let versions = versions.iter().filter_map(|name| {
        let mut version = derived.clone()?;
        version.name = (*name).to_owned();
        version.storage = *name == stored;
        Some(version)
    });
    crd.spec.versions = versions.collect();
    crd
}
