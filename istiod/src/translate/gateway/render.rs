//! The objects that are made for a Gateway, before any overlay. Pure.

mod pod;
mod service;

use serde_json::{Map, Value, json};

use super::infrastructure::{Infrastructure, Texts};
use super::{Family, Kinds};
use crate::world::short_name::short_name;
use crate::world::{Gateway, World};
pub(crate) use pod::{is_own_port, labels as pod_labels};
pub(crate) use service::{SERVICE_TYPE, STATUS_PORT};

/// A Gateway and what its objects are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Everything known.
    pub(crate) world: &'a World,
    /// The Gateway.
    pub(crate) gateway: &'a Gateway,
    /// Its family.
    pub(crate) family: Family,
    /// Names, labels and annotations.
    pub(crate) infrastructure: &'a Infrastructure,
    /// Ports of the Service beyond the probe's: name, number, application protocol.
    pub(crate) ports: &'a [ServicePort],
}

/// A port of the Service that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Unique name.
    pub(crate) name: String,
    /// Number, of the pod too.
    pub(crate) port: u16,
    /// Protocol of the listener in lower case.
    pub(crate) app_protocol: String,
}

/// The object of a kind.
pub(crate) fn object(frame: &Frame<'_>, kind: Kinds) -> Value {
    match kind {
        Kinds::ServiceAccount => frame.object(kind, Map::new()),
        Kinds::Deployment => frame.object(kind, section("spec", pod::deployment(frame))),
        Kinds::Service => {
            let mut service = frame.object(kind, section("spec", service::spec(frame)));
            if let Some(annotations) = service.pointer_mut("/metadata/annotations").filter(|_| frame.family.inside()) {
                put(annotations, mesh_api::labels::TRAFFIC_DISTRIBUTION, "PreferClose".into());
            }
            service
        }
        Kinds::HorizontalPodAutoscaler => {
            let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": frame.infrastructure.name});
            frame.object(kind, section("spec", json!({"scaleTargetRef": target, "maxReplicas": 1})))
        }
        Kinds::PodDisruptionBudget => {
            frame.object(kind, section("spec", json!({"selector": {"matchLabels": frame.selector()}})))
        }
    }
}

/// Sets a field of an object.
fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

fn section(name: &str, content: Value) -> Map<String, Value> {
    [(name.to_owned(), content)].into_iter().collect()
}

impl Frame<'_> {
    fn object(&self, kind: Kinds, content: Map<String, Value>) -> Value {
        let Infrastructure { name, account, labels, annotations, .. } = self.infrastructure;
        let name = if kind == Kinds::ServiceAccount { account } else { name };
        let mut object = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {
                "name": name,
                "namespace": &*self.gateway.key.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "name": &*self.gateway.key.name,
                    "uid": &*self.gateway.uid,
                }],
            },
        });
        if let Some(fields) = object.as_object_mut() {
            fields.extend(content);
        }
        object
    }

    /// Labels that select the pods.
    pub(crate) fn selector(&self) -> Texts {
        [(mesh_api::labels::GATEWAY_NAME.to_owned(), short_name(&self.gateway.key.name).into_owned())].into()
    }
}
