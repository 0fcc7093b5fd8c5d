//! Refused applies, in the words of Kubernetes.

use std::fmt;

use super::entries::{Entry, Operation};

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Other managers own fields with other values: 409. Applying with force takes them over.
    #[error("{}", conflict_text(conflicts))]
    Conflict {
        /// The fields and their owners.
        conflicts: Vec<Conflict>,
    },
    /// The request has `managedFields`, which only the server writes: 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSent,
    /// Items of a list cannot be told apart: 422.
    #[error("failed to create typed patch object: {path}: {reason}")]
    Ambiguous {
        /// The list, such as `.spec.ports`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner's name.
    pub manager: String,
    /// How it came to own the field.
    pub operation: Operation,
    /// The version it wrote in.
    pub api_version: String,
    /// The subresource it wrote through.
    pub subresource: Option<String>,
    /// When it last wrote, RFC 3339.
    pub time: Option<String>,
    /// The field, such as `.spec.replicas`.
    pub field: String,
}

impl Conflict {
    pub(super) fn new(owner: &Entry, field: String) -> Self {
        Self {
            manager: owner.manager.clone(),
            operation: owner.operation,
            api_version: owner.api_version.clone(),
            subresource: owner.subresource.clone(),
            time: owner.time.clone(),
            field,
        }
    }

    /// The message of a `FieldManagerConflict` cause, which names the owner.
    pub fn message(&self) -> String {
        format!("conflict with {}", Owner(self))
    }
}

/// An owner as messages name it.
struct Owner<'a>(&'a Conflict);

impl fmt::Display for Owner<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(conflict) = self;
        write!(formatter, "{:?}", conflict.manager)?;
        if let Some(subresource) = &conflict.subresource {
            write!(formatter, " with subresource {subresource:?}")?;
        }
        match conflict.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(formatter, " using {}", conflict.api_version),
        }
    }
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.message(), only.field);
    }
    let mut lines = Vec::new();
    let mut owners: Vec<String> = conflicts.iter().map(|conflict| Owner(conflict).to_string()).collect();
    owners.sort();
    owners.dedup();
    for owner in owners {
        lines.push(format!("conflicts with {owner}:"));
        let of_owner = conflicts.iter().filter(|conflict| Owner(conflict).to_string() == owner);
        lines.extend(of_owner.map(|conflict| format!("- {}", conflict.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
