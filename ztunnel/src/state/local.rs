//! Workloads, services and policies from a file, for development: the same model as the control plane's, in the words of
//! `config_dump`. Read once at the start.
//!
//! The file becomes the messages that a control plane would have sent, so that everything is checked and means the same.

mod policy;
mod service;
mod workload;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use mesh_wire::{security, workload as wire};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::feed::Feed;
use crate::config::LocalSource;

/// A local file. A field that is not known is an error.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalConfig {
    workloads: Vec<workload::Workload>,
    services: Vec<service::Service>,
    policies: Vec<policy::Policy>,
}

/// Why a local file is not used. The proxy does not start then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The file cannot be read.
    #[error("local configuration {} cannot be read: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not the YAML that is expected; names the field.
    #[error("local configuration: {reason}")]
    Malformed {
        /// What is wrong and where.
        reason: String,
    },
    /// An entry means nothing; all such entries are named.
    #[error("local configuration: {}", reasons.join("; "))]
    Unusable {
        /// `entry: field: what is wrong`, one for each.
        reasons: Vec<String>,
    },
}

impl LocalConfig {
    /// Reads the file or the text.
    ///
    /// # Errors
    /// [`LocalError::Read`] and [`LocalError::Malformed`].
    pub fn load(source: &LocalSource) -> Result<Self, LocalError> {
        match source {
            LocalSource::Inline(text) => Self::parse(text),
            LocalSource::Path(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| LocalError::Read { path: path.clone(), source })?;
                Self::parse(&text)
            }
        }
    }

    /// Reads YAML, of which JSON is a part. An empty text is an empty configuration.
    ///
    /// # Errors
    /// [`LocalError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, LocalError> {
        let malformed = |error: serde_saphyr::Error| LocalError::Malformed { reason: error.to_string() };
        // The file is the operator's own: only its size is bounded, generously.
        let budget = serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: 2 * NODES_MAX, max_total_scalar_bytes: SCALAR_BYTES_MAX };
        let options = serde_saphyr::options! { budget: budget };
        let parsed: Option<Self> = serde_saphyr::from_str_with_options(text, options).map_err(malformed)?;
        Ok(parsed.unwrap_or_default())
    }

    /// Hands everything to `feed` as one change of addresses and one of policies, policies first: a workload must not be
    /// seen before what guards it.
    ///
    /// # Errors
    /// [`LocalError::Unusable`]; what is usable has been applied.
    pub fn apply(&self, feed: &mut Feed) -> Result<(), LocalError> {
        let mut reasons = self.doubles();
        let policies: Vec<(String, security::Authorization)> =
            self.policies.iter().map(|policy| (policy.key(), policy.message())).collect();
        let workloads =
            self.workloads.iter().map(|one| (one.uid.clone(), wire::address::Type::Workload(one.message())));
        let services = self.services.iter().map(|one| (one.key(), wire::address::Type::Service(one.message())));
        let addresses =
            workloads.chain(services).map(|(name, kind)| (name, wire::Address { r#type: Some(kind) })).collect();
        let rejected = feed.policies(policies, &[]).into_iter().chain(feed.addresses(addresses, &[]));
        reasons.extend(rejected.map(|rejection| format!("{}: {}", rejection.name, rejection.reason)));
        if reasons.is_empty() { Ok(()) } else { Err(LocalError::Unusable { reasons }) }
    }

    /// What the file says, for display; defaults are left out.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        prune(&mut shown);
        shown
    }

    /// Of two entries with one key, one would silently win.
    fn doubles(&self) -> Vec<String> {
        let empty = self.workloads.iter().filter(|one| one.uid.is_empty());
        let mut reasons: Vec<_> =
            empty.map(|one| format!("workload {:?}: uid: empty, expected a unique text", one.name)).collect();
        let kinds: [(&str, Vec<String>); 3] = [
            ("workloads", self.workloads.iter().map(|one| one.uid.clone()).collect()),
            ("services", self.services.iter().map(service::Service::key).collect()),
            ("policies", self.policies.iter().map(policy::Policy::key).collect()),
        ];
        for (kind, keys) in kinds {
            let mut seen = BTreeSet::new();
            let doubles = keys.into_iter().filter(|key| !key.is_empty() && !seen.insert(key.clone()));
            reasons.extend(doubles.map(|key| format!("{kind}: {key:?} is there twice")));
        }
        reasons
    }
}

/// Takes out what says nothing.
fn prune(value: &mut Value) {
    let says_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !says_nothing(value));
        }
        // An empty list within a list is a rule or a clause that matches everything.
        Value::Array(values) => values.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Fields and values of a local configuration: about 100,000 workloads.
const NODES_MAX: usize = 4_000_000;
/// Bytes of all values together.
const SCALAR_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests;
