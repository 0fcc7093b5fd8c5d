//! Request bodies: JSON, YAML or Kubernetes' protobuf, bounded, with duplicate fields found.

use std::fmt;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    protobuf::{self, ProtobufError},
    status::ApiError,
};

/// The media types of objects.
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Largest body, in bytes; the limit of kube-apiserver.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A decoded body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decoded {
    /// The value; of a duplicate field the last one.
    pub(crate) value: Value,
    /// Paths of fields that were given twice.
    pub(crate) duplicates: Vec<String>,
}

/// Reads the whole body.
pub(crate) async fn read(body: Body) -> Result<Bytes, ApiError> {
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        use std::error::Error as _;
        let too_large = error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if too_large {
            ApiError::too_large(BODY_BYTES_MAX)
        } else {
            ApiError::bad_request(format!("reading the body: {error}"))
        }
    })
}

/// The media type of a body, without parameters; JSON when not given.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() { "application/json" } else { media_type }
}

/// Decodes an object.
pub(crate) fn decode(headers: &HeaderMap, bytes: &[u8]) -> Result<Decoded, ApiError> {
    match media_type(headers) {
        "application/json" => json(bytes),
        "application/yaml" | "text/yaml" => yaml(bytes),
        protobuf::MEDIA_TYPE => {
            let value = protobuf::decode(bytes).map_err(|error| match error {
                ProtobufError::Malformed { .. } => ApiError::bad_request(error.to_string()),
                _ => ApiError::unsupported_media_type(&error.to_string(), ACCEPTED),
            })?;
            Ok(Decoded { value, duplicates: Vec::new() })
        }
        other => Err(ApiError::unsupported_media_type(other, ACCEPTED)),
    }
}

/// Decodes JSON.
pub(crate) fn json(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Collect { path: String::new(), duplicates: &mut duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?;
    Ok(Decoded { value, duplicates })
}

/// Decodes YAML.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let value = serde_saphyr::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not YAML: {error}")))?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

/// Builds a value and notes the fields that come twice, which `Value` itself would hide.
struct Collect<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match sequence.next_element_seed(Collect { path, duplicates: self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let duplicate = fields.contains_key(&name).then(|| path.clone());
            let value = access.next_value_seed(Collect { path, duplicates: self.duplicates })?;
            self.duplicates.extend(duplicate);
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_found_with_their_path() {
        let decoded = json(br#"{"spec": {"list": [{"a": 1, "a": 2}], "b": 1.5, "b": null}}"#).unwrap();
        assert_eq!(decoded.value, json!({"spec": {"list": [{"a": 2}], "b": null}}));
        assert_eq!(decoded.duplicates, ["spec.list[0].a", "spec.b"]);
    }

    #[test]
    fn trailing_and_broken_text_is_refused() {
        assert!(json(b"{} {}").is_err());
        assert!(json(b"{").is_err());
        assert!(yaml(b"a: [").is_err());
        assert_eq!(yaml(b"a: [1, x]").unwrap().value, json!({"a": [1, "x"]}));
    }
}
