//! Errors as a container runtime reads them.

use std::fmt;

use serde_json::json;

/// What kind of error it is; numbers are those of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The configuration's version is not supported, or too old for the command.
    IncompatibleVersion = 1,
    /// A variable of the environment is missing or wrong.
    BadEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is not what it should be.
    Decode = 6,
    /// The configuration names no network, or one that cannot be.
    BadNetworkConfig = 7,
    /// The namespace given is the plugin's own.
    BadNamespace = 8,
    /// Everything that is ours alone.
    Internal = 999,
}

/// An error of the plugin. Printed on standard output as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// Kind.
    pub code: Code,
    /// What went wrong, in short.
    pub message: String,
    /// What the system or the other side said; may be empty.
    pub details: String,
}

impl CniError {
    /// From its parts.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>, details: impl fmt::Display) -> Self {
        Self { code, message: message.into(), details: details.to_string() }
    }

    /// The text that goes to standard output.
    #[must_use]
    pub fn to_json(&self, version: &str) -> String {
        json!({"cniVersion": version, "code": self.code as u32, "msg": self.message, "details": self.details})
            .to_string()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.details.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.message, self.details)
        }
    }
}

impl std::error::Error for CniError {}
