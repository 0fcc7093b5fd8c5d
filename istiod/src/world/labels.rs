//! Labels and selectors over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// A small sorted map of labels. Also the form of an equality selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(have, _)| (**have).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Whether every entry of `selector` is here with the same value.
    pub fn contains(&self, selector: &Labels) -> bool {
        selector.0.iter().all(|(key, value)| self.get(key) == Some(value))
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every label, by key.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let sorted: BTreeMap<Arc<str>, Arc<str>> =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

/// A Kubernetes label selector; everything in it must hold, and an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that must be present with that value.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a [`Selector`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenRequirement")]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How its value is judged.
    pub operator: Operator,
    /// Values for `In` and `NotIn`.
    pub values: Vec<String>,
}

/// A [`Requirement`] that may say too little or too much.
#[derive(Deserialize)]
struct WrittenRequirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

impl TryFrom<WrittenRequirement> for Requirement {
    type Error = String;

    fn try_from(written: WrittenRequirement) -> Result<Self, String> {
        let WrittenRequirement { key, operator, values } = written;
        let takes_values = matches!(operator, Operator::In | Operator::NotIn);
        match (takes_values, values.is_empty()) {
            (true, true) => Err(format!("values of {key:?} are empty: operator {operator:?} expects one or more")),
            (false, false) => Err(format!("values of {key:?} are {values:?}: operator {operator:?} expects none")),
            (_, _) => Ok(Self { key, operator, values }),
        }
    }
}

/// How a [`Requirement`] judges a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// Present with one of the values.
    In,
    /// Absent, or present with none of the values.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        let equal = self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        equal && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_their_entries() {
        let labels: Labels = [("app", "web"), ("tier", "front")].into_iter().collect();
        let selected = |text: &str| serde_json::from_str::<Selector>(text).unwrap().matches(&labels);
        assert!(selected("{}"));
        assert!(selected(r#"{"matchLabels":{"app":"web"}}"#));
        assert!(!selected(r#"{"matchLabels":{"app":"db"}}"#));
        assert!(selected(r#"{"matchExpressions":[{"key":"app","operator":"In","values":["db","web"]}]}"#));
        assert!(!selected(r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#));
        assert!(selected(r#"{"matchExpressions":[{"key":"x","operator":"NotIn","values":["web"]}]}"#));
        assert!(selected(r#"{"matchExpressions":[{"key":"tier","operator":"Exists"}]}"#));
        assert!(!selected(r#"{"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#));
        for bad in [r#"{"key":"a","operator":"NotIn"}"#, r#"{"key":"a","operator":"Exists","values":["b"]}"#] {
            let read = serde_json::from_str::<Selector>(&format!(r#"{{"matchExpressions":[{bad}]}}"#));
            assert!(read.unwrap_err().to_string().contains("values of \"a\""));
        }
    }
}
