//! From JSON to the values that rules see, guided by the schema.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use kube_cel::cel::{
    Value as Cel,
    objects::{Key, Map},
};
use serde_json::Value;

use super::super::node::{Node, Type};

/// A value as rules see it.
pub(super) fn convert(node: &Node, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(truth) => Cel::Bool(*truth),
        Value::Number(number) => match (node.kind, number.as_i64(), number.as_f64()) {
            (Type::Number, _, Some(real)) => Cel::Float(real),
            (_, Some(whole), _) => Cel::Int(whole),
            // JSON does not tell 1 from 1.0, rules do.
            #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
            (Type::Integer | Type::IntOrString, None, Some(real)) if real.fract() == 0.0 && real.abs() < 9e15 => {
                Cel::Int(real as i64)
            }
            (_, None, real) => number.as_u64().map_or(Cel::Float(real.unwrap_or(f64::NAN)), Cel::UInt),
        },
        Value::String(text) => string(node, text),
        Value::Array(items) => {
            let any = Node::default();
            let item = node.items.as_deref().unwrap_or(&any);
            Cel::List(Arc::new(items.iter().map(|value| convert(item, value)).collect()))
        }
        Value::Object(fields) => {
            let any = Node::default();
            let is_map = node.is_map();
            let entries = fields.iter().map(|(name, value)| {
                let child = node.field(name).map_or(&any, |child| &**child);
                let key = if is_map { name.clone() } else { escaped(name) };
                (Key::String(Arc::new(key)), convert(child, value))
            });
            Cel::Map(Map { map: Arc::new(entries.collect::<HashMap<_, _>>()) })
        }
    }
}

fn string(node: &Node, text: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    let format = node.rules.as_ref().and_then(|rules| rules.format.as_deref());
    match (node.kind, format) {
        (Type::String, Some("byte")) => {
            STANDARD.decode(text).map_or_else(|_| plain(), |bytes| Cel::Bytes(Arc::new(bytes)))
        }
        (Type::String, Some(format @ ("date-time" | "duration"))) => {
            // The same parsers that rules use make the value.
            let function = if format == "duration" { "duration" } else { "timestamp" };
            super::evaluate::apply(function, plain()).unwrap_or_else(plain)
        }
        _ => plain(),
    }
}

/// Words that cannot be identifiers.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name under which rules find a field.
pub(super) fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['_', '.', '-', '/']) {
        return name.to_owned();
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields() {
        let cases = [
            ("plain", "plain"),
            ("namespace", "__namespace__"),
            ("snake_case", "snake_case"),
            ("a__b", "a__underscores__b"),
            ("x-y.z/w", "x__dash__y__dot__z__slash__w"),
        ];
        for (name, wanted) in cases {
            assert_eq!(escaped(name), wanted);
        }
    }
}
