//! Labels and annotations of mesh objects.

use serde_json::Value;

use super::Candidate;
use super::field::Report;
use crate::labels;

/// Judges what is not in the spec.
pub(super) fn check(object: &Candidate<'_>, report: &Report) {
    if let Some(value) = object.annotations.get(labels::DRY_RUN) {
        dry_run(object, value, report);
    }
    for key in INTERNAL.iter().filter(|key| object.annotations.contains_key(**key)) {
        report.error(|| {
            format!("metadata.annotations[{key:?}]: expected absent, it marks objects that the control plane makes")
        });
    }
    let checks: [Advice; 3] = [
        (labels::TRAFFIC_DISTRIBUTION, is_distribution, "PreferClose, PreferSameZone, PreferSameNode or Any"),
        ("istio.io/use-waypoint-canary-weight", is_weight, "a whole number from 0 to 100"),
        ("networking.istio.io/enable-autoallocate-ip", is_boolean, "true or false"),
    ];
    for (key, holds, expected) in checks {
        let found = object.annotations.get(key).or_else(|| object.labels.get(key));
        if let Some(value) = found.filter(|value| !holds(value)) {
            report.warn(|| format!("metadata: {key}: {value:?}: expected {expected}; it has no effect"));
        }
    }
}

/// A key, what its value must be, and that in words.
type Advice = (&'static str, fn(&str) -> bool, &'static str);

/// A policy that is only tried out must be one whose effect would have been an answer.
fn dry_run(object: &Candidate<'_>, value: &str, report: &Report) {
    let path = format!("metadata.annotations[{:?}]", labels::DRY_RUN);
    if object.kind != "AuthorizationPolicy" {
        return report.error(|| format!("{path}: expected absent, only an AuthorizationPolicy can be tried out"));
    }
    if !is_boolean(value) {
        report.error(|| format!("{path}: {value:?}: expected true or false"));
    }
    let action = object.spec.get("action").and_then(Value::as_str).unwrap_or("ALLOW");
    if !matches!(action, "ALLOW" | "DENY") {
        report
            .error(|| format!("{path}: expected absent with action {action:?}, only ALLOW and DENY can be tried out"));
    }
}

/// What the annotation parser of the reference takes.
fn is_boolean(value: &str) -> bool {
    let known = ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"];
    known.contains(&value)
}

fn is_distribution(value: &str) -> bool {
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode", "Any"];
    known.iter().any(|known| known.eq_ignore_ascii_case(value))
}

fn is_weight(value: &str) -> bool {
    value.parse::<u8>().is_ok_and(|weight| weight <= 100)
}

const INTERNAL: [&str; 2] = ["internal.istio.io/parents", "internal.istio.io/parent-namespace"];
