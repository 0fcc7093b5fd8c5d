//! The CustomResourceDefinitions of the mesh kinds, made from the types of this crate.
//!
//! `cargo run -p mesh-api --example crds` writes them to `deploy/charts/base/crds/`; a test keeps the files current.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
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
    for served in &mut crd.spec.versions {
        if let Some(schema) = served.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            without_defaults(schema);
        }
    }
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

/// Takes defaults out: the API server would write them into what users applied. Reading fills them in just as well.
fn without_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(without_defaults);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_defaults(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        without_defaults(values);
    }
}
