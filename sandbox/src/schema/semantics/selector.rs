//! Label selectors.

use serde_json::Value;

use super::{list, text};
use crate::schema::{
    error::{FieldError, Path},
    metadata, names,
};

/// Adds what is wrong with a `LabelSelector`.
pub(super) fn validate(selector: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(selector) = selector else { return };
    metadata::labels(selector.get("matchLabels"), &path.field("matchLabels"), errors);
    let path = path.field("matchExpressions");
    for (index, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let path = path.index(index);
        let values = list(expression, "values");
        match text(expression, "operator").unwrap_or_default() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(path.field("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(path.field("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(path.field("operator"), &Value::from(other), detail));
            }
        }
        metadata::check(names::qualified, text(expression, "key").unwrap_or_default(), &path.field("key"), errors);
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            let path = path.field("values");
            metadata::check(names::label_value, value, &path.index(index), errors);
        }
    }
}

/// Whether the selector selects everything.
pub(super) fn is_empty(selector: &Value) -> bool {
    selector.get("matchLabels").and_then(Value::as_object).is_none_or(|labels| labels.is_empty())
        && list(selector, "matchExpressions").is_empty()
}

/// Whether the selector matches labels.
pub(super) fn matches(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    equal.into_iter().all(|(key, value)| label(key) == Some(value))
        && list(selector, "matchExpressions").iter().all(|expression| {
            let found = label(text(expression, "key").unwrap_or_default());
            let among = found.is_some_and(|found| list(expression, "values").contains(found));
            match text(expression, "operator").unwrap_or_default() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}
