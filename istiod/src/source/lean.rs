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
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
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
        "dnsPolicy",
        "enableServiceLinks",
        "env",
        "envFrom",
        "ephemeralContainers",
        "hostIP",
        "hostIPs",
        "image",
        "imagePullPolicy",
        "imagePullSecrets",
        "initContainerStatuses",
        "lastProbeTime",
        "lastTransitionTime",
        "lifecycle",
        "livenessProbe",
        "message",
        "nodeSelector",
        "preemptionPolicy",
        "priority",
        "qosClass",
        "readinessProbe",
        "reason",
        "resources",
        "schedulerName",
        "securityContext",
        "startTime",
        "startupProbe",
        "terminationGracePeriodSeconds",
        "terminationMessagePath",
        "terminationMessagePolicy",
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
        while let Some(key) = map.next_key_seed(Name(self.0))? {
            match key {
                Some(key) if key == "metadata" => metadata = map.next_value_seed(Metadata)?,
                // Objects of one watch are of one kind.
                Some(key) if key != "apiVersion" && key != "kind" => {
                    data.insert(key, map.next_value_seed(Tree(self.0))?);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(DynamicObject { types: None, metadata, data: Value::Object(data) })
    }
}

/// Reads the name of a field; none if the field is left out.
struct Name(Unread);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<String>, E> {
        Ok((!self.0.contains(&name)).then(|| name.to_owned()))
    }
}

/// Reads metadata without the record of who manages which field.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = ObjectMeta;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ObjectMeta, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = ObjectMeta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ObjectMeta, A::Error> {
        ObjectMeta::deserialize(MapAccessDeserializer::new(Unmanaged(map)))
    }
}

/// The fields of metadata but for that record.
struct Unmanaged<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Unmanaged<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.0.next_key_seed(Name(&["managedFields"]))? {
            match name {
                Some(name) => return seed.deserialize(name.into_deserializer()).map(Some),
                None => drop(self.0.next_value::<IgnoredAny>()?),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
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
        while let Some(key) = map.next_key_seed(Name(self.0))? {
            match key {
                Some(key) => drop(values.insert(key, map.next_value_seed(self)?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(values))
    }
}
