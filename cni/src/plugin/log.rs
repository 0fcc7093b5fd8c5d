//! The plugin's log lines: to standard error, to the agent, and to a file on the node.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::VERSIONS;
use super::request::NetConfig;
use super::unix_http;
use crate::event;

/// What is worth a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
pub enum Level {
    /// For developers.
    Debug,
    /// What happened.
    #[default]
    Info,
    /// What should not have happened.
    Warn,
    /// Why the pod did not get its network.
    Error,
    /// Nothing.
    None,
}

impl From<String> for Level {
    /// A level that nobody knows is the default one: logging must not keep pods from starting.
    fn from(text: String) -> Self {
        match text.as_str() {
            "debug" => Self::Debug,
            "warn" => Self::Warn,
            "error" | "fatal" => Self::Error,
            "none" => Self::None,
            _ => Self::Info,
        }
    }
}

/// Lines of one run.
#[derive(Debug, Default)]
pub struct Log {
    level: Level,
    run_dir: Option<std::path::PathBuf>,
    version: Option<String>,
    lines: Vec<String>,
}

impl Log {
    /// Before the configuration is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on as the configuration says.
    pub fn configure(&mut self, config: &NetConfig) {
        self.level = config.plugin_log_level;
        self.run_dir = Some(config.cni_agent_run_dir.clone());
        self.version = VERSIONS.iter().find(|known| **known == config.cni_version).map(|&known| known.to_owned());
    }

    /// Version of the configuration, once known.
    #[must_use]
    pub fn cni_version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// A line for developers.
    pub fn debug(&mut self, message: &str, fields: &[(&str, &str)]) {
        self.line(Level::Debug, "debug", message, fields);
    }

    /// A line about what happened.
    pub fn info(&mut self, message: &str, fields: &[(&str, &str)]) {
        self.line(Level::Info, "info", message, fields);
    }

    /// A line about what should not have happened.
    pub fn warn(&mut self, message: &str, fields: &[(&str, &str)]) {
        self.line(Level::Warn, "warn", message, fields);
    }

    /// A line about why the pod did not get its network.
    pub fn error(&mut self, message: &str, fields: &[(&str, &str)]) {
        self.line(Level::Error, "error", message, fields);
    }

    /// Sends the lines to the agent and to the file. Failing is silent: there is nobody to tell.
    pub fn finish(self) {
        let Some(run_dir) = self.run_dir.filter(|_| !self.lines.is_empty()) else { return };
        append(&run_dir.join(FILE), &self.lines);
        let socket = run_dir.join(event::LOG_SOCKET);
        if socket.exists() {
            let body = json!(self.lines).to_string();
            let _ = unix_http::post(&socket, event::LOG_PATH, body, SEND_TIMEOUT);
        }
    }

    fn line(&mut self, level: Level, name: &str, message: &str, fields: &[(&str, &str)]) {
        if level < self.level {
            return;
        }
        let mut line = Map::new();
        line.insert("level".to_owned(), json!(name));
        line.insert("time".to_owned(), json!(k8s_openapi::jiff::Timestamp::now().to_string()));
        line.insert("msg".to_owned(), json!(message));
        line.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        let line = Value::Object(line).to_string();
        let _ = writeln!(std::io::stderr(), "{line}");
        self.lines.push(line);
    }
}

fn append(path: &Path, lines: &[String]) {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > FILE_BYTES_MAX) {
        // The file before is given up: a node's disk is not an archive.
        let _ = fs::rename(path, path.with_extension("log.1"));
    }
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        // One write, so that lines of concurrent runs do not mix.
        let _ = file.write_all((lines.join("\n") + "\n").as_bytes());
    }
}

/// Log file in the run directory.
const FILE: &str = "istio-cni.log";
/// From this size on a new file is begun.
const FILE_BYTES_MAX: u64 = 10 << 20;
/// A pod waits for us: log lines are not worth more.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);
