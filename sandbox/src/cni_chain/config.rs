//! Network configuration: which file counts, and what each plugin is given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The version assumed where a list names none.
const DEFAULT_VERSION: &str = "0.2.0";

/// Why there is no usable network configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The directory cannot be listed.
    #[error("reading CNI configuration directory {directory}")]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No file holds a valid configuration; the reasons name each file that was tried.
    #[error("no valid network configuration in {directory}: cni plugin not initialized{}", reasons(.rejected))]
    NoneValid {
        /// The directory.
        directory: PathBuf,
        /// Each file with what is wrong with it.
        rejected: Vec<String>,
    },
}

fn reasons(rejected: &[String]) -> String {
    if rejected.is_empty() { String::new() } else { format!(" ({})", rejected.join("; ")) }
}

/// A network configuration list.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginList {
    /// `cniVersion`, given to every plugin.
    pub cni_version: String,
    /// `name`, given to every plugin.
    pub name: String,
    /// In the order of `ADD`.
    pub plugins: Vec<Plugin>,
}

/// One entry of `plugins`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// `type`: the program's name.
    pub kind: String,
    /// The whole entry, unknown keys included.
    pub config: Map<String, Value>,
}

impl PluginList {
    /// The first valid configuration in the directory, files taken in lexical order (`*.conflist`,
    /// `*.conf`, `*.json`), as kubelets and their runtimes do.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn first_in(directory: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { directory: directory.to_owned(), source };
        let mut files: Vec<PathBuf> = fs::read_dir(directory)
            .map_err(unreadable)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|kind| kind == "conflist" || kind == "conf" || kind == "json"))
            .collect();
        files.sort();
        let mut rejected = Vec::new();
        for file in files {
            let parsed = fs::read(&file)
                .map_err(|error| error.to_string())
                .and_then(|text| Self::parse(&text, file.extension().is_some_and(|kind| kind == "conflist")));
            match parsed {
                Ok(list) => return Ok(list),
                Err(reason) => {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    rejected.push(format!("{name}: {reason}"));
                }
            }
        }
        Err(ConfigError::NoneValid { directory: directory.to_owned(), rejected })
    }

    /// Parses a list (`.conflist`) or a single plugin (`.conf`), which becomes a list of one.
    fn parse(text: &[u8], is_list: bool) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let Value::Object(object) = value else { return Err("not a JSON object".to_owned()) };
        let word = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = word("name").filter(|name| !name.is_empty()).ok_or("no name")?;
        let cni_version = word("cniVersion").unwrap_or_else(|| DEFAULT_VERSION.to_owned());
        let entries = if is_list {
            match object.get("plugins") {
                Some(Value::Array(entries)) if !entries.is_empty() => entries.clone(),
                _ => return Err("no plugins".to_owned()),
            }
        } else {
            vec![Value::Object(object)]
        };
        let plugins = entries.into_iter().map(Plugin::parse).collect::<Result<_, _>>()?;
        Ok(Self { cni_version, name, plugins })
    }

    /// What a plugin reads: its own entry with the list's name and version, and the result of the
    /// plugin before it.
    pub fn stdin_for(&self, plugin: &Plugin, previous: Option<&Value>) -> Value {
        let mut config = plugin.config.clone();
        // `capabilities` tells the runtime what to pass; plugins get `runtimeConfig` instead, of
        // which the sandbox has nothing to give.
        config.remove("capabilities");
        config.insert("name".to_owned(), Value::String(self.name.clone()));
        config.insert("cniVersion".to_owned(), Value::String(self.cni_version.clone()));
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(config)
    }
}

impl Plugin {
    fn parse(entry: Value) -> Result<Self, String> {
        let Value::Object(config) = entry else { return Err("a plugin is not an object".to_owned()) };
        let kind = config.get("type").and_then(Value::as_str).ok_or("a plugin has no type")?.to_owned();
        Ok(Self { kind, config })
    }
}

/// A plugin type must be a plain file name: it becomes part of a path.
pub(crate) fn checked_name(plugin: &str) -> Result<&str, String> {
    if plugin.is_empty() || plugin == "." || plugin == ".." || plugin.contains('/') {
        return Err(format!("{plugin:?} is not a plugin name"));
    }
    Ok(plugin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn first_valid_file_in_lexical_order_counts() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "00-broken.conflist", "{");
        write(dir.path(), "01-no-plugins.conflist", r#"{"name":"x","plugins":[]}"#);
        write(dir.path(), "05-readme.txt", r#"{"name":"t","type":"t"}"#);
        write(dir.path(), "20-late.conflist", r#"{"name":"late","plugins":[{"type":"c"}]}"#);
        write(dir.path(), "10-a.conf", r#"{"name":"single","cniVersion":"0.3.1","type":"b"}"#);
        let list = PluginList::first_in(dir.path()).unwrap();
        assert_eq!((list.name.as_str(), list.cni_version.as_str()), ("single", "0.3.1"));
        assert_eq!(list.plugins[0].kind, "b");
    }

    #[test]
    fn without_a_valid_file_the_error_names_each() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "00-broken.conflist", "{");
        write(dir.path(), "01-unnamed.conf", r#"{"type":"b"}"#);
        let error = PluginList::first_in(dir.path()).unwrap_err().to_string();
        assert!(error.contains("00-broken.conflist: "), "{error}");
        assert!(error.contains("01-unnamed.conf: no name"), "{error}");
        assert!(PluginList::first_in(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn plugins_get_name_version_and_the_result_before_but_no_capabilities() {
        let text = json!({
            "name": "net", "cniVersion": "1.0.0",
            "plugins": [{"type": "a", "cniVersion": "0.3.1", "capabilities": {"x": true}, "keep": 1}]
        });
        let list = PluginList::parse(text.to_string().as_bytes(), true).unwrap();
        let stdin = list.stdin_for(&list.plugins[0], Some(&json!({"ips": []})));
        assert_eq!(
            stdin,
            json!({"type": "a", "keep": 1, "name": "net", "cniVersion": "1.0.0", "prevResult": {"ips": []}})
        );
        assert!(list.stdin_for(&list.plugins[0], None).get("prevResult").is_none());
    }

    #[test]
    fn plugin_names_are_file_names() {
        assert!(checked_name("istio-cni").is_ok());
        for name in ["", ".", "..", "a/b", "/bin/sh"] {
            assert!(checked_name(name).is_err(), "{name:?}");
        }
    }
}
