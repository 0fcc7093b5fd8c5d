//! What the runtime asks: environment and standard input, checked before anything is done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mesh_core::env::{Env, parse_bool};
use mesh_sys::netns::NetNs;
use serde::Deserialize;
use serde_json::Value;

use super::VERSIONS;
use super::error::{CniError, Code};
use super::log::Level;
use crate::eligibility::EnablementSelector;

/// A CNI command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A pod gets its network.
    Add,
    /// Is the network as it should be?
    Check,
    /// A pod loses its network.
    Del,
    /// Forget everything but the networks named.
    Gc,
    /// Could a pod be added now?
    Status,
    /// Which versions do you speak?
    Version,
}

/// One call of the plugin.
#[derive(Debug, Clone)]
pub struct Request {
    /// The command.
    pub verb: Verb,
    /// Container, as the runtime names it; may be empty where it is not required.
    pub container_id: String,
    /// Path of the pod's network namespace; may be empty where it is not required.
    pub netns: String,
    /// Pairs of `CNI_ARGS`, unchecked.
    pub args: String,
    /// The configuration.
    pub config: NetConfig,
}

/// The plugin's part of the network configuration. Unknown keys are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct NetConfig {
    /// Version of the specification that the configuration and the result follow.
    #[serde(rename = "cniVersion", default)]
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// Result of the plugins before.
    #[serde(rename = "prevResult", default)]
    pub prev_result: Option<Value>,
    /// What to log.
    #[serde(default)]
    pub plugin_log_level: Level,
    /// Directory shared with the agent.
    #[serde(default = "default_run_dir")]
    pub cni_agent_run_dir: PathBuf,
    /// Off: no pod is ambient.
    #[serde(default)]
    pub ambient_enabled: bool,
    /// Which pods are ambient.
    #[serde(default)]
    pub enablement_selectors: Vec<EnablementSelector>,
    /// Namespaces that are left alone.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// Namespace of the agent.
    #[serde(default)]
    pub pod_namespace: String,
    /// Be patient, and then refuse, when it cannot be told whether a pod is ambient.
    #[serde(default)]
    pub enable_ambient_detection_retry: bool,
}

/// What Kubernetes runtimes say about the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// Name of the pod; empty outside Kubernetes.
    pub name: String,
    /// Namespace of the pod; empty outside Kubernetes.
    pub namespace: String,
    /// UID of the pod, where the runtime tells it.
    pub uid: Option<String>,
}

impl Verb {
    /// The command that the environment names.
    ///
    /// # Errors
    /// [`Code::BadEnvironment`] for any other.
    pub fn from_env(env: &Env) -> Result<Self, CniError> {
        Ok(match env.get("CNI_COMMAND").unwrap_or_default() {
            "ADD" => Self::Add,
            "CHECK" => Self::Check,
            "DEL" => Self::Del,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            other => {
                let details = "expected ADD, CHECK, DEL, GC, STATUS or VERSION";
                return Err(CniError::new(Code::BadEnvironment, format!("unknown CNI_COMMAND {other:?}"), details));
            }
        })
    }

    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }

    /// Position in [`VERSIONS`] of the first version that knows the command.
    fn since(self) -> usize {
        match self {
            Self::Check => 4,
            Self::Gc | Self::Status => 6,
            Self::Add | Self::Del | Self::Version => 0,
        }
    }
}

impl Request {
    /// Checks everything.
    ///
    /// # Errors
    /// Names the variable or key, its value, and what was expected.
    pub fn new(verb: Verb, env: &Env, stdin: &[u8]) -> Result<Self, CniError> {
        let value = |name: &str| env.get(name).unwrap_or_default().to_owned();
        let missing: Vec<&str> = verb.required().iter().copied().filter(|name| value(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(bad_env(format!("required environment variables are missing: {}", missing.join(", "))));
        }
        let (container_id, netns) = (value("CNI_CONTAINERID"), value("CNI_NETNS"));
        if verb.required().contains(&"CNI_CONTAINERID") {
            check_container(&container_id)?;
            check_interface(&value("CNI_IFNAME"))?;
        }
        let config: NetConfig = serde_json::from_slice(stdin)
            .map_err(|error| CniError::new(Code::Decode, "network configuration is not readable", error))?;
        check_config(verb, &config)?;
        if verb.required().contains(&"CNI_NETNS") {
            check_namespace(&netns, env)?;
        }
        Ok(Self { verb, container_id, netns, args: value("CNI_ARGS"), config })
    }
}

impl PodArgs {
    /// Reads `CNI_ARGS`.
    ///
    /// # Errors
    /// Names the part that is no pair, or the key that is unknown while unknown ones are not to be ignored.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        let bad = |what: String| CniError::new(Code::Internal, "CNI_ARGS", what);
        let mut pairs = BTreeMap::new();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let pair = part.split_once('=').ok_or_else(|| bad(format!("{part:?}: expected KEY=VALUE")))?;
            pairs.insert(pair.0, pair.1);
        }
        let ignore = match pairs.remove("IgnoreUnknown") {
            None => false,
            Some(text) => {
                parse_bool(text).ok_or_else(|| bad(format!("IgnoreUnknown={text:?}: expected true or false")))?
            }
        };
        let mut take = |name: &str| pairs.remove(name).unwrap_or_default().to_owned();
        let pod = Self {
            name: take("K8S_POD_NAME"),
            namespace: take("K8S_POD_NAMESPACE"),
            uid: Some(take("K8S_POD_UID")).filter(|uid| !uid.is_empty()),
        };
        take("K8S_POD_INFRA_CONTAINER_ID");
        match pairs.keys().next() {
            Some(key) if !ignore => Err(bad(format!("unknown key {key:?} and IgnoreUnknown is not set"))),
            _ => Ok(pod),
        }
    }
}

fn check_config(verb: Verb, config: &NetConfig) -> Result<(), CniError> {
    // A configuration without a version is of the first one.
    let version = if config.cni_version.is_empty() { "0.1.0" } else { &config.cni_version };
    let position = VERSIONS.iter().position(|known| *known == version);
    let incompatible = |details: String| {
        CniError::new(Code::IncompatibleVersion, format!("incompatible CNI version {version:?}"), details)
    };
    match position {
        None => return Err(incompatible(format!("expected one of {}", VERSIONS.join(", ")))),
        Some(position) if position < verb.since() => {
            let first = VERSIONS.get(verb.since()).copied().unwrap_or_default();
            return Err(incompatible(format!("this command exists since {first}")));
        }
        Some(_) => {}
    }
    if config.name.is_empty() {
        return Err(CniError::new(Code::BadNetworkConfig, "name: missing network name", ""));
    }
    if !is_identifier(&config.name) {
        let details = "expected a letter or digit, then letters, digits, '_', '.' or '-'";
        return Err(CniError::new(
            Code::BadNetworkConfig,
            format!("name: invalid network name {:?}", config.name),
            details,
        ));
    }
    Ok(())
}

fn check_container(id: &str) -> Result<(), CniError> {
    if is_identifier(id) {
        return Ok(());
    }
    Err(bad_env(format!("CNI_CONTAINERID={id:?}: expected a letter or digit, then letters, digits, '_', '.' or '-'")))
}

fn check_interface(name: &str) -> Result<(), CniError> {
    let wrong = if name.len() > 15 {
        "longer than 15 bytes"
    } else if name == "." || name == ".." {
        "reserved"
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "holds '/', ':' or white space"
    } else {
        return Ok(());
    };
    Err(bad_env(format!("CNI_IFNAME={name:?}: {wrong}")))
}

/// Redirecting the plugin's own namespace, that of the node, would cut the node off.
fn check_namespace(path: &str, env: &Env) -> Result<(), CniError> {
    if env.get("CNI_NETNS_OVERRIDE").and_then(parse_bool) == Some(true) {
        return Ok(());
    }
    // A path that cannot be opened is somebody else's error to report.
    let (Ok(own), Ok(given)) = (NetNs::current(), NetNs::open(path)) else { return Ok(()) };
    if own.id() == given.id() {
        return Err(CniError::new(
            Code::BadNamespace,
            format!("CNI_NETNS={path:?} is the namespace of the plugin"),
            "",
        ));
    }
    Ok(())
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn bad_env(message: String) -> CniError {
    CniError::new(Code::BadEnvironment, message, "")
}

fn default_run_dir() -> PathBuf {
    "/var/run/istio-cni".into()
}
