//! RequestAuthentications: only what they are attached to.

use kube::api::DynamicObject;
use mesh_api::security::{TargetRef, WorkloadSelector};
use mesh_core::names::NamespacedName;
use serde::Deserialize;
use serde_json::Value;

use super::security::selector;
use super::{Unreadable, fields, list};
use crate::world::{Change, Kind, Object, RequestAuthentication};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<WorkloadSelector>,
    target_ref: Option<TargetRef>,
    #[serde(deserialize_with = "list")]
    target_refs: Vec<TargetRef>,
}

/// Of one that cannot be read, the targets that can be read stay.
pub(super) fn request(key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let policy = |targets: Box<[TargetRef]>, selector| {
        Object::Request(RequestAuthentication { key: key.clone(), generation, targets, selector })
    };
    let written = object.data.clone();
    match fields::<Fields>(&mut object) {
        Ok(Fields { spec }) => {
            let targets = spec.target_ref.into_iter().chain(spec.target_refs).collect();
            Change::Upsert(policy(targets, selector(spec.selector.as_ref())))
        }
        Err(Unreadable(reason)) => {
            let targets = readable_targets(&written);
            // Without targets it is for all gateways of its namespace.
            let wide = ["/spec/targetRef", "/spec/targetRefs"].into_iter().all(|path| written.pointer(path).is_none());
            let stand_in = (wide || !targets.is_empty()).then(|| Box::new(policy(targets.into(), None)));
            Change::Broken { kind: Kind::Request, key, generation, reason, stand_in }
        }
    }
}

/// The targets of a policy, each read by itself.
pub(super) fn readable_targets(written: &Value) -> Vec<TargetRef> {
    let single = written.pointer("/spec/targetRef");
    let several = written.pointer("/spec/targetRefs").and_then(Value::as_array).into_iter().flatten();
    let read = |one: &Value| serde_json::from_value::<TargetRef>(one.clone()).ok();
    single.into_iter().chain(several).filter_map(read).filter(|one| !one.name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::TargetKind;

    fn read(labels: Value, spec: Value) -> Change {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "jwt", "namespace": "ns", "generation": 3, "labels": labels}, "spec": spec,
        }))
        .unwrap();
        super::super::change(Kind::Request, object, "default")
    }

    fn targets(object: &Object) -> Vec<(TargetKind, String)> {
        let Object::Request(policy) = object else { panic!("{object:?}") };
        policy.targets().map(|one| (one.kind, one.name.to_string())).collect()
    }

    #[test]
    fn what_a_request_authentication_is_attached_to() {
        let spec =
            json!({"targetRefs": [{"kind": "Service", "name": "web", "group": ""}], "jwtRules": [{"issuer": "i"}]});
        let Change::Upsert(object) = read(json!({}), spec.clone()) else { panic!("not read") };
        assert_eq!(targets(&object), [(TargetKind::Service, "web".to_owned())]);
        let foreign = read(json!({"istio.io/rev": "canary"}), spec);
        assert!(matches!(foreign, Change::Tagged { revision, .. } if &*revision == "canary"));
    }

    #[test]
    fn an_unreadable_one_still_guards_what_it_names() {
        let spec = json!({"targetRefs": [{"kind": 7}, {"kind": "Service", "name": "web"}], "selector": 7});
        let Change::Broken { stand_in: Some(stand_in), reason, .. } = read(json!({}), spec) else { panic!("read") };
        assert_eq!(targets(&stand_in), [(TargetKind::Service, "web".to_owned())]);
        assert!(reason.contains("spec."), "{reason}");
        let Change::Broken { stand_in: Some(wide), .. } = read(json!({}), json!({"selector": 7})) else {
            panic!("read, or without effect")
        };
        assert!(targets(&wide).is_empty());
        let nothing = read(json!({}), json!({"targetRefs": 7}));
        assert!(matches!(nothing, Change::Broken { stand_in: None, .. }));
    }
}
