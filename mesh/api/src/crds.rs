//! The CustomResourceDefinitions of the mesh kinds, made from the types of this crate.
//!
//! `cargo run -p mesh-api --example crds` writes them to `deploy/charts/base/crds/`; a test keeps the files current.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::security::{AuthorizationPolicy, PeerAuthentication};

/// Every definition that an installation brings, by file name order.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        with_older_version(AuthorizationPolicy::crd(), "v1beta1"),
        with_older_version(PeerAuthentication::crd(), "v1beta1"),
    ]
}

/// Serves the same schema under one more, older version name; storage stays where it was.
fn with_older_version(mut crd: CustomResourceDefinition, version: &str) -> CustomResourceDefinition {
    let mut older = crd.spec.versions.first().cloned();
    if let Some(older) = &mut older {
        older.name = version.to_owned();
        older.storage = false;
    }
    crd.spec.versions.extend(older);
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert("app".to_owned(), "istio-pilot".to_owned());
    labels.insert("chart".to_owned(), "istio".to_owned());
    // Definitions stay when the chart is uninstalled: deleting them would delete every policy.
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    crd
}
