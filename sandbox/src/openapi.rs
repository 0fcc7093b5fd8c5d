//! What the API looks like, for clients: OpenAPI v3 documents, one per group and version.
//!
//! `kubectl` reads them to explain kinds, to learn whether the server checks fields, and for the
//! merge keys of strategic merge patches. They are made from the schemas that objects are checked
//! against, when somebody asks; [`fingerprint`] tells cheaply whether a made one is still right.

mod paths;
mod schemas;

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use self::schemas::Components;
use crate::schema::Schema;

/// A resource as its document describes it.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Kind of its objects.
    pub kind: &'a str,
    /// Name in paths.
    pub plural: &'a str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The schema of its objects; none is shown as any object.
    pub schema: Option<&'a Schema>,
    /// Whether `status` is a subresource.
    pub status: bool,
    /// Whether `scale` is a subresource.
    pub scale: bool,
}

/// Where the document of a group and version is, below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The answer of `/openapi/v3`: every group and version with the [`fingerprint`] of its document,
/// so that clients may keep it for ever.
pub fn index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str, String)>) -> Value {
    let paths: Map<String, Value> = documents
        .into_iter()
        .map(|(group, version, fingerprint)| {
            let path = path(group, version);
            let url = format!("/openapi/v3/{path}?hash={fingerprint}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// A text that changes when the document would, made without making the document.
pub fn fingerprint(group: &str, version: &str, resources: &[Served<'_>]) -> String {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), group, version).hash(&mut hasher);
    for resource in resources {
        let schema = resource.schema.map(Schema::fingerprint);
        (resource.kind, resource.plural, resource.namespaced, schema, resource.status, resource.scale)
            .hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

/// The document of a group and version.
pub fn document(group: &str, version: &str, resources: &[Served<'_>]) -> Value {
    let mut components = Components::new(group, version);
    let mut paths = Map::new();
    for resource in resources {
        let schema = components.object(resource);
        paths::add(&mut paths, group, version, resource, &schema);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34"},
        "paths": paths,
        "components": {"schemas": components.into_schemas()},
    })
}

#[cfg(test)]
mod tests;
