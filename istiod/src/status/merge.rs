//! Statuses of the Gateway API: several controllers write lists of them that the API server takes as a whole, so the new
//! status is made out of the one that is there, and only written over that one. Pure.

use jiff::Timestamp;
use mesh_api::gateway::ParentReference;
use mesh_api::status::Condition as Written;
use mesh_core::names::NamespacedName;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::apply;
use crate::translate::conditions::{Attached, GatewayParts, ListenerPart, Parts, words};
use crate::translate::{Condition, ObjectStatus, StatusTarget};
use crate::world::Kind;

/// Whether statuses of this kind are written in this way.
pub(super) fn applies_to(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::BackendTlsPolicy
            | Kind::TrafficPolicy
            | Kind::Gateway
            | Kind::GatewayClass
            | Kind::ListenerSet
    )
}

/// The fields of the status that have to be replaced, with what; none where the object says what it should. `live` is the
/// status as it is.
pub(super) fn merged(
    target: &StatusTarget,
    wanted: Option<&ObjectStatus>,
    live: &Value,
    now: Timestamp,
) -> Option<Value> {
    let mut fields = Map::new();
    match wanted {
        Some(wanted) => {
            let writer = Writer { generation: wanted.generation, now };
            if !wanted.conditions.is_empty() {
                let own = apply::types(target);
                let conditions = writer.conditions(live.get("conditions"), own, &wanted.conditions);
                fields.insert("conditions".to_owned(), conditions);
            }
            writer.parts(&target.key, live, &wanted.parts, &mut fields);
        }
        // What is not ours (any more) in lists that name their controllers is taken away; the rest belongs to another.
        None => {
            for list in [PARENTS, ANCESTORS] {
                if let Some(entries) = live.get(list.field).and_then(Value::as_array) {
                    let foreign = entries.iter().filter(|one| !list.is_own(one)).cloned().collect();
                    fields.insert(list.field.to_owned(), Value::Array(foreign));
                }
            }
        }
    }
    fields.retain(|name, value| live.get(name) != Some(value) && !(value.is_null() && live.get(name).is_none()));
    (!fields.is_empty()).then_some(Value::Object(fields))
}

/// The patch. It is refused when the object was changed since it was read.
pub(super) fn patch(resource_version: Option<&str>, status: Value) -> Value {
    json!({"metadata": {"resourceVersion": resource_version}, "status": status})
}

/// Every condition of a status, of whatever part.
pub(super) fn all_conditions(live: &Value) -> Vec<Written> {
    let parts = ["parents", "ancestors", "listeners"].into_iter();
    let parts = parts.filter_map(|name| live.get(name)?.as_array()).flatten();
    let lists = parts.chain([live]).filter_map(|part| part.get("conditions")?.as_array());
    lists.flatten().filter_map(|one| serde_json::from_value(one.clone()).ok()).collect()
}

/// A list with entries of several controllers.
#[derive(Clone, Copy)]
struct List {
    field: &'static str,
    reference: &'static str,
    controllers: &'static [&'static str],
    /// The API takes no more entries.
    max: usize,
}

const PARENTS: List =
    List { field: "parents", reference: "parentRef", controllers: &[words::GATEWAY_CONTROLLER], max: 32 };
const ANCESTORS: List = List {
    field: "ancestors",
    reference: "ancestorRef",
    controllers: &[words::GATEWAY_CONTROLLER, words::MESH_CONTROLLER],
    max: 16,
};

impl List {
    fn is_own(self, entry: &Value) -> bool {
        let controller = entry.get("controllerName").and_then(Value::as_str);
        controller.is_some_and(|controller| self.controllers.contains(&controller))
    }

    /// Whether an entry is about this.
    fn is_about(self, entry: &Value, attached: &Attached, object: &NamespacedName) -> bool {
        let reference = entry.get(self.reference).cloned().unwrap_or_default();
        let Ok(reference) = serde_json::from_value::<ParentReference>(reference) else { return false };
        entry.get("controllerName").and_then(Value::as_str) == Some(attached.controller)
            && same_reference(&reference, &attached.reference, object)
    }
}

/// Whether two references mean the same, defaults filled in.
fn same_reference(one: &ParentReference, other: &ParentReference, object: &NamespacedName) -> bool {
    let namespace = |reference: &ParentReference| reference.namespace.clone().unwrap_or(object.namespace.to_string());
    one.group() == other.group()
        && one.kind() == other.kind()
        && namespace(one) == namespace(other)
        && one.name == other.name
        && one.section_name == other.section_name
        && one.port == other.port
}

/// Puts new parts together.
#[derive(Clone, Copy)]
struct Writer {
    generation: i64,
    now: Timestamp,
}

impl Writer {
    fn parts(self, object: &NamespacedName, live: &Value, parts: &Parts, fields: &mut Map<String, Value>) {
        match parts {
            Parts::None => {}
            Parts::Parents(all) => drop(fields.insert("parents".to_owned(), self.list(PARENTS, object, live, all))),
            Parts::Ancestors(all) => {
                fields.insert("ancestors".to_owned(), self.list(ANCESTORS, object, live, all));
            }
            Parts::Gateway(parts) => self.gateway(live, parts, fields),
            Parts::Listeners(parts) => drop(fields.insert("listeners".to_owned(), self.listeners(live, parts))),
            Parts::Features(names) => {
                let features: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
                fields.insert("supportedFeatures".to_owned(), features.into());
            }
        }
    }

    /// Entries of others stay in their places, and so do ours that are still wanted; new ones come behind.
    fn list(self, list: List, object: &NamespacedName, live: &Value, wanted: &[Attached]) -> Value {
        let live = live.get(list.field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut placed = vec![false; wanted.len()];
        let mut entries = Vec::new();
        for entry in live {
            if !list.is_own(entry) {
                entries.push(entry.clone());
                continue;
            }
            let mut candidates = wanted.iter().zip(&mut placed);
            let Some((attached, placed)) =
                candidates.find(|(one, placed)| !**placed && list.is_about(entry, one, object))
            else {
                continue;
            };
            *placed = true;
            let mut entry = entry.clone();
            if let Some(fields) = entry.as_object_mut() {
                let conditions = self.conditions(fields.get("conditions"), ATTACHED_TYPES, &attached.conditions);
                fields.insert("conditions".to_owned(), conditions);
            }
            entries.push(entry);
        }
        let new = wanted.iter().zip(placed).filter(|(_, placed)| !placed);
        let room = list.max.saturating_sub(entries.len());
        entries.extend(new.take(room).map(|(attached, _)| {
            json!({
                list.reference: value(&attached.reference),
                "controllerName": attached.controller,
                "conditions": self.conditions(None, ATTACHED_TYPES, &attached.conditions),
            })
        }));
        Value::Array(entries)
    }

    fn gateway(self, live: &Value, parts: &GatewayParts, fields: &mut Map<String, Value>) {
        if let Some(addresses) = &parts.addresses {
            fields.insert("addresses".to_owned(), value(addresses));
        }
        let listeners = parts.listeners.as_ref().map(|listeners| self.listeners(live, listeners));
        fields.insert("listeners".to_owned(), listeners.unwrap_or_default());
        let sets = (parts.attached_listener_sets > 0).then_some(parts.attached_listener_sets);
        fields.insert("attachedListenerSets".to_owned(), value(&sets));
    }

    /// Entries of listeners that are gone go.
    fn listeners(self, live: &Value, wanted: &[ListenerPart]) -> Value {
        let live = live.get("listeners").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let entry = |part: &ListenerPart| {
            let old = live.iter().find(|one| one.get("name").and_then(Value::as_str) == Some(&*part.name));
            let mut entry = json!({
                "name": &*part.name,
                "attachedRoutes": part.attached_routes,
                "conditions": self.conditions(old.and_then(|one| one.get("conditions")), LISTENER_TYPES, &part.conditions),
            });
            // Left out by some API servers when it is empty, and wanted by others.
            let shown = old.is_some_and(|old| old.get("supportedKinds").is_some());
            if let Some(fields) = entry.as_object_mut()
                && (shown || old.is_none() || !part.supported_kinds.is_empty())
            {
                fields.insert("supportedKinds".to_owned(), value(&part.supported_kinds));
            }
            entry
        };
        Value::Array(wanted.iter().map(entry).collect())
    }

    /// Conditions of others stay; of ours, those that nobody wants go. The order stays.
    fn conditions(self, live: Option<&Value>, own: &[&str], wanted: &[Condition]) -> Value {
        let live = live.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let type_of = |one: &Value| one.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut conditions = Vec::new();
        for one in live {
            let name = type_of(one);
            match wanted.iter().find(|wanted| wanted.type_ == name) {
                Some(wanted) => conditions.push(self.condition(wanted, Some(one))),
                None if own.contains(&name.as_str()) => {}
                None => conditions.push(one.clone()),
            }
        }
        let new = wanted.iter().filter(|wanted| !live.iter().any(|one| type_of(one) == wanted.type_));
        conditions.extend(new.map(|wanted| self.condition(wanted, None)));
        Value::Array(conditions)
    }

    fn condition(self, wanted: &Condition, live: Option<&Value>) -> Value {
        let live = live.and_then(|live| serde_json::from_value::<Written>(live.clone()).ok());
        value(&apply::written(wanted, self.generation, live.as_ref(), self.now))
    }
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// What is said of a route at a parent, or of a policy at an ancestor.
const ATTACHED_TYPES: &[&str] = &[words::ACCEPTED, words::RESOLVED_REFS, words::RESOLVED_WAYPOINTS];
/// What is said of a listener.
const LISTENER_TYPES: &[&str] = &[words::ACCEPTED, words::CONFLICTED, words::PROGRAMMED, words::RESOLVED_REFS];

#[cfg(test)]
mod tests;
