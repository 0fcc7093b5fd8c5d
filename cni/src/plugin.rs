//! The CNI plugin: the container runtime runs it for every pod, last in the chain.
//!
//! An ambient pod gets its network only when the node agent has confirmed that its traffic is captured. Whatever goes
//! wrong on the way is an error, and the runtime tries again. Everything but ADD does nothing and depends on nothing.

pub mod add;
pub mod error;
pub mod log;
pub mod request;
pub mod result;
pub mod unix_http;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mesh_core::env::Env;
use serde_json::json;

use error::{CniError, Code};
use log::Log;
use request::{Request, Verb};

/// Versions of the CNI specification that the plugin speaks, oldest first.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The newest of [`VERSIONS`].
pub const NEWEST: &str = "1.1.0";

/// Runs the plugin and returns the status the process exits with. Standard output carries the result or the error and
/// nothing else.
pub fn run(env: &Env, stdin: impl Read, stdout: &mut impl Write, stderr: &mut impl Write) -> u8 {
    if env.get("CNI_COMMAND").is_none_or(str::is_empty) {
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            stderr,
            "CNI plugin istio-cni {version}\nCNI protocol versions supported: {}",
            VERSIONS.join(", ")
        );
        return 0;
    }
    let mut log = Log::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| execute(env, stdin, &mut log))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(CniError::new(Code::Internal, "the plugin panicked", text.unwrap_or_default()))
    });
    let (text, status) = match outcome {
        Ok(text) => (text, 0),
        Err(error) => {
            log.error(&error.to_string(), &[]);
            (error.to_json(&version_to_answer_in(&log)), 1)
        }
    };
    // A runtime that has gone away cannot be told.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    log.finish();
    status
}

/// The version of the configuration where it was readable and known.
fn version_to_answer_in(log: &Log) -> String {
    log.cni_version().unwrap_or(NEWEST).to_owned()
}

fn execute(env: &Env, mut stdin: impl Read, log: &mut Log) -> Result<String, CniError> {
    let verb = Verb::from_env(env)?;
    let mut text = Vec::new();
    let read = stdin.by_ref().take(STDIN_BYTES_MAX).read_to_end(&mut text);
    read.map_err(|error| CniError::new(Code::Io, "reading the configuration from standard input", error))?;
    if verb == Verb::Version {
        return Ok(versions(&text));
    }
    let request = Request::new(verb, env, &text)?;
    log.configure(&request.config);
    log.debug("called", &[("command", &format!("{verb:?}")), ("container", &request.container_id)]);
    match verb {
        Verb::Add => add::run(&request, log),
        // The pod's rules end with its namespace and the agent hears of its end from the API server: nothing to do,
        // and nothing that could fail. STATUS must not depend on the agent: a node that is not ready could not start it.
        Verb::Check | Verb::Del | Verb::Gc | Verb::Status | Verb::Version => Ok(String::new()),
    }
}

fn versions(text: &[u8]) -> String {
    let asked: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    let asked = asked.as_ref().and_then(|value| value.get("cniVersion")).and_then(|value| value.as_str());
    json!({"cniVersion": asked.filter(|v| !v.is_empty()).unwrap_or(NEWEST), "supportedVersions": VERSIONS}).to_string()
}

/// A configuration with an earlier result is a few kilobytes.
const STDIN_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests;
