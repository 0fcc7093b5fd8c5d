//! The proxy itself, as the control plane describes it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use mesh_core::TrustDomain;
use mesh_route::path::Normalization;
use mesh_wire::l7;

/// What holds for everything that passes.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Namespace of the Gateway.
    pub namespace: Arc<str>,
    /// Name of the Gateway.
    pub name: Arc<str>,
    /// What it does.
    pub role: Role,
    /// What the mesh configuration says.
    pub settings: Settings,
    /// The inner request names its caller in x-forwarded-client-cert.
    pub forward_client_identity: bool,
    /// Workloads that name this proxy may be called by address.
    pub serves_workloads: bool,
    /// Policies for everything that passes, as written.
    pub authorizations: Arc<[l7::Authorization]>,
    /// Why nothing may pass.
    pub refuse_all: Option<Arc<str>>,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves services of its namespace.
    Waypoint,
    /// Serves listeners.
    Gateway,
    /// Hands on tunnels from other networks.
    EastWest,
}

/// What the mesh configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Canonical form of paths.
    pub normalization: Normalization,
    /// The mesh's own first, then its aliases.
    pub trust_domains: Box<[TrustDomain]>,
    /// TCP connect and TLS to an upstream.
    pub connect_timeout: Duration,
    /// How long to wait for bytes that tell the protocol. None: for ever.
    pub detection_timeout: Option<Duration>,
    /// Tunnels without a stream are closed after it.
    pub hbone_idle_timeout: Duration,
    /// The `server` header of answers. None: as the upstream says.
    pub server_header: Option<HeaderValue>,
    /// Entries of x-forwarded-for that proxies in front of us have added.
    pub trusted_proxies: u32,
    /// HTTP/1.0 is served.
    pub http10: bool,
    /// How long to go on after SIGTERM. None: as the process's own settings say.
    pub drain: Option<Duration>,
    /// x-envoy-* headers are added.
    pub debug_headers: bool,
    /// x-envoy-attempt-count is added.
    pub attempt_count: bool,
    /// x-request-id is added.
    pub request_id: bool,
    /// x-forwarded-host is added.
    pub forward_host: bool,
    /// x-forwarded-port is added.
    pub forward_port: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            normalization: Normalization::Base,
            trust_domains: Box::new([TrustDomain::default()]),
            connect_timeout: CONNECT_TIMEOUT,
            detection_timeout: None,
            hbone_idle_timeout: HBONE_IDLE_TIMEOUT,
            server_header: None,
            trusted_proxies: 0,
            http10: false,
            drain: None,
            debug_headers: true,
            attempt_count: true,
            request_id: true,
            forward_host: false,
            forward_port: false,
        }
    }
}

/// Where the mesh configuration says nothing.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the mesh configuration says nothing.
pub(super) const HBONE_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
