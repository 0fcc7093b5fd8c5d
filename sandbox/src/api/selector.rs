//! Label and field selectors.

use serde_json::Value;

use super::status::ApiError;

/// Requirements that an object has to meet, all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelRule {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRule {
    path: String,
    equals: bool,
    value: String,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`; `selectable` are the fields that the resource
    /// knows besides `metadata.name` and `metadata.namespace`.
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>, selectable: &[String]) -> Result<Self, ApiError> {
        let labels = labels.map_or(Ok(Vec::new()), parse_labels)?;
        let fields = fields.map_or(Ok(Vec::new()), parse_fields)?;
        let known = |path: &str| {
            path == "metadata.name" || path == "metadata.namespace" || selectable.iter().any(|field| field == path)
        };
        if let Some(rule) = fields.iter().find(|rule| !known(&rule.path)) {
            return Err(ApiError::bad_request(format!("field label not supported: {}", rule.path)));
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The object's name, when the selector asks for exactly one.
    pub(crate) fn name(&self) -> Option<&str> {
        let rule = self.fields.iter().find(|rule| rule.equals && rule.path == "metadata.name")?;
        Some(&rule.value)
    }

    /// Whether the object meets every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|rule| rule.matches(label)) && self.fields.iter().all(|rule| rule.matches(object))
    }
}

impl LabelRule {
    fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| label(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
            Self::In(key, values) => label(key).is_some_and(|found| values.iter().any(|value| value == found)),
            Self::NotIn(key, values) => !label(key).is_some_and(|found| values.iter().any(|value| value == found)),
            Self::Greater(key, bound) => number(key).is_some_and(|found| found > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|found| found < *bound),
        }
    }
}

impl FieldRule {
    fn matches(&self, object: &Value) -> bool {
        (field_text(object, &self.path) == self.value) == self.equals
    }
}

/// The text of a field; absent fields are empty.
fn field_text(object: &Value, path: &str) -> String {
    let mut current = object;
    for part in path.trim_start_matches('.').split('.') {
        match current.get(part) {
            Some(next) => current = next,
            None => return String::new(),
        }
    }
    match current {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldRule>, ApiError> {
    let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let split = (term.split_once("!=").map(|pair| (pair, false)))
                .or_else(|| term.split_once("==").map(|pair| (pair, true)))
                .or_else(|| term.split_once('=').map(|pair| (pair, true)));
            let Some(((path, value), equals)) = split else {
                let message = format!("invalid field selector {term:?}: wanted field=value or field!=value");
                return Err(ApiError::bad_request(message));
            };
            Ok(FieldRule { path: path.trim().to_owned(), equals, value: value.trim().to_owned() })
        })
        .collect()
}

fn parse_labels(text: &str) -> Result<Vec<LabelRule>, ApiError> {
    split_terms(text).into_iter().filter(|term| !term.is_empty()).map(parse_label).collect()
}

/// Splits at commas that are not inside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.extend(text.get(start..at).map(str::trim));
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.extend(text.get(start..).map(str::trim));
    terms
}

fn parse_label(term: &str) -> Result<LabelRule, ApiError> {
    let bad = || ApiError::bad_request(format!("unable to parse label selector requirement {term:?}"));
    if let Some(key) = term.strip_prefix('!') {
        return Ok(LabelRule::Absent(label_key(key).ok_or_else(bad)?));
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = term.split_once(operator) {
            let (key, value) = (label_key(key).ok_or_else(bad)?, label_value(value).ok_or_else(bad)?);
            let values = vec![value];
            return Ok(if negated { LabelRule::NotIn(key, values) } else { LabelRule::In(key, values) });
        }
    }
    for (operator, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = term.split_once(operator) {
            let key = label_key(key).ok_or_else(bad)?;
            let bound = value.trim().parse().map_err(|_| bad())?;
            return Ok(if greater { LabelRule::Greater(key, bound) } else { LabelRule::Less(key, bound) });
        }
    }
    let Some((key, rest)) = term.split_once(char::is_whitespace) else {
        return Ok(LabelRule::Exists(label_key(term).ok_or_else(bad)?));
    };
    let key = label_key(key).ok_or_else(bad)?;
    let (operator, list) = rest.split_once('(').ok_or_else(bad)?;
    let list = list.trim_end().strip_suffix(')').ok_or_else(bad)?;
    let values = list.split(',').map(label_value).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
    match operator.trim() {
        "in" => Ok(LabelRule::In(key, values)),
        "notin" => Ok(LabelRule::NotIn(key, values)),
        _ => Err(bad()),
    }
}

fn label_key(text: &str) -> Option<String> {
    let text = text.trim();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    (!text.is_empty() && text.chars().all(allowed)).then(|| text.to_owned())
}

fn label_value(text: &str) -> Option<String> {
    let text = text.trim();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    text.chars().all(allowed).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_requirements() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "gen": "7"}}});
        let cases = [
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("app in (api, web),tier notin (back)", true),
            ("app in (api)", false),
            ("missing notin (a)", true),
            ("gen>6,gen<8", true),
            ("gen>7", false),
            ("istio.io/dataplane-mode notin (none)", true),
            ("", true),
        ];
        for (text, wanted) in cases {
            let selector = Selector::parse(Some(text), None, &[]).unwrap();
            assert_eq!(selector.matches(&object), wanted, "{text}");
        }
        for text in ["app in web", "a b c", "app=we b", "=x", "app like (a)"] {
            assert!(Selector::parse(Some(text), None, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn field_requirements() {
        let object =
            json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "node-1", "unschedulable": true}});
        let selectable = ["spec.nodeName".to_owned(), "spec.unschedulable".to_owned(), "status.phase".to_owned()];
        let cases = [
            ("metadata.name=a", true),
            ("metadata.name=b", false),
            ("spec.nodeName=node-1,metadata.namespace=n", true),
            ("spec.nodeName!=", true),
            ("status.phase=", true),
            ("status.phase!=Running", true),
            ("spec.unschedulable=true", true),
        ];
        for (text, wanted) in cases {
            let selector = Selector::parse(None, Some(text), &selectable).unwrap();
            assert_eq!(selector.matches(&object), wanted, "{text}");
        }
        let error = Selector::parse(None, Some("spec.color=red"), &selectable).unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.color");
    }
}
