//! One `PolicyRule`.

use serde_json::{Value, json};

use crate::api::attributes::{Attributes, ResourceSubject, Subject};

/// A rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    paths: Vec<String>,
}

/// The rules of a role.
pub(super) fn read(role: &Value) -> Vec<Rule> {
    let rules = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.map(Rule::of).collect()
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            let items = rule.get(field).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// Whether the rule allows a request.
    pub(super) fn allows(&self, request: &Attributes) -> bool {
        any(&self.verbs, &request.verb)
            && match &request.subject {
                Subject::Path(path) => self.paths.iter().any(|pattern| path_matches(pattern, path)),
                Subject::Resource(subject) => any(&self.groups, &subject.group) && self.allows_object(subject),
            }
    }

    fn allows_object(&self, subject: &ResourceSubject) -> bool {
        let qualified = subject.qualified();
        let resource = self.resources.iter().any(|pattern| {
            let of_any = subject.subresource.as_deref().zip(pattern.strip_prefix("*/"));
            pattern == "*" || *pattern == qualified || of_any.is_some_and(|(found, wanted)| found == wanted)
        });
        // A request that names no object is not one for the objects named here.
        let named = self.names.is_empty() || subject.name.as_ref().is_some_and(|name| self.names.contains(name));
        resource && named
    }

    /// Whether the rule is about resources rather than paths.
    pub(super) fn is_about_resources(&self) -> bool {
        !self.resources.is_empty()
    }

    /// Whether the rule is about paths.
    pub(super) fn is_about_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// `ResourceRule` of the authorization API.
    pub(super) fn resource_rule(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
        if !self.names.is_empty()
            && let Some(fields) = rule.as_object_mut()
        {
            fields.insert("resourceNames".to_owned(), json!(self.names));
        }
        rule
    }

    /// `NonResourceRule` of the authorization API.
    pub(super) fn path_rule(&self) -> Value {
        json!({"verbs": self.verbs, "nonResourceURLs": self.paths})
    }
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path || (path.len() > 1 && path.strip_suffix('/') == Some(pattern)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(verb: &str, group: &str, resource: &str, name: Option<&str>) -> Attributes {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (resource, None),
        };
        let subject = ResourceSubject {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource,
            name: name.map(str::to_owned),
            ..ResourceSubject::default()
        };
        Attributes { verb: verb.to_owned(), subject: Subject::Resource(subject) }
    }

    #[test]
    fn rules_about_resources() {
        let rule = |value: Value| Rule::of(&value);
        let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
        let named =
            rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tls"]}));
        let statuses = rule(json!({"verbs": ["patch"], "apiGroups": ["*"], "resources": ["*/status"]}));
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let cases = [
            (&pods, resource("get", "", "pods", Some("a")), true),
            (&pods, resource("get", "", "pods/log", Some("a")), true),
            (&pods, resource("get", "", "pods/exec", Some("a")), false),
            (&pods, resource("delete", "", "pods", Some("a")), false),
            (&pods, resource("get", "apps", "pods", None), false),
            (&named, resource("get", "", "secrets", Some("tls")), true),
            (&named, resource("get", "", "secrets", Some("other")), false),
            (&named, resource("list", "", "secrets", None), false),
            (&named, resource("create", "", "secrets", None), false),
            (&statuses, resource("patch", "apps", "deployments/status", Some("a")), true),
            (&statuses, resource("patch", "apps", "deployments", Some("a")), false),
            (&all, resource("delete", "x", "pods/exec", None), true),
        ];
        for (rule, request, wanted) in cases {
            assert_eq!(rule.allows(&request), wanted, "{rule:?} {request:?}");
        }
    }

    #[test]
    fn rules_about_paths() {
        let rule = Rule::of(&json!({"verbs": ["get"], "nonResourceURLs": ["/api/*", "/version"]}));
        let path =
            |verb: &str, path: &str| Attributes { verb: verb.to_owned(), subject: Subject::Path(path.to_owned()) };
        assert!(rule.allows(&path("get", "/api/v1")) && rule.allows(&path("get", "/version/")));
        assert!(!rule.allows(&path("get", "/apis")) && !rule.allows(&path("post", "/version")));
        assert!(!rule.allows(&resource("get", "", "pods", None)));
    }
}
