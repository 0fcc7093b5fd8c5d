//! What is applied to an object. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};
use mesh_api::status::Condition as Written;
use serde_json::{Value, json};

use crate::translate::{Condition, ObjectStatus, StatusTarget, conditions::MANAGED};

/// Conditions that the object has now, whoever wrote them; one that cannot be read counts for nothing.
pub(super) fn live(object: &DynamicObject) -> Vec<Written> {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().filter_map(|one| serde_json::from_value(one.clone()).ok()).collect()
}

/// Whether the object says what it should, as far as this field manager goes.
pub(super) fn is_current(target: &StatusTarget, wanted: Option<&ObjectStatus>, live: &[Written]) -> bool {
    types(target).iter().all(|name| {
        let live = live.iter().find(|one| one.type_ == *name);
        let status = wanted.and_then(|status| Some((status, status.conditions.iter().find(|one| one.type_ == *name)?)));
        match (status, live) {
            (None, None) => true,
            (Some((status, condition)), Some(live)) => {
                says(live, condition) && live.observed_generation == observed(status.generation)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    })
}

/// Whether the field manager still owns conditions of types that are not its own (any more).
pub(super) fn owns_other(target: &StatusTarget, object: &DynamicObject) -> bool {
    let entries = object.managed_fields().iter();
    let mut own = entries.filter(|entry| entry.manager.as_deref() == Some(target.manager));
    own.any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let conditions = fields.and_then(|fields| fields.pointer("/f:status/f:conditions")).and_then(Value::as_object);
        let keys = conditions.into_iter().flat_map(|all| all.keys()).filter_map(|key| key.strip_prefix("k:"));
        let mut names =
            keys.filter_map(|key| serde_json::from_str::<Value>(key).ok()?.get("type")?.as_str().map(str::to_owned));
        names.any(|name| !types(target).contains(&name.as_str()))
    })
}

/// The object to apply. Without conditions it releases what the field manager owns.
pub(super) fn patch(
    target: &StatusTarget,
    resource: &ApiResource,
    wanted: Option<&ObjectStatus>,
    live: &[Written],
    now: Timestamp,
) -> Value {
    let mut patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": &*target.key.name, "namespace": &*target.key.namespace},
    });
    if let (Some(status), Some(fields)) = (wanted, patch.as_object_mut()) {
        let old = |one: &Condition| live.iter().find(|live| live.type_ == one.type_);
        let condition = |one: &Condition| written(one, status.generation, old(one), now);
        let conditions: Vec<_> = status.conditions.iter().map(condition).collect();
        fields.insert("status".to_owned(), json!({"conditions": conditions}));
    }
    patch
}

/// Whether a condition says this.
pub(super) fn says(live: &Written, condition: &Condition) -> bool {
    live.status == truth(condition)
        && live.reason.as_deref() == Some(condition.reason)
        && live.message.as_deref() == Some(&condition.message)
}

/// The condition as it is written. The time of the last transition stays while the status does.
pub(super) fn written(condition: &Condition, generation: i64, live: Option<&Written>, now: Timestamp) -> Written {
    let truth = truth(condition);
    let kept = live.filter(|one| one.status == truth).and_then(|one| one.last_transition_time.clone());
    Written {
        type_: condition.type_.to_owned(),
        status: truth.to_owned(),
        reason: Some(condition.reason.to_owned()),
        message: Some(condition.message.clone()),
        last_transition_time: kept.or_else(|| Some(now.strftime("%FT%TZ").to_string())),
        observed_generation: observed(generation),
    }
}

fn truth(condition: &Condition) -> &'static str {
    if condition.holds { "True" } else { "False" }
}

fn observed(generation: i64) -> Option<i64> {
    Some(generation).filter(|generation| *generation != 0)
}

/// Condition types that the field manager writes.
pub(super) fn types(target: &StatusTarget) -> &'static [&'static str] {
    let own = MANAGED.iter().find(|(kind, manager, _)| *kind == target.kind && *manager == target.manager);
    own.map(|(_, _, types)| *types).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Kind;
    use mesh_core::names::NamespacedName;

    fn target() -> StatusTarget {
        StatusTarget {
            kind: Kind::Authorization,
            key: NamespacedName::new("ns", "p"),
            manager: crate::translate::conditions::ZTUNNEL_MANAGER,
        }
    }

    fn status(holds: bool, generation: i64) -> ObjectStatus {
        let condition = Condition { type_: "ZtunnelAccepted", holds, reason: "Accepted", message: "m".into() };
        ObjectStatus::new(generation, vec![condition])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn applied(wanted: &ObjectStatus, live: &[Written], now: Timestamp) -> Vec<Written> {
        let resource = crate::source::resource(Kind::Authorization);
        let patch = patch(&target(), &resource, Some(wanted), live, now);
        serde_json::from_value(patch["status"]["conditions"].clone()).unwrap()
    }

    #[test]
    fn the_transition_time_changes_with_the_status_only() {
        let time = |written: &[Written]| written[0].last_transition_time.clone().unwrap();
        let first = applied(&status(true, 1), &[], at(0));
        assert_eq!(time(&first), "1970-01-01T00:00:00Z");
        let second = applied(&status(true, 2), &first, at(60));
        assert_eq!((time(&second), second[0].observed_generation), (time(&first), Some(2)));
        assert_eq!(time(&applied(&status(false, 2), &first, at(60))), "1970-01-01T00:01:00Z");
    }

    #[test]
    fn only_own_types_are_compared() {
        let wanted = status(true, 1);
        let mut live = applied(&wanted, &[], at(0));
        live.push(Written { type_: "WaypointAccepted".into(), status: "True".into(), ..Written::default() });
        assert!(is_current(&target(), Some(&wanted), &live));
        assert!(!is_current(&target(), Some(&status(true, 2)), &live), "another generation");
        assert!(!is_current(&target(), None, &live), "nobody wants it any more");
        assert!(is_current(&target(), None, &live[1..]));
        assert!(!is_current(&target(), Some(&wanted), &live[1..]), "it is missing");
    }

    #[test]
    fn without_conditions_the_field_manager_lets_go() {
        let resource = crate::source::resource(Kind::Authorization);
        let patch = patch(&target(), &resource, None, &[], at(0));
        assert_eq!(patch.get("status"), None);
        assert_eq!(patch["metadata"]["name"], "p");
    }
}
