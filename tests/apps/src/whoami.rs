//! Which pod answers.

use serde::Serialize;

/// Where this process runs, from the environment that a pod spec gives it.
#[derive(Debug, Clone, Serialize)]
pub struct WhoAmI {
    /// Pod name, or the host name outside a cluster.
    pub pod: String,
    /// Pod namespace; empty outside a cluster.
    pub namespace: String,
    /// Node name; empty outside a cluster.
    pub node: String,
    /// What the pod's author calls it, for example a version; empty when not called anything.
    pub backend: String,
}

impl WhoAmI {
    /// Reads `POD_NAME`, `POD_NAMESPACE`, `NODE_NAME`, `BACKEND` and `HOSTNAME`.
    #[must_use]
    pub fn from_env() -> Self {
        let read = |name: &str| std::env::var(name).ok();
        Self {
            pod: read("POD_NAME").or_else(|| read("HOSTNAME")).unwrap_or_default(),
            namespace: read("POD_NAMESPACE").unwrap_or_default(),
            node: read("NODE_NAME").unwrap_or_default(),
            backend: read("BACKEND").unwrap_or_default(),
        }
    }
}
