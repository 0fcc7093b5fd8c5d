//! Rules about values: everything in a schema that is not shape.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::node::Node;

/// A lower or upper bound of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The bound.
    pub value: f64,
    /// Whether the bound itself is outside.
    pub exclusive: bool,
}

/// Rules about values. Each applies only to values of its type.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `format`, such as `int32` or `date-time`.
    pub format: Option<Arc<str>>,
    /// The only values allowed.
    pub values: Option<Vec<Value>>,
    /// `pattern` of a text.
    pub pattern: Option<Regex>,
    /// `minimum`.
    pub minimum: Option<Bound>,
    /// `maximum`.
    pub maximum: Option<Bound>,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
    /// `minLength` in characters.
    pub length_min: Option<u64>,
    /// `maxLength` in characters.
    pub length_max: Option<u64>,
    /// `minItems`.
    pub items_min: Option<u64>,
    /// `maxItems`.
    pub items_max: Option<u64>,
    /// `uniqueItems`.
    pub items_unique: bool,
    /// `minProperties`.
    pub properties_min: Option<u64>,
    /// `maxProperties`.
    pub properties_max: Option<u64>,
    /// Every one of these must hold.
    pub all_of: Vec<Node>,
    /// At least one of these must hold.
    pub any_of: Vec<Node>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Node>,
    /// This must not hold.
    pub not: Option<Node>,
}
