//! Config dumps of proxies: reading a saved one, and finding things in one.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One line of a table, and the part of the dump that it shows.
pub(crate) struct Row {
    pub(crate) cells: Vec<String>,
    pub(crate) source: Value,
}

/// Reads a saved dump; `-` is standard input.
///
/// # Errors
/// The file cannot be read, or is no dump.
pub(crate) fn read(file: &str) -> Result<Value> {
    let text = if file == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?
    };
    let dump: Value = serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))?;
    if !dump.is_object() {
        bail!("{file} is not a config dump: expected a JSON object");
    }
    Ok(dump)
}

/// The entries of a list that a dump may hold as an array or as a map.
pub(crate) fn entries<'a>(dump: &'a Value, key: &str) -> Vec<&'a Value> {
    match dump.get(key) {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(Value::Object(items)) => items.values().collect(),
        _ => Vec::new(),
    }
}

/// The text of a field, or nothing.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list.
pub(crate) fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    entries(value, key).into_iter().filter_map(Value::as_str).collect()
}

/// A number of a field; zero where there is none.
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}
