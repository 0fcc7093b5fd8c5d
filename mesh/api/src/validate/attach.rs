//! What a policy applies to: labels of workloads, or objects by name.

use super::field::Fields;
use super::{Input, name, scalar};

/// `selector`, `targetRefs` and `targetRef`: at most one of them, each well formed.
pub(super) fn selector_or_targets(fields: &Fields<'_>, input: &Input<'_>) {
    selector(fields, "selector", "matchLabels");
    targets(fields, input);
    let found: Vec<_> =
        ["selector", "targetRefs", "targetRef"].into_iter().filter(|key| present(fields, key)).collect();
    if found.len() > 1 {
        fields.error(&format!(
            "{} are all set: expected at most one of selector, targetRefs, targetRef",
            found.join(", ")
        ));
    }
}

fn present(fields: &Fields<'_>, key: &'static str) -> bool {
    if key == "targetRefs" { fields.filled(key) } else { fields.has(key) }
}

/// Whether it applies through `targetRefs` or `targetRef`, which node proxies do not enforce.
pub(super) fn is_targeted(fields: &Fields<'_>) -> bool {
    fields.filled("targetRefs") || fields.has("targetRef")
}

/// A selector under `key` whose labels are under `labels`.
pub(super) fn selector(fields: &Fields<'_>, key: &'static str, labels: &'static str) {
    fields.object(key, |selector| {
        if !selector.filled(labels) {
            selector
                .warn(&format!("{labels} is empty: this counts as no selector, so every workload in scope is meant"));
        }
        name::selector(selector, labels);
    });
}

/// `targetRefs` and `targetRef`.
pub(super) fn targets(fields: &Fields<'_>, input: &Input<'_>) {
    fields.objects("targetRefs", 0..=TARGETS_MAX, |target| reference(target, input));
    fields.object("targetRef", |target| {
        target.warn("targetRef is deprecated: use targetRefs");
        reference(target, input);
    });
}

fn reference(target: &Fields<'_>, input: &Input<'_>) {
    target.required("name", name::object_name);
    target.optional("group", scalar::text);
    target.required("kind", scalar::text);
    if target.filled("namespace") {
        target.error("namespace is set: expected none, a policy only applies to objects of its own namespace");
    }
    let (group, kind) = (target.text("group").unwrap_or_default(), target.text("kind").unwrap_or_default());
    if !TARGETS.contains(&(group, kind)) {
        target.error(&format!("{group:?} {kind:?} as group and kind: expected {}", known_targets()));
    }
    if kind == "GatewayClass" && input.object.namespace != input.context.root_namespace {
        target.error(&format!(
            "a GatewayClass in namespace {:?}: expected the policy in the root namespace {:?}",
            input.object.namespace, input.context.root_namespace
        ));
    }
}

fn known_targets() -> String {
    let shown =
        |(group, kind): &(&str, &str)| if group.is_empty() { (*kind).to_owned() } else { format!("{group} {kind}") };
    TARGETS.iter().filter(|(group, _)| *group != "core").map(shown).collect::<Vec<_>>().join(", ")
}

const TARGETS_MAX: usize = 16;
const TARGETS: [(&str, &str); 5] = [
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];
