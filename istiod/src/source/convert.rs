//! Kubernetes objects are reduced at the edge: only what is read enters the world.
//!
//! An object that cannot be read becomes [`Change::Broken`]; it never stops the objects behind it. Of a policy that cannot
//! be read, something stands in that is never weaker.

mod core;
mod entry;
mod gateway;
mod lenient;
mod pod;
mod request;
mod security;
#[cfg(test)]
mod tests;
mod workload_entry;

use kube::api::DynamicObject;
use mesh_core::names::NamespacedName;
use serde::de::DeserializeOwned;

use crate::world::{Change, Kind, Labels, Object};

/// What an object means for the world.
pub fn change(kind: Kind, object: DynamicObject, revision: &str) -> Change {
    let key = key(&object);
    let generation = object.metadata.generation.unwrap_or_default();
    let converted = match kind {
        Kind::Pod => pod::pod(&key, object),
        Kind::Service => core::service(&key, object),
        Kind::Slice => core::slice(&key, object),
        Kind::Namespace => Ok(core::namespace(&key, &object)),
        Kind::Node => Ok(core::node(&key, &object)),
        Kind::Authorization => return security::authorization(key, object, revision),
        Kind::Peer => return security::peer(key, object),
        Kind::ServiceEntry => return entry::entry(key, object),
        Kind::WorkloadEntry => workload_entry::workload_entry(&key, object),
        Kind::Gateway => gateway::gateway(&key, object),
        Kind::GatewayClass => gateway::class(&key, object),
        Kind::Request => return request::request(key, object, revision),
    };
    match converted {
        Ok(Some(object)) => Change::Upsert(object),
        Ok(None) => Change::Delete(kind, key),
        Err(Unreadable(reason)) => Change::Broken { kind, key, generation, reason, stand_in: None },
    }
}

/// Namespace (empty for cluster-wide kinds) and name.
pub fn key(object: &DynamicObject) -> NamespacedName {
    let metadata = &object.metadata;
    NamespacedName::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// Why an object cannot be used; names field and value.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable(String);

/// None: of no interest to the mesh.
type Converted = Result<Option<Object>, Unreadable>;

/// Reads the fields of interest.
fn fields<T: DeserializeOwned>(object: &mut DynamicObject) -> Result<T, Unreadable> {
    serde_path_to_error::deserialize(object.data.take())
        .map_err(|error| Unreadable(format!("{}: {}", error.path(), error.inner())))
}

fn labels(object: &DynamicObject) -> Labels {
    object.metadata.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Creation time in seconds since 1970.
fn created_s(object: &DynamicObject) -> i64 {
    object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()).unwrap_or_default()
}

fn annotation<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// A list field that may be `null`.
fn list<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(<Option<Vec<T>> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}
