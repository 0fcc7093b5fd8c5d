//! Kubernetes objects are reduced at the edge: only what is read enters the world.
//!
//! An object that cannot be read becomes [`Change::Broken`]; it never stops the objects behind it. Of a policy that cannot
//! be read, something stands in that is never weaker.

mod core;
mod entry;
mod extension;
mod gateway;
mod lenient;
mod material;
mod pod;
mod request;
mod security;
#[cfg(test)]
mod tests;
mod workload_entry;
mod written;

use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::de::DeserializeOwned;

use crate::world::{Change, Kind, Labels, Object};

/// What an object means for the world. Configuration that names a revision is that one's affair, or that of whom a tag of
/// the name stands for.
pub fn change(kind: Kind, object: DynamicObject, revision: &str) -> Change {
    let other = other_revision(kind, &object, revision).map(Arc::from);
    let change = Box::new(plain(kind, object));
    match other {
        Some(revision) => Change::Tagged { revision, change },
        None => *change,
    }
}

/// The revision that an object names, if that is not ours: it may still be a tag that stands for ours.
pub fn other_revision<'a>(kind: Kind, object: &'a DynamicObject, revision: &str) -> Option<&'a str> {
    let named = object.metadata.labels.as_ref()?.get(names::REVISION)?;
    (REVISED.contains(&kind) && named != revision).then_some(named)
}

/// The same, whoever is named.
fn plain(kind: Kind, object: DynamicObject) -> Change {
    let key = key(&object);
    let generation = object.metadata.generation.unwrap_or_default();
    let converted = match kind {
        Kind::Pod => pod::pod(&key, object),
        Kind::Service => core::service(&key, object),
        Kind::Slice => core::slice(&key, object),
        Kind::Namespace => Ok(core::namespace(&key, &object)),
        Kind::Node => Ok(core::node(&key, &object)),
        Kind::Authorization => return security::authorization(key, object),
        Kind::Peer => return security::peer(key, object),
        Kind::ServiceEntry => return entry::entry(key, object),
        Kind::WorkloadEntry => workload_entry::workload_entry(&key, object),
        Kind::WorkloadGroup => written::read(&key, object).map(|one| Some(Object::WorkloadGroup(one))),
        Kind::Gateway => gateway::gateway(&key, object),
        Kind::GatewayClass => gateway::class(&key, object),
        Kind::Request => return request::request(key, object),
        Kind::HttpRoute => written::read(&key, object).map(|one| Some(Object::HttpRoute(one))),
        Kind::GrpcRoute => written::read(&key, object).map(|one| Some(Object::GrpcRoute(one))),
        Kind::TlsRoute => written::read(&key, object).map(|one| Some(Object::TlsRoute(one))),
        Kind::TcpRoute => written::read(&key, object).map(|one| Some(Object::TcpRoute(one))),
        Kind::UdpRoute => written::read(&key, object).map(|one| Some(Object::UdpRoute(one))),
        Kind::ReferenceGrant => written::read(&key, object).map(|one| Some(Object::ReferenceGrant(one))),
        Kind::ListenerSet => written::read(&key, object).map(|one| Some(Object::ListenerSet(one))),
        Kind::TrafficPolicy => written::read(&key, object).map(|one| Some(Object::TrafficPolicy(one))),
        Kind::BackendTlsPolicy => return written::backend_tls(key, object),
        Kind::VirtualService => written::read(&key, object).map(|one| Some(Object::VirtualService(one))),
        Kind::DestinationRule => return written::destination_rule(key, object),
        Kind::WasmPlugin | Kind::TrafficExtension | Kind::EnvoyFilter => {
            return extension::extension(kind, key, object);
        }
        Kind::ConfigMap => material::config_map(&key, object).map(|one| Some(Object::ConfigMap(one))),
        Kind::Secret => material::secret(&key, object).map(|one| Some(Object::Secret(one))),
    };
    match converted {
        Ok(Some(object)) => Change::Upsert(object),
        Ok(None) => Change::Delete(kind, key),
        Err(Unreadable(reason)) => Change::Broken { kind, key, generation, reason, stand_in: None },
    }
}

/// Kinds that name a revision.
const REVISED: [Kind; 7] = [
    Kind::Authorization,
    Kind::Request,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::WasmPlugin,
    Kind::TrafficExtension,
    Kind::EnvoyFilter,
];

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
