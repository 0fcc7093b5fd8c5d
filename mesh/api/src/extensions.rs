//! The group `extensions.istio.io`: code that users bring into proxies.

mod traffic;
mod wasm;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use traffic::{LuaCode, TrafficExtension, TrafficExtensionSpec, WasmModule};
pub use wasm::{EnvValueSource, EnvVar, FailStrategy, PluginType, PullPolicy, VmConfig, WasmPlugin, WasmPluginSpec};

/// API group of the kinds in this module.
pub const GROUP: &str = "extensions.istio.io";

/// Where among the mesh's own filters an extension stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// At the end, before the router.
    #[default]
    UnspecifiedPhase,
    /// Before authentication.
    Authn,
    /// Before authorization, after authentication.
    Authz,
    /// Before statistics, after authorization.
    Stats,
}

/// Traffic that an extension sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrafficSelector {
    /// Which side of the proxy. Absent: both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TrafficMode>,
    /// Ports. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"])
    )]
    pub ports: Vec<PortNumber>,
}

/// A side of the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TrafficMode {
    /// The default, both.
    #[default]
    Undefined,
    /// The proxy's workload calls.
    Client,
    /// The proxy's workload is called.
    Server,
    /// Both.
    ClientAndServer,
}

/// A port, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["number"]))]
#[serde(default)]
pub struct PortNumber {
    /// The number.
    #[schemars(range(min = 1, max = 65535))]
    pub number: u32,
}

/// Hex SHA-256 of a module, or nothing.
pub(crate) const SHA256: &str = "^$|^[a-f0-9]{64}$";
