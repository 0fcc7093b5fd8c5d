//! What objects may look like: structural schemas in the Kubernetes dialect, of built-in kinds and
//! of custom resource definitions.
//!
//! A [`Schema`] fills in defaults, drops unknown fields and lists what is wrong with an object.
//! The same tree tells [`patch`](crate::patch) and [`apply`](crate::apply) how lists are merged, and
//! [`openapi`](crate::openapi) what to publish. Everything here is pure.

mod builtin;
mod cel;
mod crd;
mod defaulting;
mod definitions;
mod error;
mod format;
mod list_types;
pub mod metadata;
pub mod names;
mod node;
mod parse;
mod prune;
mod rules;
mod semantics;
mod validate;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use serde_json::Value;

pub use self::{
    builtin::Registry,
    crd::from_crd_version,
    error::{FieldError, Path, SchemaError, aggregate},
    node::{Definition, ListType, Merge, Node, Type},
    rules::{Bound, Rules},
};

/// The schema of one kind in one version.
///
/// Built-in schemas are read on first use, because a server starts with all of them and needs few.
pub struct Schema {
    root: OnceLock<Arc<Node>>,
    source: Source,
}

enum Source {
    Builtin { kind: builtin::Kind, definitions: Arc<definitions::Definitions> },
    Custom { fingerprint: u64, rules: Option<cel::RuleTree> },
}

impl Schema {
    fn builtin(kind: builtin::Kind, definitions: Arc<definitions::Definitions>) -> Self {
        Self { root: OnceLock::new(), source: Source::Builtin { kind, definitions } }
    }

    fn custom(root: Arc<Node>, rules: Option<cel::RuleTree>, fingerprint: u64) -> Self {
        Self { root: OnceLock::from(root), source: Source::Custom { fingerprint, rules } }
    }

    /// The tree that describes a whole object.
    pub fn root(&self) -> &Arc<Node> {
        self.root.get_or_init(|| match &self.source {
            Source::Builtin { kind, definitions } => definitions.root(kind),
            Source::Custom { .. } => unreachable!("custom schemas are made with their root"),
        })
    }

    /// Whether this is the schema of a custom resource.
    pub fn is_custom(&self) -> bool {
        matches!(self.source, Source::Custom { .. })
    }

    /// A number that changes when the schema does, without reading the schema.
    pub fn fingerprint(&self) -> u64 {
        match &self.source {
            Source::Custom { fingerprint, .. } => *fingerprint,
            Source::Builtin { kind, .. } => {
                let mut hasher = DefaultHasher::new();
                (env!("CARGO_PKG_VERSION"), kind.group, kind.version, kind.name).hash(&mut hasher);
                hasher.finish()
            }
        }
    }

    /// Fills in the defaults of the schema and drops nulls of fields that are not nullable, which
    /// mean the same as absent fields.
    pub fn default(&self, object: &mut Value) {
        defaulting::fill(self.root(), object);
    }

    /// Drops fields that the schema does not know, and returns their paths as Kubernetes writes
    /// them in "unknown field" messages.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(self.root(), object)
    }

    /// Everything that is wrong with an object, its metadata included. The object should have been
    /// through [`Schema::default`].
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = validate::validate(self.root(), object);
        if errors.is_empty() {
            errors = metadata::validate(object);
            if let Source::Builtin { kind, .. } = &self.source {
                semantics::validate(kind.name, object, &mut errors);
            }
        }
        errors
    }

    /// What the CEL rules of a definition say about an object that is valid otherwise; `old` is what
    /// it replaces.
    pub fn validate_rules(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        match &self.source {
            Source::Custom { rules: Some(rules), .. } => rules.evaluate(object, old),
            _ => Vec::new(),
        }
    }

    /// Changes that are not allowed. Both objects are valid on their own.
    pub fn validate_update(&self, old: &Value, new: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(old, new);
        if let Source::Builtin { kind, .. } = &self.source {
            semantics::validate_update(kind.name, old, new, &mut errors);
        }
        errors
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Builtin { kind, .. } => write!(formatter, "Schema({}/{} {})", kind.group, kind.version, kind.name),
            Source::Custom { fingerprint, .. } => write!(formatter, "Schema(custom {fingerprint:x})"),
        }
    }
}
