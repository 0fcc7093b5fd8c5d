//! WasmPlugins, TrafficExtensions and EnvoyFilters: what they are attached to, and whether they may refuse anything.

use kube::api::DynamicObject;
use mesh_api::extensions::{FailStrategy, TrafficExtensionSpec, TrafficMode, TrafficSelector, WasmPluginSpec};
use mesh_api::networking::{ApplyTo, EnvoyFilterSpec, PatchOperation};
use mesh_api::security::TargetRef;
use mesh_core::names::NamespacedName;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::request::readable_targets;
use super::security::selector;
use super::{Unreadable, fields};
use crate::world::{Change, Demand, Extension, Kind, Labels, Object};

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned + Default"))]
struct Fields<S> {
    #[serde(default)]
    spec: S,
}

/// What matters of a specification.
struct Outline {
    targets: Vec<TargetRef>,
    selector: Option<Labels>,
    demand: Demand,
}

/// One that cannot be read may have been any, and guards what it names.
pub(super) fn extension(kind: Kind, key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let made = |outline: Outline| {
        let Outline { targets, selector, demand } = outline;
        Object::Extension(Extension { key: key.clone(), kind, generation, targets: targets.into(), selector, demand })
    };
    let written = object.data.clone();
    let outline = match kind {
        Kind::WasmPlugin => fields::<Fields<WasmPluginSpec>>(&mut object).map(|read| wasm(read.spec)),
        Kind::TrafficExtension => fields::<Fields<TrafficExtensionSpec>>(&mut object).map(|read| traffic(read.spec)),
        _ => fields::<Fields<EnvoyFilterSpec>>(&mut object).map(|read| envoy(read.spec)),
    };
    match outline {
        Ok(outline) => Change::Upsert(made(outline)),
        Err(Unreadable(reason)) => {
            let targets = readable_targets(&written);
            let demand = Demand::Needed { ports: Box::default() };
            let stand_in = (!targets.is_empty()).then(|| Box::new(made(Outline { targets, selector: None, demand })));
            Change::Broken { kind, key, generation, reason, stand_in }
        }
    }
}

fn wasm(spec: WasmPluginSpec) -> Outline {
    Outline {
        targets: spec.target_ref.into_iter().chain(spec.target_refs).collect(),
        selector: selector(spec.selector.as_ref()),
        demand: demand(spec.fail_strategy.unwrap_or_default(), &spec.matches),
    }
}

fn traffic(spec: TrafficExtensionSpec) -> Outline {
    let strategy = spec.wasm.and_then(|wasm| wasm.fail_strategy).unwrap_or_default();
    Outline {
        targets: spec.target_refs,
        selector: selector(spec.selector.as_ref()),
        demand: demand(strategy, &spec.matches),
    }
}

/// A proxy between others is on the side of the server.
fn demand(strategy: FailStrategy, matches: &[TrafficSelector]) -> Demand {
    if strategy == FailStrategy::FailOpen {
        return Demand::Dispensable("as failStrategy FAIL_OPEN asks for");
    }
    let here: Vec<_> = matches.iter().filter(|one| one.mode != Some(TrafficMode::Client)).collect();
    if here.is_empty() && !matches.is_empty() {
        return Demand::Dispensable("since it is only for clients");
    }
    let everywhere = here.iter().any(|one| one.ports.is_empty());
    let ports = here.iter().flat_map(|one| &one.ports).filter_map(|one| u16::try_from(one.number).ok());
    Demand::Needed { ports: if everywhere { Box::default() } else { ports.collect() } }
}

/// What adds a filter to the proxy of something may guard it.
fn envoy(spec: EnvoyFilterSpec) -> Outline {
    let adds = spec.config_patches.iter().any(|one| {
        let filter = matches!(
            one.apply_to,
            Some(ApplyTo::HttpFilter | ApplyTo::NetworkFilter | ApplyTo::ListenerFilter | ApplyTo::ExtensionConfig)
        );
        let operation = one.patch.as_ref().and_then(|patch| patch.operation).unwrap_or_default();
        filter && !matches!(operation, PatchOperation::Remove | PatchOperation::Invalid)
    });
    let demand = match (adds, spec.target_refs.is_empty()) {
        (true, false) => Demand::Needed { ports: Box::default() },
        (false, false) => Demand::Dispensable("since it adds no filter"),
        (_, true) => Demand::Dispensable("since it names no waypoint, gateway or service"),
    };
    Outline { targets: spec.target_refs, selector: None, demand }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(kind: Kind, spec: Value) -> Change {
        let object = serde_json::from_value(json!({
            "apiVersion": "x/v1", "kind": kind.name(), "metadata": {"name": "one", "namespace": "ns"}, "spec": spec,
        }));
        super::super::change(kind, object.unwrap(), "default")
    }

    fn demand_of(kind: Kind, spec: Value) -> Demand {
        match read(kind, spec) {
            Change::Upsert(Object::Extension(one)) => one.demand,
            other => panic!("{other:?}"),
        }
    }

    fn needed(ports: &[u16]) -> Demand {
        Demand::Needed { ports: ports.into() }
    }

    #[test]
    fn a_module_that_may_refuse_is_needed_where_it_would_run() {
        let wasm = |spec: Value| demand_of(Kind::WasmPlugin, spec);
        assert_eq!(wasm(json!({"url": "x"})), needed(&[]));
        assert_eq!(wasm(json!({"url": "x", "failStrategy": "FAIL_RELOAD"})), needed(&[]));
        assert!(matches!(wasm(json!({"url": "x", "failStrategy": "FAIL_OPEN"})), Demand::Dispensable(_)));
        assert!(matches!(wasm(json!({"url": "x", "match": [{"mode": "CLIENT"}]})), Demand::Dispensable(_)));
        let ports =
            json!([{"mode": "CLIENT", "ports": [{"number": 1}]}, {"mode": "SERVER", "ports": [{"number": 80}]}]);
        assert_eq!(wasm(json!({"url": "x", "match": ports})), needed(&[80]));
        let mixed = json!([{"ports": [{"number": 80}]}, {"mode": "SERVER"}]);
        assert_eq!(wasm(json!({"url": "x", "match": mixed})), needed(&[]));
        let extension = |spec: Value| demand_of(Kind::TrafficExtension, spec);
        assert_eq!(extension(json!({"lua": {"inlineCode": "x"}})), needed(&[]));
        assert!(matches!(
            extension(json!({"wasm": {"url": "x", "failStrategy": "FAIL_OPEN"}})),
            Demand::Dispensable(_)
        ));
    }

    #[test]
    fn a_filter_of_envoy_is_needed_where_it_is_added_to_something_that_is_named() {
        let filter = |apply_to: &str, operation: &str, targets: Value| {
            let patch = json!({"applyTo": apply_to, "patch": {"operation": operation, "value": {}}});
            demand_of(Kind::EnvoyFilter, json!({"targetRefs": targets, "configPatches": [patch]}))
        };
        let web = json!([{"group": "", "kind": "Service", "name": "web"}]);
        assert_eq!(filter("HTTP_FILTER", "INSERT_BEFORE", web.clone()), needed(&[]));
        assert_eq!(filter("NETWORK_FILTER", "MERGE", web.clone()), needed(&[]));
        assert!(matches!(filter("HTTP_FILTER", "REMOVE", web.clone()), Demand::Dispensable(_)));
        assert!(matches!(filter("CLUSTER", "MERGE", web), Demand::Dispensable(_)));
        assert!(matches!(filter("HTTP_FILTER", "INSERT_BEFORE", json!([])), Demand::Dispensable(_)));
    }

    #[test]
    fn an_unreadable_one_still_guards_what_it_names() {
        let spec = json!({"targetRefs": [{"kind": "Service", "name": "web"}], "url": 7});
        let Change::Broken { stand_in: Some(stand_in), .. } = read(Kind::WasmPlugin, spec) else { panic!("read") };
        assert!(matches!(*stand_in, Object::Extension(one) if one.guards(Some(80)) && one.targets.len() == 1));
    }
}
