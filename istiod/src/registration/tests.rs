//! Registrations: who may, what is made, who wins, what goes. The last part runs against an API server in memory.

mod claims;
mod flow;
mod server;
mod steps;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use mesh_wire::discovery::Node;
use prost_types::value::Kind as Told;
use serde_json::{Value, json};

use crate::auth::Caller;
use crate::source::convert;
use crate::translate::Model;
use crate::world::Kind;

/// A node of namespace `a` with this metadata.
fn node(metadata: Value) -> Node {
    let fields = metadata.as_object().unwrap().iter().map(|(name, one)| (name.clone(), value(one))).collect();
    Node {
        id: "sidecar~10.0.0.7~vm1.a~a.svc.cluster.local".into(),
        metadata: Some(prost_types::Struct { fields }),
        ..Node::default()
    }
}

fn value(json: &Value) -> prost_types::Value {
    let kind = match json {
        Value::String(text) => Told::StringValue(text.clone()),
        Value::Object(all) => {
            let fields: BTreeMap<_, _> = all.iter().map(|(name, one)| (name.clone(), value(one))).collect();
            Told::StructValue(prost_types::Struct { fields })
        }
        Value::Array(all) => Told::ListValue(prost_types::ListValue { values: all.iter().map(value).collect() }),
        other => Told::NumberValue(other.as_f64().unwrap_or_default()),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Whoever has proved to be this service account.
fn caller(namespace: &str, account: &str) -> Caller {
    Caller {
        namespace: namespace.into(),
        service_account: account.into(),
        pod: None,
        cluster: None,
        trust_domain: None,
    }
}

/// A group `vms` of namespace `a`.
fn group() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
        "metadata": {"name": "vms", "namespace": "a", "uid": "group-uid", "generation": 1},
        "spec": {
            "metadata": {"labels": {"app": "shop"}, "annotations": {"team": "blue"}},
            "template": {
                "ports": {"http": 8080}, "labels": {"version": "v1"}, "serviceAccount": "vm",
                "locality": "r/z", "weight": 7,
            },
        },
    })
}

fn tell(model: &Arc<RwLock<Model>>, kind: Kind, object: &Value) {
    let object = serde_json::from_value(object.clone()).unwrap();
    let mut model = model.write().unwrap();
    model.apply(convert::change(kind, object, "default"));
    model.flush();
}

fn model(objects: &[(Kind, Value)]) -> Arc<RwLock<Model>> {
    let model = Arc::default();
    objects.iter().for_each(|(kind, object)| tell(&model, *kind, object));
    model
}
