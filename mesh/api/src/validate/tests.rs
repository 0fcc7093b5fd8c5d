//! Every rule as a line: an object in YAML and the message it gets, or none.

mod destination;
mod entry;
mod observed;
mod routes;
mod rows;
mod security;
mod shape;

use super::*;

/// Judges a document in namespace `shop`; the root namespace is `istio-system`.
fn judge(yaml: &str) -> Verdict {
    judge_in(yaml, &Context::default())
}

fn judge_in(yaml: &str, context: &Context) -> Verdict {
    let object: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    judge_value(&object, context)
}

fn judge_value(object: &Value, context: &Context) -> Verdict {
    let (group, _) = object["apiVersion"].as_str().and_then(|text| text.split_once('/')).expect("an apiVersion");
    let map = |key: &str| -> BTreeMap<String, String> {
        serde_json::from_value(object["metadata"][key].clone()).unwrap_or_default()
    };
    let candidate = Candidate {
        group,
        kind: object["kind"].as_str().expect("a kind"),
        namespace: object["metadata"]["namespace"].as_str().unwrap_or("shop"),
        labels: &map("labels"),
        annotations: &map("annotations"),
        spec: &object["spec"],
    };
    validate(&candidate, context).expect("a kind of the mesh")
}

/// An object of a kind from its spec.
fn of(kind: &str, spec: &str) -> String {
    let (group, _) = KINDS.iter().find(|(_, one)| *one == kind).expect("a kind of the mesh");
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: one, namespace: shop}}\nspec:\n{indented}")
}

/// Each spec is rejected with a message that has each part.
fn rejected(kind: &str, rows: &[(&str, &[&str])]) {
    for (spec, parts) in rows {
        let verdict = judge(&of(kind, spec));
        let all = verdict.errors.join("\n");
        assert!(!verdict.errors.is_empty(), "{kind} {spec}: must be rejected, warnings {:?}", verdict.warnings);
        for part in *parts {
            assert!(all.contains(part), "{kind} {spec}: {part:?} is missing from {all}");
        }
    }
}

/// Each spec is accepted without a word.
fn accepted(kind: &str, rows: &[&str]) {
    for spec in rows {
        assert_eq!(judge(&of(kind, spec)), Verdict::default(), "{kind} {spec}");
    }
}

/// Each spec is accepted with a warning that has the part.
fn warned(kind: &str, rows: &[(&str, &str)]) {
    for (spec, part) in rows {
        let verdict = judge(&of(kind, spec));
        assert_eq!(verdict.errors, Vec::<String>::new(), "{kind} {spec}");
        assert!(
            verdict.warnings.join("\n").contains(part),
            "{kind} {spec}: {part:?} is missing from {:?}",
            verdict.warnings
        );
    }
}
