//! The CNI plugin chain of a node, run as a container runtime runs it.
//!
//! The configuration is read anew for every call: what the node agent writes takes effect with the
//! next pod. Plugins run in the node's network namespace with the node's directories at their
//! usual paths.
//!
//! # Source
//!
//! CNI specification 1.1.0: section 1 (configuration), 2 (execution), 3 (derivation), 4 (delegation),
//! 5 (results and errors).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::runtime::NodeRuntime;
use crate::runtime::support::{EnterSpec, StandardStreams, launch, node_world};

mod config;
mod message;

pub use config::{ConfigError, PluginList};
pub use message::CniResult;

/// A plugin that takes longer is killed. Kubelets give the whole chain two minutes; the slowest
/// step of ours is the node agent's enrolment.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(60);

/// Longest result or log output taken from a plugin.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Name of the pod's interface.
const INTERFACE: &str = "eth0";

/// One pod's attachment to the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the sandbox's id.
    pub container_id: String,
    /// `CNI_NETNS`: the namespace's file as seen on the node.
    pub netns: String,
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `K8S_POD_UID`.
    pub pod_uid: String,
}

/// Why a pod could not be attached to the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// No usable configuration. Retry: the node may be starting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A plugin answered with an error, or not as the specification says. Retry with back-off.
    #[error("plugin type={plugin:?} failed ({command}): {message}")]
    Plugin {
        /// `type` in the configuration.
        plugin: String,
        /// `ADD` or `DEL`.
        command: &'static str,
        /// The plugin's message and details.
        message: String,
    },
}

/// The plugin chain of one node.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    node: &'a NodeRuntime,
}

impl<'a> Chain<'a> {
    /// The chain of this node.
    pub(crate) fn of(node: &'a NodeRuntime) -> Self {
        Self { node }
    }

    /// Runs `ADD` over the chain; the result of each plugin is the next one's `prevResult`.
    pub(crate) async fn add(&self, attachment: &Attachment) -> Result<CniResult, CniError> {
        let list = self.list()?;
        let mut previous: Option<Value> = None;
        for plugin in &list.plugins {
            let stdin = list.stdin_for(plugin, previous.as_ref());
            let output = self.invoke("ADD", &plugin.kind, attachment, &stdin).await?;
            let result = serde_json::from_slice(&output).map_err(|error| CniError::Plugin {
                plugin: plugin.kind.clone(),
                command: "ADD",
                message: format!("its result is not JSON: {error}"),
            })?;
            previous = Some(result);
        }
        let result = CniResult::parse(previous.as_ref().unwrap_or(&Value::Null));
        result.map_err(|message| CniError::Plugin {
            plugin: list.plugins.last().map(|plugin| plugin.kind.clone()).unwrap_or_default(),
            command: "ADD",
            message,
        })
    }

    /// Runs `DEL` over the chain in reverse order. Every plugin gets its turn; the first failure is
    /// returned.
    pub(crate) async fn delete(&self, attachment: &Attachment) -> Result<(), CniError> {
        let list = self.list()?;
        let mut first_failure = None;
        for plugin in list.plugins.iter().rev() {
            let stdin = list.stdin_for(plugin, None);
            if let Err(error) = self.invoke("DEL", &plugin.kind, attachment, &stdin).await {
                first_failure.get_or_insert(error);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    fn list(&self) -> Result<PluginList, CniError> {
        Ok(PluginList::first_in(&self.node.node_root().join("etc/cni/net.d"))?)
    }

    async fn invoke(
        &self,
        command: &'static str,
        plugin: &str,
        attachment: &Attachment,
        stdin: &Value,
    ) -> Result<Vec<u8>, CniError> {
        let failed = |message: String| CniError::Plugin { plugin: plugin.to_owned(), command, message };
        let executable = config::checked_name(plugin).map_err(failed)?;
        // A link counts: it may lead to where only the plugin's own root shows something.
        if self.node.node_root().join("opt/cni/bin").join(executable).symlink_metadata().is_err() {
            return Err(failed(format!("failed to find plugin {plugin:?} in path [/opt/cni/bin]")));
        }
        let spec = self.enter_spec(command, executable, attachment);
        let run = tokio::time::timeout(PLUGIN_DEADLINE, run(&spec, stdin.to_string()));
        let output = match run.await {
            Ok(output) => output.map_err(failed)?,
            Err(_) => return Err(failed(format!("it did not end within {PLUGIN_DEADLINE:?}"))),
        };
        if output.success {
            if !output.stderr.is_empty() {
                tracing::debug!(plugin, command, output = %output.stderr, "cni plugin said");
            }
            Ok(output.stdout)
        } else {
            Err(failed(message::error_text(&output.stdout, &output.stderr)))
        }
    }

    fn enter_spec(&self, command: &str, plugin: &str, attachment: &Attachment) -> EnterSpec {
        EnterSpec {
            world: node_world(self.node),
            netns: Some(self.node.node_netns_path()),
            argv: vec![format!("/opt/cni/bin/{plugin}")],
            env: environment(command, attachment),
            cwd: Path::new("/").to_owned(),
            terminal: false,
        }
    }
}

/// What a plugin wrote and how it ended.
struct Output {
    success: bool,
    stdout: Vec<u8>,
    stderr: String,
}

async fn run(spec: &EnterSpec, stdin: String) -> Result<Output, String> {
    let streams = StandardStreams { stdin: Stdio::piped(), stdout: Stdio::piped(), stderr: Stdio::piped() };
    let mut child = launch(spec, streams).await?;
    // The three pipes were asked for above.
    let (Some(mut input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("its pipes are missing".to_owned());
    };
    let talk = async {
        // A plugin may answer without reading (VERSION, an early error): a broken pipe is fine.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = output.take(OUTPUT_BYTES_MAX);
        let mut errors = errors.take(OUTPUT_BYTES_MAX);
        tokio::try_join!(output.read_to_end(&mut stdout), errors.read_to_end(&mut stderr))?;
        Ok::<_, io::Error>((stdout, stderr))
    };
    // Dropping the future on the deadline drops the child; it must not outlive that.
    let mut guard = KillOnDrop(child);
    let (stdout, stderr) = talk.await.map_err(|error| format!("reading its output: {error}"))?;
    let status = guard.0.wait().await.map_err(|error| format!("waiting for it: {error}"))?;
    Ok(Output { success: status.success(), stdout, stderr: String::from_utf8_lossy(&stderr).trim_end().to_owned() })
}

/// Ends a plugin that nobody waits for any more.
struct KillOnDrop(tokio::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.start_kill();
    }
}

/// The environment that the specification and Kubernetes runtimes give a plugin.
fn environment(command: &str, attachment: &Attachment) -> Vec<(String, String)> {
    let arguments: BTreeMap<&str, &str> = BTreeMap::from([
        ("K8S_POD_NAMESPACE", attachment.pod_namespace.as_str()),
        ("K8S_POD_NAME", attachment.pod_name.as_str()),
        ("K8S_POD_INFRA_CONTAINER_ID", attachment.container_id.as_str()),
        ("K8S_POD_UID", attachment.pod_uid.as_str()),
    ]);
    let arguments =
        arguments.iter().fold("IgnoreUnknown=1".to_owned(), |text, (name, value)| format!("{text};{name}={value}"));
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &attachment.container_id),
        ("CNI_NETNS", &attachment.netns),
        ("CNI_IFNAME", INTERFACE),
        ("CNI_ARGS", &arguments),
        ("CNI_PATH", "/opt/cni/bin"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ]
    .iter()
    .map(|&(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Addresses of a result, IPv4 first.
pub(crate) fn ordered(mut ips: Vec<IpAddr>) -> Vec<IpAddr> {
    ips.sort_by_key(IpAddr::is_ipv6);
    ips
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_what_kubernetes_runtimes_give() {
        let attachment = Attachment {
            container_id: "c1".to_owned(),
            netns: "/var/run/netns/cni-1".to_owned(),
            pod_name: "web".to_owned(),
            pod_namespace: "demo".to_owned(),
            pod_uid: "u".to_owned(),
        };
        let env: BTreeMap<String, String> = environment("ADD", &attachment).into_iter().collect();
        assert_eq!(env.get("CNI_IFNAME").unwrap(), "eth0");
        assert_eq!(env.get("CNI_NETNS").unwrap(), "/var/run/netns/cni-1");
        assert_eq!(
            env.get("CNI_ARGS").unwrap(),
            "IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=demo;K8S_POD_UID=u"
        );
    }
}
