//! One document of a file: which object it is.

use kube::api::DynamicObject;
use mesh_core::names::NamespacedName;
use serde_json::Value;

use crate::source::{convert, resource};
use crate::world::{Change, Kind};

/// What a document is.
#[derive(Debug)]
pub(super) enum Document {
    /// An object that we read.
    Object {
        /// Its kind.
        kind: Kind,
        /// Its name.
        key: NamespacedName,
        /// What it means.
        change: Box<Change>,
    },
    /// Of a kind that the mesh does not read, or that another source gives.
    Other(String),
    /// Nobody can say which object it is.
    Unknown(String),
}

/// Every object of a text, with the number of its document, from 1 on. Members of a `List` count as documents.
///
/// # Errors
/// The text is neither YAML nor JSON; tells where.
pub(super) fn documents(text: &str) -> Result<Vec<(usize, Value)>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for (number, mut document) in (1..).zip(documents) {
        let is_list = document.get("kind").and_then(Value::as_str) == Some("List");
        match document.get_mut("items").filter(|_| is_list).map(Value::take) {
            Some(Value::Array(items)) => found.extend(items.into_iter().map(|item| (number, item))),
            _ if document.is_null() => {}
            _ => found.push((number, document)),
        }
    }
    Ok(found)
}

/// Reads a document.
pub(super) fn read(document: Value, kinds: &[Kind], revision: &str) -> Document {
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let (Some(version), Some(name)) = (text("apiVersion"), text("kind")) else {
        return Document::Unknown("apiVersion and kind: expected both".to_owned());
    };
    let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name && resource(*kind).group == group) else {
        return Document::Other(format!("{version} {name} is of no interest to the mesh"));
    };
    if !kinds.contains(&kind) {
        return Document::Other(format!("{name}: this kind is read from the cluster, not from files"));
    }
    let mut object: DynamicObject = match serde_path_to_error::deserialize(document) {
        Ok(object) => object,
        Err(error) => return Document::Unknown(format!("{}: {}", error.path(), error.inner())),
    };
    let metadata = &mut object.metadata;
    if metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Document::Unknown(format!("{name}: metadata.name is missing"));
    }
    // As kubectl does.
    metadata.namespace = match kind {
        Kind::Namespace | Kind::Node | Kind::GatewayClass => None,
        _ => metadata.namespace.take().filter(|one| !one.is_empty()).or_else(|| Some("default".to_owned())),
    };
    let key = convert::key(&object);
    Document::Object { kind, key, change: convert::change(kind, object, revision).into() }
}
