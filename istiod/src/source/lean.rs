//! Objects without the parts that the mesh never reads, left out while they are parsed: two thirds of a pod, most of a
//! node. A list of 50,000 pods is 300 MB of JSON; as trees of values they would be gigabytes of small allocations.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Resource};
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which parts of a kind are left out.
pub(super) trait Parts: Clone + fmt::Debug + Send + Sync + 'static {
    /// Names of fields that are left out, wherever they stand.
    const UNREAD: &'static [&'static str];
}

/// Reads everything.
#[derive(Clone, Debug)]
pub(super) struct Whole;

impl Parts for Whole {
    const UNREAD: &'static [&'static str] = &[];
}

/// Leaves out what only the node is told, and what it tells that the mesh does not ask for.
#[derive(Clone, Debug)]
pub(super) struct OfPod;

impl Parts for OfPod {
    const UNREAD: &'static [&'static str] = &[
        "affinity",
        "args",
        "command",
        "containerStatuses",
        "env",
        "envFrom",
        "ephemeralContainers",
        "imagePullSecrets",
        "initContainerStatuses",
        "lifecycle",
        "livenessProbe",
        "nodeSelector",
        "readinessProbe",
        "resources",
        "securityContext",
        "startupProbe",
        "tolerations",
        "topologySpreadConstraints",
        "volumeDevices",
        "volumeMounts",
        "volumes",
    ];
}

/// Of a node its labels are read.
#[derive(Clone, Debug)]
pub(super) struct OfNode;

impl Parts for OfNode {
    const UNREAD: &'static [&'static str] = &["spec", "status"];
}

/// An object without what [`Parts`] leaves out, and without the record of who manages which field.
#[derive(Clone)]
pub(super) struct Lean<P>(DynamicObject, PhantomData<P>);

impl<P> Lean<P> {
    /// The object.
    pub(super) fn into_object(self) -> DynamicObject {
        self.0
    }
}

impl<P> fmt::Debug for Lean<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<P: Parts> Resource for Lean<P> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(of)
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(of)
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(of)
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::api_version(of)
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

impl<'de, P: Parts> Deserialize<'de> for Lean<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(P::UNREAD)).map(|object| Self(object, PhantomData))
    }
}

impl<P> Serialize for Lean<P> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

type Unread = &'static [&'static str];

struct ObjectVisitor(Unread);

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = DynamicObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DynamicObject, A::Error> {
        let (mut metadata, mut data) = (ObjectMeta::default(), Map::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => {
                    let read = map.next_value_seed(Tree(&["managedFields"]))?;
                    metadata = serde_json::from_value(read).map_err(A::Error::custom)?;
                }
                // Objects of one watch are of one kind.
                "apiVersion" | "kind" => {
                    map.next_value::<IgnoredAny>()?;
                }
                name if self.0.contains(&name) => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    data.insert(key, map.next_value_seed(Tree(self.0))?);
                }
            }
        }
        Ok(DynamicObject { types: None, metadata, data: Value::Object(data) })
    }
}

/// Reads a value without some of its fields.
#[derive(Clone, Copy)]
struct Tree(Unread);

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.0.contains(&key.as_str()) {
                map.next_value::<IgnoredAny>()?;
            } else {
                values.insert(key, map.next_value_seed(self)?);
            }
        }
        Ok(Value::Object(values))
    }
}
