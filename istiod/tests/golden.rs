//! Golden tests: Kubernetes YAML in, resources out. One folder a topic under `tests/golden`.
//!
//! To add one, make a folder with `input.yaml` (any number of documents; an optional first document of kind
//! `MeshSettings` changes settings, and with `layer7: true` has what waypoints and gateways are told shown; `cluster: ID` at the top of a document makes it one of another cluster) and run `UPDATE_GOLDEN=1 cargo test -p istiod --test golden`; then read
//! `expected.yaml` and keep it if it is what should come out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use istiod::debug::view;
use istiod::source::convert;
use istiod::translate::conditions::{ListenerPart, Parts};
use istiod::translate::l7::redacted;
use istiod::translate::{Condition, Model};
use istiod::world::{Change, Kind, MeshSettings, RemoteChange};
use kube::api::DynamicObject;
use mesh_core::identity::TrustDomain;
use serde_json::{Value, json};

#[test]
fn every_topic() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut topics: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    topics.sort();
    assert!(topics.len() >= 8, "golden topics are missing from {}", folder.display());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut failures = Vec::new();
    for topic in topics {
        let actual = serde_saphyr::to_string(&translate(&topic.join("input.yaml"))).unwrap();
        let file = topic.join("expected.yaml");
        if update {
            std::fs::write(&file, actual).unwrap();
        } else if let Some(difference) = difference(&std::fs::read_to_string(&file).unwrap_or_default(), &actual) {
            failures.push(format!("{}: {difference}", topic.file_name().unwrap().display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn translate(input: &Path) -> Value {
    let text = std::fs::read_to_string(input).unwrap();
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", input.display()));
    let mut model = Model::default();
    let mut broken = BTreeMap::new();
    let mut clusters = BTreeSet::new();
    let show = documents.iter().any(|one| one["kind"] == "MeshSettings" && one["spec"]["layer7"] == true);
    for mut document in documents {
        // Documents of another cluster say so, at the top.
        let cluster = document.as_object_mut().and_then(|fields| fields.remove("cluster"));
        let cluster = cluster.map(|id| Arc::<str>::from(id.as_str().unwrap()));
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "MeshSettings" {
            model.apply(Change::Settings(Arc::new(settings(&document))));
            continue;
        }
        let kind =
            Kind::ALL.into_iter().find(|one| one.name() == kind).unwrap_or_else(|| panic!("unknown kind {kind:?}"));
        let object: DynamicObject = serde_json::from_value(document).unwrap();
        let change = convert::change(kind, object, "default");
        match &change {
            Change::Broken { key, reason, .. } => broken.insert(format!("{} {key}", kind.name()), reason.clone()),
            Change::Partial { object, reason } => {
                broken.insert(format!("{} {}", kind.name(), object.key()), reason.clone())
            }
            _ => None,
        };
        model.apply(match cluster {
            Some(id) => {
                clusters.insert(id.clone());
                Change::Remote(id, Box::new(RemoteChange::Told { epoch: 1, change }))
            }
            None => change,
        });
    }
    for id in clusters {
        model.apply(Change::Remote(id, Box::new(RemoteChange::Complete { epoch: 1 })));
    }
    model.flush();
    let named = |(name, view): (&Arc<str>, Value)| (name.to_string(), view);
    let addresses = model.addresses().iter().map(|(name, one)| named((name, view::address(one))));
    let policies = model.authorizations().iter().map(|(name, one)| named((name, view::authorization(one))));
    let mut statuses: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (target, status) in model.statuses() {
        let all = statuses.entry(format!("{} {}", target.kind.name(), target.key)).or_default();
        all.extend(status.conditions.iter().map(condition));
        all.extend(parts(&status.parts));
    }
    let resources = model.layer7().resources().iter();
    let layer7 =
        resources.map(|(name, one)| (name.to_string(), outline(&redacted(one).unwrap()))).collect::<BTreeMap<_, _>>();
    let mut whole = json!({
        "addresses": addresses.collect::<BTreeMap<_, _>>(),
        "policies": policies.collect::<BTreeMap<_, _>>(),
        "statuses": statuses,
        "broken": broken,
    });
    if show {
        whole["layer7"] = json!(layer7);
    }
    whole
}

fn condition(one: &Condition) -> Value {
    json!({"type": one.type_, "status": one.holds, "reason": one.reason, "message": one.message})
}

/// What is said of parents, ancestors and listeners.
fn parts(parts: &Parts) -> Vec<Value> {
    let conditions = |all: &[Condition]| all.iter().map(condition).collect::<Vec<_>>();
    let listener = |one: &ListenerPart| {
        let kinds: Vec<_> = one.supported_kinds.iter().map(|kind| kind.kind.as_str()).collect();
        json!({"listener": &*one.name, "kinds": kinds, "routes": one.attached_routes, "conditions": conditions(&one.conditions)})
    };
    match parts {
        Parts::None | Parts::Features(_) => Vec::new(),
        Parts::Parents(all) | Parts::Ancestors(all) => all
            .iter()
            .map(|one| json!({"of": one.reference, "by": one.controller, "conditions": conditions(&one.conditions)}))
            .collect(),
        Parts::Gateway(parts) => {
            let addresses = parts.addresses.iter().map(|all| json!({"addresses": all}));
            addresses.chain(parts.listeners.iter().flatten().map(listener)).collect()
        }
        Parts::Listeners(listeners) => listeners.iter().map(listener).collect(),
    }
}

/// The fields of a message that say something, one a line. Certificates are left out.
fn outline(message: &impl std::fmt::Debug) -> Vec<String> {
    let text = format!("{message:#?}");
    let mut lines = Vec::new();
    let mut numbers = 0;
    for line in text.lines().map(|line| line.trim_end_matches(',')) {
        let value = line.split_once(": ").map_or(line, |(_, value)| value).trim();
        numbers = if value == line.trim() && value.bytes().all(|byte| byte.is_ascii_digit()) { numbers + 1 } else { 0 };
        let silent = matches!(value, "" | "None" | "false" | "0.0" | "[]" | "{}" | "\"\"" | "}" | "]" | ")");
        let wrapper = matches!(value, "Some(" | "Resource {") && value == line.trim();
        if !silent && !wrapper && numbers <= BYTES_SHOWN && (value != "0" || numbers > 0) {
            let indent = line.len() - line.trim_start().len();
            lines.push(format!(
                "{:>width$}{}",
                "",
                line.trim_start().replace(": Some(", ":"),
                width = indent.saturating_sub(8) / 4
            ));
        }
    }
    lines
}

/// Longest list of bytes that is shown: an address.
const BYTES_SHOWN: usize = 16;

fn settings(document: &Value) -> MeshSettings {
    let mut settings = MeshSettings::default();
    let spec = &document["spec"];
    if let Some(domain) = spec["trustDomain"].as_str() {
        settings.trust_domain = TrustDomain::new(domain).unwrap();
    }
    if let Some(strict) = spec["l7DenyAtL4"].as_bool() {
        settings.l7_deny_at_l4 = strict;
    }
    if let Some(required) = spec["waypointRequired"].as_str() {
        settings.promises.waypoint_required = serde_json::from_value(required.into()).unwrap();
    }
    if let Some(allow) = spec["implicitWaypointAllow"].as_bool() {
        settings.implicit_waypoint_allow = allow;
    }
    if let Some(rules) = spec.get("serviceEntryVisibility") {
        settings.entry_visibility = serde_json::from_value(rules.clone()).unwrap();
    }
    if let Some(selectors) = spec.get("discoverySelectors") {
        settings.discovery_selectors = serde_json::from_value(selectors.clone()).unwrap();
    }
    if let Some(scopes) = spec.get("serviceScopeConfigs") {
        settings.scopes = serde_json::from_value(scopes.clone()).unwrap();
        settings.multi_network = true;
    }
    settings
}

/// The first line that differs.
fn difference(expected: &str, actual: &str) -> Option<String> {
    if expected == actual {
        return None;
    }
    let mut lines = expected.lines().zip(actual.lines()).enumerate();
    let first = lines.find(|(_, (expected, actual))| expected != actual);
    Some(match first {
        Some((number, (expected, actual))) => format!("line {}: expected {expected:?}, got {actual:?}", number + 1),
        None => format!("{} lines expected, got {}", expected.lines().count(), actual.lines().count()),
    })
}
