//! The control socket: how the command line talks to the daemon about what the Kubernetes API does
//! not have (stop, signals, captures, commands on a node).
//!
//! A Unix socket of the owner only, one request per connection: one JSON line in, JSON lines out,
//! the last one `done` or `error`.

use serde::{Deserialize, Serialize};

use crate::api::faults::{Ending, Fault, Filter, Listed};

mod capture;
pub mod client;
mod node_exec;
pub mod server;

/// Name of the socket in the state directory.
pub const SOCKET_NAME: &str = "control.sock";

/// Longest request line.
pub const REQUEST_BYTES_MAX: u64 = 256 * 1024;

/// What the daemon can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// A description of the sandbox.
    Status,
    /// Stop everything.
    Down,
    /// Send a signal to a container's main process.
    Kill {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
        /// The container; may be left out when only one runs.
        container: Option<String>,
        /// Signal number.
        signal: i32,
    },
    /// Run a command in a node's network namespace, with the node's directories.
    NodeExec {
        /// The node's name.
        node: String,
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Write the packets of a node's fabric link to a file.
    CaptureStart {
        /// The node's name.
        node: String,
        /// The file (absolute), in pcap format.
        file: std::path::PathBuf,
    },
    /// End captures.
    CaptureStop {
        /// The node's name; all captures when left out.
        node: Option<String>,
    },
    /// Let the API server do something wrong.
    FaultAdd {
        /// When, and what.
        rule: Fault,
    },
    /// Which faults are set.
    FaultList,
    /// Remove faults.
    FaultClear {
        /// The number of one; all when left out.
        id: Option<u64>,
    },
    /// End watches that clients have open now.
    DropWatches {
        /// Which.
        filter: Filter,
        /// How.
        ending: Ending,
    },
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The answer to [`Request::Status`].
    Status(Status),
    /// A piece of a command's standard output.
    Stdout(String),
    /// A piece of a command's standard error.
    Stderr(String),
    /// The command ended with this code.
    Exit(i32),
    /// The answer to [`Request::FaultList`].
    Faults(Vec<Listed>),
    /// The request was carried out; a sentence for people.
    Done(String),
    /// It was not; says why, and what to do where that is known.
    Error(String),
}

/// What a sandbox is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the sandbox.
    pub version: String,
    /// Version of Kubernetes that the API server follows.
    pub kubernetes_version: String,
    /// URL of the API server on this machine.
    pub api_server: String,
    /// Path of the administrator's kubeconfig.
    pub kubeconfig: String,
    /// Where the binaries behind our image names come from.
    pub bin_dir: String,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// What a node is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub ips: Vec<std::net::IpAddr>,
    /// Number of pod sandboxes.
    pub pods: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_readable_json_object() {
        let request = Request::NodeExec { node: "node-1".to_owned(), argv: vec!["ip".to_owned()] };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"command":"node-exec","node":"node-1","argv":["ip"]}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert!(serde_json::from_str::<Request>(r#"{"command":"dance"}"#).is_err());
    }
}
