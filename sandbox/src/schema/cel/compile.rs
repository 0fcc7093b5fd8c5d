//! From the text of a rule to a program, with everything refused that could only fail later.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use kube_cel::cel::Program;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        error::{FieldError, Path, SchemaError},
        node::Node,
    },
    cost::Shape,
    typing,
};

/// Longest rule or message expression, in bytes.
const RULE_BYTES_MAX: usize = 8 * 1024;
/// Rules in one place.
const RULES_MAX: usize = 128;
/// Deepest nesting of brackets in a rule: the parser works recursively.
const NESTING_MAX: usize = 64;
/// Programs kept so that a text that occurs again is not parsed again.
const PROGRAMS_KEPT_MAX: usize = 4096;

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) program: Arc<Program>,
    pub(super) shape: Shape,
    pub(super) message: Option<String>,
    pub(super) message_program: Option<Arc<Program>>,
    pub(super) reason: Option<String>,
    /// Appended to the path in errors.
    pub(super) field_path: String,
    /// Compares with the object before: evaluated for updates only.
    pub(super) is_transition: bool,
}

/// A rule as a schema holds it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    rule: String,
    message: Option<String>,
    message_expression: Option<String>,
    reason: Option<String>,
    field_path: Option<String>,
    optional_old_self: Option<bool>,
}

/// Compiles the rules of one node.
pub(super) fn rules(node: &Arc<Node>, path: &Path<'_>, correlatable: bool) -> Result<Vec<Rule>, SchemaError> {
    let Some(written) = &node.validations else { return Ok(Vec::new()) };
    let path = path.field("x-kubernetes-validations");
    let list = written.as_array().ok_or_else(|| FieldError::invalid(path, written, "must be a list"))?;
    if list.len() > RULES_MAX {
        return Err(FieldError::too_many(path, list.len(), RULES_MAX as u64).into());
    }
    list.iter().enumerate().map(|(index, entry)| rule(node, entry, &path.index(index), correlatable)).collect()
}

fn rule(node: &Arc<Node>, entry: &Value, path: &Path<'_>, correlatable: bool) -> Result<Rule, SchemaError> {
    let written: Written =
        serde_json::from_value(entry.clone()).map_err(|error| FieldError::invalid(path, entry, &error.to_string()))?;
    if written.optional_old_self.is_some() {
        let detail = "the sandbox does not serve optionalOldSelf";
        return Err(FieldError::forbidden(path.field("optionalOldSelf"), detail).into());
    }
    let reason = written.reason.filter(|reason| !reason.is_empty());
    if let Some(reason) = reason.as_ref().filter(|reason| !REASONS.contains(&reason.as_str())) {
        return Err(FieldError::not_supported(path.field("reason"), &Value::from(reason.as_str()), REASONS).into());
    }
    let rule_path = path.field("rule");
    if written.rule.trim().is_empty() {
        return Err(FieldError::required(rule_path, "rule is not specified").into());
    }
    let program = checked(node, &written.rule, &rule_path)?;
    let is_transition = program.references().has_variable("oldSelf");
    if is_transition && !correlatable {
        let detail = "oldSelf cannot be used on the uncorrelatable portion of the schema";
        return Err(FieldError::invalid(rule_path, &Value::from(written.rule), detail).into());
    }
    let message_path = path.field("messageExpression");
    let message_program = match &written.message_expression {
        Some(text) if !text.trim().is_empty() => Some(checked(node, text, &message_path)?),
        _ => None,
    };
    if written.message.as_ref().is_some_and(|message| message.contains('\n')) {
        let found = Value::from(written.message);
        return Err(FieldError::invalid(path.field("message"), &found, "message must not contain line breaks").into());
    }
    let field_path = match &written.field_path {
        Some(text) if !text.is_empty() => below(node, text, &path.field("fieldPath"))?,
        _ => String::new(),
    };
    Ok(Rule {
        shape: Shape::of(&program),
        text: written.rule,
        program,
        message: written.message.map(|message| message.trim().to_owned()).filter(|message| !message.is_empty()),
        message_program,
        reason,
        field_path,
        is_transition,
    })
}

/// The reasons a rule may give.
const REASONS: [&str; 4] = ["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"];

/// A program that names only what there is.
fn checked(node: &Arc<Node>, text: &str, path: &Path<'_>) -> Result<Arc<Program>, SchemaError> {
    let invalid = |detail: String| SchemaError::from(FieldError::invalid(path, &Value::from(text), &detail));
    let program = program(text).map_err(|detail| invalid(format!("compilation failed: {detail}")))?;
    match typing::check(node, program.expression()) {
        Ok(()) => Ok(program),
        Err(detail) => Err(invalid(format!("compilation failed: ERROR: {detail}"))),
    }
}

static PROGRAMS: LazyLock<Mutex<HashMap<String, Arc<Program>>>> = LazyLock::new(Mutex::default);

fn program(text: &str) -> Result<Arc<Program>, String> {
    if text.len() > RULE_BYTES_MAX {
        return Err(format!("the rule is {} bytes long, at most {RULE_BYTES_MAX} are taken", text.len()));
    }
    let depth = nesting(text);
    if depth > NESTING_MAX {
        return Err(format!("brackets are nested {depth} deep, at most {NESTING_MAX} are taken"));
    }
    let kept = || PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = kept().get(text) {
        return Ok(program.clone());
    }
    let program = Program::compile(text).map(Arc::new).map_err(|error| format!("ERROR: {error}"))?;
    let mut programs = kept();
    if programs.len() >= PROGRAMS_KEPT_MAX {
        programs.clear();
    }
    programs.insert(text.to_owned(), program.clone());
    Ok(program)
}

fn nesting(text: &str) -> usize {
    let mut depth: usize = 0;
    let mut deepest = 0;
    for letter in text.bytes() {
        match letter {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            // Each of these may be one more level of recursion.
            b'!' | b'-' | b'?' => deepest = deepest.max(depth + 1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The path of a field below a node in errors, from a simple JSON path such as `.spec.name` or
/// `['name']`.
fn below(node: &Arc<Node>, text: &str, path: &Path<'_>) -> Result<String, SchemaError> {
    let invalid = |detail: &str| SchemaError::from(FieldError::invalid(path, &Value::from(text), detail));
    let (mut current, mut rest, mut shown) = (node.clone(), text, String::new());
    while !rest.is_empty() {
        let (name, tail) = if let Some(quoted) = rest.strip_prefix("['") {
            quoted.split_once("']").ok_or_else(|| invalid("does not refer to a valid field: a bracket is open"))?
        } else if let Some(plain) = rest.strip_prefix('.') {
            plain.split_at(plain.find(['.', '[']).unwrap_or(plain.len()))
        } else {
            return Err(invalid("does not refer to a valid field: must begin with a dot or a bracket"));
        };
        let Some(child) = current.field(name).cloned() else {
            return Err(invalid(&format!("does not refer to a valid field: there is no {name:?}")));
        };
        shown.push_str(&if current.is_map() { format!("[{name}]") } else { format!(".{name}") });
        (current, rest) = (child, tail);
    }
    Ok(shown)
}
