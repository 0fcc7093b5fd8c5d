//! Walking an object and the rules of its schema together.

use kube_cel::{
    KubeCelExt,
    cel::{Context, Program, Value as Cel},
};
use serde_json::Value;

use super::{
    super::{
        error::{FieldError, Path},
        node::{ListType, Node, Type},
    },
    RuleTree,
    compile::Rule,
    cost::STEPS_MAX,
    value::convert,
};

/// Most errors reported for one object.
const ERRORS_MAX: usize = 100;

thread_local! {
    /// All functions; making them takes longer than most rules.
    static FUNCTIONS: Context<'static> = Context::default().with_all();
}

/// Applies a function to one argument.
pub(super) fn apply(function: &str, argument: Cel) -> Option<Cel> {
    FUNCTIONS.with(|functions| {
        let mut scope = functions.new_inner_scope();
        scope.add_variable_from_value("x", argument);
        Program::compile(&format!("{function}(x)")).ok()?.execute(&scope).ok()
    })
}

/// A walk, with what it found and what it may still cost.
pub(super) struct Walk {
    pub(super) errors: Vec<FieldError>,
    steps_left: u64,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { errors: Vec::new(), steps_left: STEPS_MAX }
    }

    pub(super) fn tree(&mut self, tree: &RuleTree, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        if value.is_null() || self.errors.len() >= ERRORS_MAX {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        if !tree.rules.is_empty() {
            self.rules(tree, value, old, path);
        }
        match value {
            Value::Object(fields) => {
                let is_map = tree.node.is_map();
                for (name, child) in fields {
                    let Some(below) = tree.properties.get(name).or(tree.additional.as_deref()) else { continue };
                    let path = if is_map { path.key(name) } else { path.field(name) };
                    self.tree(below, child, old.and_then(|old| old.get(name)), &path);
                }
            }
            Value::Array(items) => {
                let Some(below) = tree.items.as_deref() else { return };
                for (index, item) in items.iter().enumerate() {
                    let before = old.and_then(|old| same_item(&tree.node, old, item));
                    self.tree(below, item, before, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, tree: &RuleTree, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        let due = tree.rules.iter().filter(|rule| !rule.is_transition || old.is_some());
        let mut due = due.peekable();
        if due.peek().is_none() {
            return;
        }
        let errors = FUNCTIONS.with(|functions| {
            let mut scope = functions.new_inner_scope();
            scope.add_variable_from_value("self", convert(&tree.node, value));
            if let Some(old) = old {
                scope.add_variable_from_value("oldSelf", convert(&tree.node, old));
            }
            let mut errors = Vec::new();
            for rule in due {
                let steps = rule.shape.steps([Some(value), old]);
                if steps > self.steps_left {
                    let detail = format!(
                        "validation failed due to running out of cost budget, no further validation rules will be run: {}",
                        rule.name()
                    );
                    errors.push(FieldError::invalid(path, &kind(&tree.node), &detail));
                    break;
                }
                self.steps_left -= steps;
                errors.extend(judge(rule, &scope, &tree.node, path));
            }
            errors
        });
        self.errors.extend(errors);
    }
}

fn judge(rule: &Rule, scope: &Context<'_>, node: &Node, path: &Path<'_>) -> Option<FieldError> {
    let detail = match rule.program.execute(scope) {
        Ok(Cel::Bool(true)) => return None,
        Ok(Cel::Bool(false)) => {
            let said = rule.message_program.as_ref().and_then(|program| match program.execute(scope) {
                Ok(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') => {
                    Some(text.trim().to_owned())
                }
                _ => None,
            });
            let detail =
                said.or_else(|| rule.message.clone()).unwrap_or_else(|| format!("failed rule: {}", rule.text.trim()));
            return Some(refusal(rule, node, path, &detail));
        }
        Ok(other) => format!("the rule gave {:?} rather than a truth value: {}", other.type_of(), rule.name()),
        Err(error) => format!("{error} evaluating rule: {}", rule.name()),
    };
    Some(FieldError::invalid(path, &kind(node), &detail))
}

fn refusal(rule: &Rule, node: &Node, path: &Path<'_>, detail: &str) -> FieldError {
    let path = format!("{path}{}", rule.field_path);
    let path = path.trim_start_matches('.');
    match rule.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::forbidden(path, detail),
        Some("FieldValueRequired") => FieldError::required(path, detail),
        Some("FieldValueDuplicate") => FieldError::duplicate(path, &kind(node)),
        _ => FieldError::invalid(path, &kind(node), detail),
    }
}

impl Rule {
    /// What messages call it.
    fn name(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.text.trim())
    }
}

/// Errors of rules show the type of a value, not the value.
fn kind(node: &Node) -> Value {
    Value::from(match node.kind {
        Type::IntOrString | Type::Any => "object",
        kind => kind.name().unwrap_or_default(),
    })
}

/// The item of a list before the update that is the same as `item`; only lists with keys know.
fn same_item<'o>(list: &Node, old: &'o Value, item: &Value) -> Option<&'o Value> {
    let ListType::Map(keys) = &list.list else { return None };
    old.as_array()?.iter().find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
}
