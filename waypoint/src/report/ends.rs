//! The two ends of a request, as metrics name them.

use std::sync::Arc;

use mesh_core::Identity;

/// A workload at one end. Made once per workload, shared by its connections. Empty texts are shown as `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct End {
    /// Name of the workload: of its Deployment or the like.
    pub workload: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Who it is.
    pub identity: Option<Identity>,
    /// Label `app`.
    pub app: Arc<str>,
    /// Label `version`.
    pub version: Arc<str>,
    /// Canonical service.
    pub canonical_service: Arc<str>,
    /// Canonical revision.
    pub canonical_revision: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
}

/// A service that was called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Fully qualified host name.
    pub hostname: Arc<str>,
    /// Short name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
}

impl End {
    /// Nothing but who it has proven to be.
    #[must_use]
    pub fn proven(identity: Option<&Identity>) -> Self {
        Self {
            namespace: identity.map_or_else(|| Arc::from(""), |identity| identity.namespace().into()),
            identity: identity.cloned(),
            ..Self::default()
        }
    }
}

impl Service {
    /// Of a host name: the short name is its first label within a namespace's own names, and all of it otherwise.
    #[must_use]
    pub fn new(namespace: &str, hostname: &str) -> Self {
        let own = hostname
            .split_once('.')
            .filter(|(_, rest)| rest.strip_prefix(namespace).is_some_and(|rest| rest.starts_with(".svc")));
        let name = own.map_or(hostname, |(name, _)| name);
        Self { hostname: hostname.into(), name: name.into(), namespace: namespace.into() }
    }
}
