//! Bodies in Kubernetes' protobuf form, which newer client-go based programs (kubectl since 1.32
//! among them) send for built-in kinds.
//!
//! They are turned into the same JSON that other clients send. The field numbers come from one
//! table; a field that is not in it is refused by number, never dropped. Answers are always JSON,
//! which all these clients accept too.

use std::{collections::HashMap, sync::OnceLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What such a body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages. Pod templates in cron jobs reach about 12.
const DEPTH_MAX: usize = 32;

const TABLE: &str = include_str!("protobuf/fields.txt");

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// It is not what it claims to be.
    #[error("the body is not Kubernetes protobuf: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A kind whose fields are not in the table.
    #[error("{api_version} {kind} is not understood in protobuf form, send JSON")]
    Kind {
        /// Its version.
        api_version: String,
        /// Its name.
        kind: String,
    },
    /// A field that is not in the table.
    #[error("field {number} of {message} is not understood in protobuf form, send JSON")]
    Field {
        /// The message.
        message: String,
        /// The field's number.
        number: u64,
    },
}

const fn malformed(what: &'static str) -> ProtobufError {
    ProtobufError::Malformed { what }
}

/// Decodes a body into the object it stands for.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(malformed("the prefix is missing"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = self::text(text)?,
                        (2, Wire::Bytes(text)) => kind = self::text(text)?,
                        _ => return Err(malformed("the type is wrong")),
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            (3, Wire::Bytes([])) | (4, _) => {}
            _ => return Err(malformed("the envelope is wrong")),
        }
    }
    let name = message_name(&api_version, &kind);
    if !table().contains_key(name.as_str()) {
        return Err(ProtobufError::Kind { api_version, kind });
    }
    let mut object = message(&name, raw, 0)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

fn message_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.DeleteOptions".to_owned();
    }
    match api_version.split_once('/') {
        None => format!("core.{kind}"),
        // Only the stable versions are in the table.
        Some((group, "v1")) => format!("{}.{kind}", group.split('.').next().unwrap_or_default()),
        Some(_) => String::new(),
    }
}

/// A field of the table: its JSON name and type.
type Fact = (&'static str, &'static str);

fn table() -> &'static HashMap<&'static str, HashMap<u64, Fact>> {
    static PARSED: OnceLock<HashMap<&'static str, HashMap<u64, Fact>>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let mut words = line.split(' ');
                let name = words.next()?;
                let fields = words.filter_map(|word| {
                    let (number, rest) = word.split_once(':')?;
                    Some((number.parse().ok()?, rest.split_once(':')?))
                });
                Some((name, fields.collect()))
            })
            .collect()
    })
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(malformed("it is nested too deep"));
    }
    let facts = table().get(name).ok_or(malformed("it holds a message of unknown type"))?;
    let mut object = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let Some((json_name, code)) = facts.get(&number).copied() else {
            return Err(ProtobufError::Field { message: name.to_owned(), number });
        };
        if json_name == "-" {
            object.extend(message(code, wire.bytes()?, depth + 1)?);
        } else if let Some(code) = code.strip_prefix('*') {
            let item = value(code, wire, depth)?.unwrap_or_else(|| zero(code));
            if let Value::Array(list) = object.entry(json_name).or_insert_with(|| json!([])) {
                list.push(item);
            }
        } else if let Some(code) = code.strip_prefix('{') {
            let (key, item) = entry(code, wire.bytes()?, depth)?;
            if let Value::Object(map) = object.entry(json_name).or_insert_with(|| json!({})) {
                map.insert(key, item);
            }
        } else if let Some(value) = value(code, wire, depth)? {
            object.insert(json_name.to_owned(), value);
        }
    }
    Ok(object)
}

fn entry(code: &str, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut item) = (String::new(), zero(code));
    for field in Fields(bytes) {
        match field? {
            (1, wire) => key = text(wire.bytes()?)?,
            (2, wire) => item = value(code, wire, depth)?.unwrap_or_else(|| zero(code)),
            _ => return Err(malformed("a map entry is wrong")),
        }
    }
    Ok((key, item))
}

/// What an absent element of a list or map stands for.
fn zero(code: &str) -> Value {
    match code {
        "s" | "y" => json!(""),
        "i" | "z" => json!(0),
        "b" | "f" => json!(false),
        "L" => json!([]),
        "T" | "M" => Value::Null,
        "Q" => json!("0"),
        _ => json!({}),
    }
}

/// A field's value; `None` when it means the same as an absent field.
fn value(code: &str, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(match code {
        "s" => Some(text(wire.bytes()?)?).filter(|text| !text.is_empty()).map(Value::String),
        "b" => Some(json!(wire.number()? != 0)),
        "f" => Some(wire.number()? != 0).filter(|set| *set).map(Value::Bool),
        "i" => Some(json!(wire.number()?)),
        "z" => Some(wire.number()?).filter(|number| *number != 0).map(|number| json!(number)),
        "y" => Some(json!(STANDARD.encode(wire.bytes()?))),
        "T" => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
        "M" => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        "Q" => Some(json!(single_text(wire.bytes()?)?)),
        "O" => Some(number_or_text(wire.bytes()?)?),
        "F" | "R" => raw_json(wire.bytes()?)?,
        "L" => {
            let texts = Fields(wire.bytes()?).map(|field| field.and_then(|(_, wire)| text(wire.bytes()?)));
            Some(json!(texts.collect::<Result<Vec<_>, _>>()?))
        }
        name => Some(Value::Object(message(name, wire.bytes()?, depth + 1)?)),
    })
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a text is not UTF-8"))
}

fn single_text(bytes: &[u8]) -> Result<String, ProtobufError> {
    let mut found = String::new();
    for field in Fields(bytes) {
        found = text(field?.1.bytes()?)?;
    }
    Ok(found)
}

/// Seconds and nanoseconds; the zero time is sent as an empty message.
fn time(bytes: &[u8], format: &str) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for field in Fields(bytes) {
        match field? {
            (1, wire) => seconds = Some(wire.number()?),
            (2, wire) => nanoseconds = wire.number()?,
            _ => return Err(malformed("a time is wrong")),
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| malformed("a time is wrong"))?;
    let time = jiff::Timestamp::new(seconds, nanoseconds).map_err(|_| malformed("a time is out of range"))?;
    Ok(Some(json!(time.strftime(format).to_string())))
}

fn number_or_text(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, wire) => is_text = wire.number()? == 1,
            (2, wire) => number = wire.number()?,
            (3, wire) => string = text(wire.bytes()?)?,
            _ => return Err(malformed("a number or text is wrong")),
        }
    }
    Ok(if is_text { json!(string) } else { json!(number) })
}

fn raw_json(bytes: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let Some(field) = Fields(bytes).next() else { return Ok(None) };
    serde_json::from_slice(field?.1.bytes()?).map(Some).map_err(|_| malformed("embedded JSON is wrong"))
}

/// One value on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(malformed("a field has the wrong type")),
        }
    }

    fn number(self) -> Result<i64, ProtobufError> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) => Err(malformed("a field has the wrong type")),
        }
    }
}

/// The fields of a message in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing behind a broken field makes sense.
            self.0 = &[];
        }
        Some(field.ok_or(malformed("it is cut off or has an unknown wire type")))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, wire))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
