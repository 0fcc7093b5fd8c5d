//! `x-kubernetes-validations`: rules in CEL, compiled with their schema and evaluated for every write.
//!
//! Only the parts of a schema that hold rules are kept here, so that a schema without rules costs
//! nothing.

mod compile;
mod cost;
mod evaluate;
#[cfg(test)]
mod tests;
mod typing;
mod value;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use self::{compile::Rule, evaluate::Walk};
use super::{
    error::{FieldError, Path, SchemaError},
    node::{ListType, Node},
};

/// The rules of a schema and of everything below it.
#[derive(Debug)]
pub(super) struct RuleTree {
    node: Arc<Node>,
    rules: Vec<Rule>,
    properties: BTreeMap<String, RuleTree>,
    items: Option<Box<RuleTree>>,
    additional: Option<Box<RuleTree>>,
}

impl RuleTree {
    /// Compiles the rules of a schema; `None` when there are none.
    pub(super) fn compile(root: &Arc<Node>, path: &Path<'_>) -> Result<Option<Self>, SchemaError> {
        Self::below(root, path, true)
    }

    /// `correlatable`: whether the values here can be found in the object before an update.
    fn below(node: &Arc<Node>, path: &Path<'_>, correlatable: bool) -> Result<Option<Self>, SchemaError> {
        let rules = compile::rules(node, path, correlatable)?;
        let mut properties = BTreeMap::new();
        let in_properties = path.field("properties");
        for (name, child) in node.properties.iter() {
            if let Some(tree) = Self::below(child, &in_properties.key(name), correlatable)? {
                properties.insert(name.clone(), tree);
            }
        }
        let by_key = correlatable && matches!(node.list, ListType::Map(_));
        let items = match &node.items {
            Some(child) => Self::below(child, &path.field("items"), by_key)?.map(Box::new),
            None => None,
        };
        let additional = match &node.additional {
            Some(child) => Self::below(child, &path.field("additionalProperties"), correlatable)?.map(Box::new),
            None => None,
        };
        let empty = rules.is_empty() && properties.is_empty() && items.is_none() && additional.is_none();
        Ok((!empty).then(|| Self { node: node.clone(), rules, properties, items, additional }))
    }

    /// What the rules say about an object; `old` is the object it replaces.
    pub(super) fn evaluate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut walk = Walk::new();
        walk.tree(self, object, old, &Path::Root);
        walk.errors
    }
}
