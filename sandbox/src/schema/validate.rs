//! Checking values against a schema.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    error::{FieldError, Path},
    format,
    node::{ListType, Node, Type},
    rules::{Bound, Rules},
};

/// Most errors reported for one object, so that a hostile one does not fill the answer.
const ERRORS_MAX: usize = 100;

/// What to be strict about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A custom resource: the schema is the whole truth.
    Custom,
    /// A built-in kind: the generated schema calls fields required that clients leave to the
    /// server, and duplicates in lists are the business of each kind's own rules.
    Builtin,
}

/// Everything about `value` that the schema does not allow.
pub(super) fn validate(root: &Node, value: &Value) -> Vec<FieldError> {
    let mode = if root.definition.is_some() { Mode::Builtin } else { Mode::Custom };
    let mut errors = Vec::new();
    Walk { mode, errors: &mut errors }.node(root, value, &Path::Root);
    errors.truncate(ERRORS_MAX);
    errors
}

struct Walk<'e> {
    mode: Mode,
    errors: &'e mut Vec<FieldError>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        if value.is_null() && node.nullable || self.errors.len() >= ERRORS_MAX {
            return;
        }
        if !has_type(node.kind, value) {
            return self.wrong_type(node, value, path);
        }
        match value {
            Value::Object(fields) => self.object(node, fields, path),
            Value::Array(items) => self.array(node, items, path),
            _ => {}
        }
        if let Some(rules) = &node.rules {
            self.rules(rules, value, path);
        }
    }

    fn wrong_type(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let wanted = node.kind.name().unwrap_or("integer,string");
        let detail = format!("{path} in body must be of type {wanted}: \"{found}\"");
        self.errors.push(FieldError::invalid(path, &Value::from(found), &detail));
    }

    fn object(&mut self, node: &Node, fields: &Map<String, Value>, path: &Path<'_>) {
        for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
            if self.mode == Mode::Custom || must_be_sent(node, name) {
                self.errors.push(FieldError::required(path.field(name), ""));
            }
        }
        let is_map = node.is_map();
        for (name, value) in fields {
            let Some(child) = node.field(name) else { continue };
            let path = if is_map { path.key(name) } else { path.field(name) };
            // The status of built-in kinds is written by controllers, which leave out zeros.
            let in_status = self.mode == Mode::Builtin && matches!(path, Path::Field(Path::Root, "status"));
            let before = self.errors.len();
            self.node(child, value, &path);
            if in_status {
                self.drop_required(before);
            }
        }
    }

    /// Takes back the errors about absent fields since `from`.
    fn drop_required(&mut self, from: usize) {
        let mut index = 0;
        self.errors.retain(|error| {
            index += 1;
            index <= from || !error.reason.starts_with("Required value")
        });
    }

    fn array(&mut self, node: &Node, items: &[Value], path: &Path<'_>) {
        if let Some(child) = &node.items {
            for (index, item) in items.iter().enumerate() {
                self.node(child, item, &path.index(index));
            }
        }
        if self.mode == Mode::Custom {
            self.unique(node, items, path);
        }
    }

    fn unique(&mut self, node: &Node, items: &[Value], path: &Path<'_>) {
        let identity = |item: &Value| match &node.list {
            ListType::Atomic => None,
            ListType::Set => Some(item.clone()),
            ListType::Map(keys) => {
                let keys = keys.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or_default()));
                Some(Value::Object(keys.collect()))
            }
        };
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            if let Some(identity) = identity(item)
                && !seen.insert(identity.to_string())
            {
                self.errors.push(FieldError::duplicate(path.index(index), &identity));
            }
        }
    }

    fn rules(&mut self, rules: &Rules, value: &Value, path: &Path<'_>) {
        if let Some(format) = &rules.format
            && !format::holds(format, value)
        {
            self.invalid(value, path, &format!("must be of type {format}: {value}"));
        }
        if let Some(values) = &rules.values
            && !values.contains(value)
        {
            let known: Vec<String> =
                values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
            self.errors.push(FieldError::not_supported(path, value, known.iter().map(String::as_str)));
        }
        match value {
            Value::String(text) => self.text(rules, text, value, path),
            Value::Number(number) => self.number(rules, number.as_f64().unwrap_or_default(), value, path),
            Value::Array(items) => self.items(rules, items, value, path),
            Value::Object(fields) => self.fields(rules, fields, value, path),
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(rules, value, path);
    }

    fn text(&mut self, rules: &Rules, text: &str, value: &Value, path: &Path<'_>) {
        let length = || text.chars().count() as u64;
        if let Some(max) = rules.length_max
            && length() > max
        {
            self.errors.push(FieldError::too_long(path, usize::try_from(max).unwrap_or(usize::MAX)));
        }
        if let Some(min) = rules.length_min
            && length() < min
        {
            self.invalid(value, path, &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = &rules.pattern
            && !pattern.is_match(text)
        {
            self.invalid(value, path, &format!("should match '{pattern}'"));
        }
    }

    fn number(&mut self, rules: &Rules, number: f64, value: &Value, path: &Path<'_>) {
        let outside = |bound: &Bound, beyond: bool| beyond || (bound.exclusive && number == bound.value);
        if let Some(min) = rules.minimum.filter(|min| outside(min, number < min.value)) {
            let what = if min.exclusive { "greater than" } else { "greater than or equal to" };
            self.invalid(value, path, &format!("should be {what} {}", min.value));
        }
        if let Some(max) = rules.maximum.filter(|max| outside(max, number > max.value)) {
            let what = if max.exclusive { "less than" } else { "less than or equal to" };
            self.invalid(value, path, &format!("should be {what} {}", max.value));
        }
        if let Some(factor) = rules.multiple_of
            && factor != 0.0
            && (number / factor).fract() != 0.0
        {
            self.invalid(value, path, &format!("should be a multiple of {factor}"));
        }
    }

    fn items(&mut self, rules: &Rules, items: &[Value], value: &Value, path: &Path<'_>) {
        let count = items.len() as u64;
        if let Some(max) = rules.items_max.filter(|max| count > *max) {
            self.errors.push(FieldError::too_many(path, items.len(), max));
        }
        if let Some(min) = rules.items_min.filter(|min| count < *min) {
            self.invalid(value, path, &format!("should have at least {min} items"));
        }
        if rules.items_unique {
            let mut seen = HashSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                self.invalid(value, path, "shouldn't contain duplicates");
            }
        }
    }

    fn fields(&mut self, rules: &Rules, fields: &Map<String, Value>, value: &Value, path: &Path<'_>) {
        let count = fields.len() as u64;
        if let Some(max) = rules.properties_max.filter(|max| count > *max) {
            self.errors.push(FieldError::too_many(path, fields.len(), max));
        }
        if let Some(min) = rules.properties_min.filter(|min| count < *min) {
            self.invalid(value, path, &format!("should have at least {min} properties"));
        }
    }

    fn combined(&mut self, rules: &Rules, value: &Value, path: &Path<'_>) {
        for node in &rules.all_of {
            self.node(node, value, path);
        }
        let whole = |detail: &str| FieldError::invalid(path, value, &format!("\"{path}\" {detail}"));
        let holds = |node: &Node| {
            let mut errors = Vec::new();
            Walk { mode: self.mode, errors: &mut errors }.node(node, value, path);
            errors.is_empty()
        };
        let mut found = Vec::new();
        if !rules.any_of.is_empty() && !rules.any_of.iter().any(holds) {
            found.push(whole("must validate at least one schema (anyOf)"));
        }
        if !rules.one_of.is_empty() {
            match rules.one_of.iter().filter(|node| holds(node)).count() {
                1 => {}
                0 => found.push(whole("must validate one and only one schema (oneOf). Found none valid")),
                many => found.push(whole(&format!(
                    "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                ))),
            }
        }
        if rules.not.as_ref().is_some_and(holds) {
            found.push(whole("must not validate the schema (not)"));
        }
        self.errors.append(&mut found);
    }

    fn invalid(&mut self, value: &Value, path: &Path<'_>, what: &str) {
        self.errors.push(FieldError::invalid(path, value, &format!("{path} in body {what}")));
    }
}

/// Whether a required field of a built-in type has to be in the request: lists and times are
/// empty when left out, objects are filled with absent fields, and the group of a reference has a
/// default.
fn must_be_sent(node: &Node, name: &str) -> bool {
    let Some(field) = node.property(name) else { return true };
    let format = field.rules.as_ref().and_then(|rules| rules.format.as_deref());
    match field.kind {
        Type::Array => false,
        Type::Object => field.required.iter().any(|name| must_be_sent(field, name)),
        _ => name != "apiGroup" && format != Some("date-time"),
    }
}

fn has_type(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_whole(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || is_whole(value),
    }
}

/// JSON does not tell 1 from 1.0.
fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

#[cfg(test)]
mod tests;
