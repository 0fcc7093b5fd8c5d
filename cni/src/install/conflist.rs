//! The node's CNI configuration: finding the file that the runtime uses, and our entry in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::file;
use crate::config::Config;

/// Our entry, as it goes into the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry(Map<String, Value>);

impl Entry {
    /// For the plugin of this agent.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let selectors = serde_json::to_value(&config.selectors).unwrap_or_default();
        let value = json!({
            "type": TYPE,
            "name": TYPE,
            "plugin_log_level": config.plugin_log_level,
            "cni_agent_run_dir": config.paths.run_dir,
            "ambient_enabled": true,
            "enablement_selectors": selectors,
            "exclude_namespaces": config.exclude_namespaces,
            "pod_namespace": config.pod_namespace,
            "native_nftables": true,
            "enable_ambient_detection_retry": config.detection_retry,
        });
        match value {
            Value::Object(map) => Self(map),
            _ => Self(Map::new()),
        }
    }
}

/// Which file the runtime uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    Found(PathBuf),
    /// None yet: the node's main CNI is not installed.
    None,
}

/// Finds the primary configuration: the named file, or its twin with the other ending, or the first valid one in
/// lexical order, as runtimes do.
///
/// # Errors
/// When the directory cannot be read.
pub fn select(dir: &Path, name: Option<&str>) -> Result<Selection, String> {
    if let Some(name) = name {
        let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let names = [name.to_owned(), format!("{stem}.conflist"), format!("{stem}.conf")];
        let found = names.iter().map(|name| dir.join(name)).find(|path| path.is_file());
        return Ok(found.map_or(Selection::None, Selection::Found));
    }
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| matches!(path.extension().and_then(|ext| ext.to_str()), Some("conf" | "conflist")))
        .collect();
    paths.sort();
    let valid = paths.into_iter().find(|path| fs::read(path).is_ok_and(|text| parse(path, &text).is_ok()));
    Ok(valid.map_or(Selection::None, Selection::Found))
}

/// Puts our entry last into the list at `primary`. A single configuration becomes a list. Returns the file that holds
/// the list now. A file that is as wanted already is not written.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn extend(primary: &Path, entry: &Entry) -> Result<PathBuf, String> {
    let say = |what: &dyn std::fmt::Display| format!("{}: {what}", primary.display());
    let old = fs::read(primary).map_err(|error| say(&error))?;
    let list = with_entry(parse(primary, &old)?, entry);
    let text = print(&Value::Object(list));
    let target = primary.with_extension("conflist");
    let is_list = is_list(primary);
    if is_list && text.as_bytes() == old {
        return Ok(target);
    }
    let mode = match fs::metadata(primary) {
        Ok(meta) if is_list => meta.permissions().mode() & 0o777,
        _ => NEW_FILE_MODE,
    };
    file::replace(&target, text.as_bytes(), mode).map_err(|error| say(&error))?;
    if !is_list {
        fs::remove_file(primary).map_err(|error| say(&error))?;
    }
    Ok(target)
}

/// Whether the list at `path` holds exactly one entry of ours, as we would write it.
#[must_use]
pub fn is_extended(path: &Path, entry: &Entry) -> bool {
    let Ok(text) = fs::read(path) else { return false };
    let Ok(list) = parse(path, &text) else { return false };
    let plugins = list.get("plugins").and_then(Value::as_array);
    let ours: Vec<&Value> = plugins.into_iter().flatten().filter(|plugin| is_ours(plugin)).collect();
    ours == [&Value::Object(entry.0.clone())]
}

/// Takes our entry out of the list at `path`. Nothing to take out is fine.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn withdraw(path: &Path) -> Result<(), String> {
    let say = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let old = fs::read(path).map_err(|error| say(&error))?;
    let mut list = parse(path, &old)?;
    let Some(Value::Array(plugins)) = list.get_mut("plugins") else { return Ok(()) };
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.len() == before {
        return Ok(());
    }
    let mode = fs::metadata(path).map_or(NEW_FILE_MODE, |meta| meta.permissions().mode() & 0o777);
    file::replace(path, print(&Value::Object(list)).as_bytes(), mode).map_err(|error| say(&error))
}

/// A list with a plugin at least, or a single configuration with a type.
fn parse(path: &Path, text: &[u8]) -> Result<Map<String, Value>, String> {
    let say = |what: &str| format!("{}: {what}", path.display());
    let value: Value = serde_json::from_slice(text).map_err(|error| say(&format!("not JSON: {error}")))?;
    let Value::Object(map) = value else { return Err(say("expected a JSON object")) };
    if is_list(path) {
        let plugins = map.get("plugins").and_then(Value::as_array);
        if plugins.is_none_or(Vec::is_empty) {
            return Err(say("plugins: expected a list with at least one plugin"));
        }
    } else if map.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(say("type: expected the name of a plugin"));
    }
    Ok(map)
}

fn with_entry(config: Map<String, Value>, entry: &Entry) -> Map<String, Value> {
    let mut list = if config.contains_key("plugins") { config } else { as_list(config) };
    if let Some(Value::Array(plugins)) = list.get_mut("plugins") {
        plugins.retain(|plugin| !is_ours(plugin));
        // Last: interfaces and addresses must be there when the agent is asked.
        plugins.push(Value::Object(entry.0.clone()));
    }
    list
}

fn as_list(mut plugin: Map<String, Value>) -> Map<String, Value> {
    plugin.remove("cniVersion");
    let mut list = Map::new();
    list.insert("name".to_owned(), json!("k8s-pod-network"));
    list.insert("cniVersion".to_owned(), json!("0.3.1"));
    list.insert("plugins".to_owned(), json!([plugin]));
    list
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(TYPE)
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "conflist")
}

fn print(value: &Value) -> String {
    // Two spaces; a JSON value always prints.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Type and name of our plugin; also the name of its binary.
pub const TYPE: &str = "istio-cni";
const NEW_FILE_MODE: u32 = 0o600;

#[cfg(test)]
mod tests;
