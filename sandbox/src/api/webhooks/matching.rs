//! Which requests a webhook is asked about.

use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;
use serde_json::Value;

use super::{Admission, hook::Hook};
use crate::api::{scale::selector_text, selector::Selector};

/// The version in which a webhook wants to see an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) version: String,
}

impl Matched {
    /// An object in the version of the webhook.
    pub(super) fn present(&self, admission: &Admission<'_>, value: &Value) -> Value {
        admission.at.resource.present(value, &self.version)
    }

    /// The way back to the version of the request.
    pub(super) fn back(&self, admission: &Admission<'_>, value: &Value) -> Value {
        admission.at.resource.present(value, &admission.at.version.name)
    }
}

/// Whether a webhook is to be asked, and in which version; `namespace` is the object's namespace.
pub(super) fn matches(
    hook: &Hook,
    admission: &Admission<'_>,
    value: Option<&Value>,
    namespace: Option<&Value>,
) -> Option<Matched> {
    let matched = rule_version(hook, admission)?;
    let is_namespace = admission.at.resource.key.as_str() == "namespaces";
    // A namespace is judged by its own labels, other objects outside namespaces always match.
    let labelled = if is_namespace { value.or(admission.old) } else { namespace };
    let in_namespace = labelled.is_none_or(|object| selects(hook.namespace_selector.as_ref(), object));
    let objects = [value, admission.old];
    let of_object = objects.into_iter().flatten().any(|object| selects(hook.object_selector.as_ref(), object));
    (in_namespace && of_object).then_some(matched)
}

fn rule_version(hook: &Hook, admission: &Admission<'_>) -> Option<Matched> {
    let resource = admission.at.resource;
    let requested = &admission.at.version.name;
    let others = resource.versions.iter().map(|version| &version.name).filter(|name| *name != requested);
    let candidates = std::iter::once(requested).chain(others.filter(|_| hook.equivalent));
    candidates
        .into_iter()
        .find(|version| hook.rules.iter().any(|rule| rule_covers(rule, admission, version)))
        .map(|version| Matched { version: version.clone() })
}

fn rule_covers(rule: &RuleWithOperations, admission: &Admission<'_>, version: &str) -> bool {
    let resource = admission.at.resource;
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => resource.namespaced,
        Some("Cluster") => !resource.namespaced,
        _ => true,
    };
    scope
        && names(&rule.operations, admission.operation)
        && names(&rule.api_groups, &resource.group)
        && names(&rule.api_versions, version)
        && rule.resources.iter().flatten().any(|pattern| covers(pattern, &resource.plural, admission.subresource))
}

fn names(list: &Option<Vec<String>>, wanted: &str) -> bool {
    list.iter().flatten().any(|name| name == "*" || name == wanted)
}

/// `pods`, `pods/status`, `pods/*`, `*/status`, `*` (no subresources) and `*/*`.
fn covers(pattern: &str, plural: &str, subresource: Option<&str>) -> bool {
    let (wanted, sub) = match pattern.split_once('/') {
        Some((wanted, sub)) => (wanted, Some(sub)),
        None => (pattern, None),
    };
    let right_sub = match (sub, subresource) {
        (Some("*"), _) | (None, None) => true,
        (Some(wanted), Some(found)) => wanted == found,
        _ => false,
    };
    (wanted == "*" || wanted == plural) && right_sub
}

fn selects(selector: Option<&Value>, object: &Value) -> bool {
    let Some(selector) = selector else { return true };
    // What cannot be read matches, so that the webhook is asked rather than left out.
    Selector::parse(Some(&selector_text(selector)), None, &[]).map_or(true, |selector| selector.matches(object))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn resource_patterns() {
        let cases = [
            ("pods", "pods", None, true),
            ("pods", "pods", Some("status"), false),
            ("pods/status", "pods", Some("status"), true),
            ("pods/*", "pods", Some("status"), true),
            ("pods/*", "pods", None, true),
            ("*", "pods", None, true),
            ("*", "pods", Some("status"), false),
            ("*/*", "pods", Some("status"), true),
            ("*/status", "pods", Some("status"), true),
            ("*/scale", "pods", Some("status"), false),
            ("services", "pods", None, false),
        ];
        for (pattern, plural, sub, wanted) in cases {
            assert_eq!(covers(pattern, plural, sub), wanted, "{pattern} {plural} {sub:?}");
        }
    }
}
