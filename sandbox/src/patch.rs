//! The three patch formats of the API, as functions from object and patch to object.
//!
//! Server-side apply is not a patch of an object but a statement about fields: see
//! [`apply`](crate::apply).

mod strategic;

use serde_json::{Map, Value};

pub use self::strategic::strategic;

/// Most operations in one JSON patch. The limit of Kubernetes.
const OPERATIONS_MAX: usize = 10_000;

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch is not a patch of its format. The request is wrong whatever the object is: 400.
    #[error("{reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The patch does not fit this object: 422.
    #[error("the server rejected our request due to an error in our request: {reason}")]
    Unprocessable {
        /// What does not fit.
        reason: String,
    },
}

impl PatchError {
    fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }
}

/// Applies a JSON patch.
///
/// # Errors
///
/// [`PatchError::Malformed`] if the patch is no list of operations, [`PatchError::Unprocessable`]
/// if a path is not there or a test fails.
///
/// # Source
///
/// RFC 6902.
pub fn json(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    if patch.as_array().is_some_and(|operations| operations.len() > OPERATIONS_MAX) {
        return Err(PatchError::malformed(format!(
            "the allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.as_array().map_or(0, Vec::len)
        )));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::malformed(format!("error decoding patch: {error}")))?;
    let mut document = document.clone();
    json_patch::patch(&mut document, &operations)
        .map_err(|error| PatchError::Unprocessable { reason: error.to_string() })?;
    Ok(document)
}

/// Applies a merge patch: objects are merged, null removes, everything else replaces.
///
/// # Errors
///
/// [`PatchError::Malformed`] if the patch is no object: it would replace the whole document.
///
/// # Source
///
/// RFC 7386.
pub fn merge(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::malformed(format!("a merge patch must be a JSON object, got {patch}")));
    };
    let mut document = document.clone();
    merge_fields(&mut document, patch);
    Ok(document)
}

fn merge_fields(document: &mut Value, patch: &Map<String, Value>) {
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(fields) = document else { return };
    for (name, value) in patch {
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(patch) => merge_fields(fields.entry(name.clone()).or_insert(Value::Null), patch),
            value => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
