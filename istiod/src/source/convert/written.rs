//! Objects that are kept as they were written.

use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::gateway::BackendTLSPolicySpec;
use mesh_api::networking::{ClientTls, ClientTlsMode, DestinationRuleSpec, TrafficPolicy};
use mesh_core::names::NamespacedName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Unreadable, created_s, fields, labels};
use crate::world::{Change, Kind, Labels, Object, Written};

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned + Default"))]
struct Fields<S> {
    #[serde(default)]
    spec: S,
}

/// An object with its specification.
pub(super) fn read<S: DeserializeOwned + Default>(
    key: &NamespacedName,
    mut object: DynamicObject,
) -> Result<Written<S>, Unreadable> {
    let Fields { spec } = fields::<Fields<S>>(&mut object)?;
    Ok(written(key, &object, spec))
}

fn written<S>(key: &NamespacedName, object: &DynamicObject, spec: S) -> Written<S> {
    let told = object.metadata.annotations.iter().flatten().filter(|(name, _)| is_ours(name));
    Written {
        key: key.clone(),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        created_s: created_s(object),
        generation: object.metadata.generation.unwrap_or_default(),
        labels: labels(object),
        annotations: told.map(|(name, value)| (name.as_str(), value.as_str())).collect::<Labels>(),
        spec: Arc::new(spec),
    }
}

/// Annotations of Istio and of the Gateway API.
fn is_ours(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    domain.ends_with("istio.io") || domain.ends_with("gateway.networking.k8s.io")
}

/// Of one that cannot be read the targets stay, and nothing is sent to them: it may have meant TLS.
pub(super) fn backend_tls(key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let document = object.data.clone();
    match fields::<Fields<BackendTLSPolicySpec>>(&mut object) {
        Ok(Fields { spec }) => Change::Upsert(Object::BackendTlsPolicy(written(&key, &object, spec))),
        Err(Unreadable(reason)) => {
            let targets = document.pointer("/spec/targetRefs").and_then(Value::as_array).into_iter().flatten();
            let target_refs: Vec<_> = targets.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect();
            let stand_in = (!target_refs.is_empty()).then(|| {
                let spec = BackendTLSPolicySpec { target_refs, ..BackendTLSPolicySpec::default() };
                Box::new(Object::BackendTlsPolicy(written(&key, &object, spec)))
            });
            Change::Broken { kind: Kind::BackendTlsPolicy, key, generation, reason, stand_in }
        }
    }
}

/// Of one that cannot be read and may have asked for TLS, the host stays, and nothing is sent to it.
pub(super) fn destination_rule(key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let document = object.data.clone();
    match fields::<Fields<DestinationRuleSpec>>(&mut object) {
        Ok(Fields { spec }) => Change::Upsert(Object::DestinationRule(written(&key, &object, spec))),
        Err(Unreadable(reason)) => {
            let host = document.pointer("/spec/host").and_then(Value::as_str);
            let stand_in = host.filter(|_| asks_for_tls(&document)).map(|host| {
                // There is no credential of no name: refused.
                let tls = ClientTls {
                    mode: Some(ClientTlsMode::Mutual),
                    credential_name: Some(String::new()),
                    ..ClientTls::default()
                };
                let policy = TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() };
                let spec = DestinationRuleSpec {
                    host: host.to_owned(),
                    traffic_policy: Some(policy),
                    ..DestinationRuleSpec::default()
                };
                Box::new(Object::DestinationRule(written(&key, &object, spec)))
            });
            Change::Broken { kind: Kind::DestinationRule, key, generation, reason, stand_in }
        }
    }
}

/// Whether there is a TLS block anywhere.
fn asks_for_tls(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| name == "tls" || asks_for_tls(value)),
        Value::Array(items) => items.iter().any(asks_for_tls),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "x/v1", "kind": kind, "spec": spec,
            "metadata": {
                "name": "one", "namespace": "ns", "generation": 2,
                "annotations": {"istio.io/ignore-policy-attachment": "true", "kubectl.kubernetes.io/last": "{}"},
            },
        }))
        .unwrap()
    }

    fn read(kind: Kind, spec: Value) -> Change {
        super::super::change(kind, object(kind.name(), spec), "default")
    }

    #[test]
    fn only_annotations_of_the_mesh_are_kept() {
        let Change::Upsert(Object::VirtualService(one)) = read(Kind::VirtualService, json!({"hosts": ["a"]})) else {
            panic!("not read")
        };
        assert_eq!(one.annotations.iter().count(), 1);
        assert_eq!((one.generation, one.spec.hosts.as_slice()), (2, ["a".to_owned()].as_slice()));
    }

    #[test]
    fn an_unreadable_policy_for_tls_still_names_what_must_not_be_called_in_the_clear() {
        let spec =
            json!({"targetRefs": [{"group": "", "kind": "Service", "name": "web"}, {"name": 7}], "validation": 7});
        let Change::Broken { stand_in: Some(one), .. } = read(Kind::BackendTlsPolicy, spec) else { panic!("read") };
        assert!(matches!(*one, Object::BackendTlsPolicy(one) if one.spec.target_refs.len() == 1));
        let spec = json!({"host": "web", "trafficPolicy": {"tls": {"mode": 7}}});
        let Change::Broken { stand_in: Some(one), .. } = read(Kind::DestinationRule, spec) else { panic!("read") };
        assert!(matches!(*one, Object::DestinationRule(one) if one.spec.host == "web"));
        let spec = json!({"host": "web", "subsets": 7});
        assert!(matches!(read(Kind::DestinationRule, spec), Change::Broken { stand_in: None, .. }));
    }
}
