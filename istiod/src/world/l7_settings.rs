//! What the mesh configuration says to waypoints and gateways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::networking::{HttpRetry, LocalityLoadBalancing, TcpKeepalive, TrafficPolicy};
use mesh_wire::l7::settings::Normalization;

/// Settings of layer 7.
#[derive(Clone, Debug, PartialEq)]
pub struct L7Settings {
    /// `pathNormalization.normalization`.
    pub normalization: Normalization,
    /// `connectTimeout`.
    pub connect_timeout: Duration,
    /// `protocolDetectionTimeout`; zero waits for ever.
    pub detection_timeout: Duration,
    /// `hboneIdleTimeout`.
    pub hbone_idle_timeout: Duration,
    /// `defaultHttpRetryPolicy`.
    pub default_retry: Option<HttpRetry>,
    /// `defaultTrafficPolicy`.
    pub default_policy: Option<TrafficPolicy>,
    /// `localityLbSetting`.
    pub locality: Option<LocalityLoadBalancing>,
    /// `h2UpgradePolicy` is UPGRADE.
    pub h2_upgrade: bool,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `defaultVirtualServiceExportTo`; none means everybody.
    pub virtual_services_export_to: Vec<String>,
    /// `defaultDestinationRuleExportTo`; none means everybody.
    pub rules_export_to: Vec<String>,
    /// `server` header of answers; empty leaves the upstream's.
    pub server_header: Arc<str>,
    /// `defaultConfig.gatewayTopology.numTrustedProxies`.
    pub trusted_proxies: u32,
    /// `defaultConfig.gatewayTopology.proxyProtocol` is there.
    pub proxy_protocol: bool,
    /// HTTP/1.0 is served.
    pub http10: bool,
    /// `defaultConfig.terminationDrainDuration`.
    pub drain: Duration,
    /// `defaultConfig.proxyHeaders.envoyDebugHeaders.disabled`.
    pub no_debug_headers: bool,
    /// `defaultConfig.proxyHeaders.attemptCount.disabled`.
    pub no_attempt_count: bool,
    /// `defaultConfig.proxyHeaders.requestId.disabled`.
    pub no_request_id: bool,
    /// `defaultConfig.proxyHeaders.xForwardedHost.enabled`.
    pub forward_host: bool,
    /// `defaultConfig.proxyHeaders.xForwardedPort.enabled`.
    pub forward_port: bool,
    /// Whether routes attached to services need a ReferenceGrant for backends of other namespaces.
    pub mesh_grants: bool,
    /// Settings of pods, by name. `defaultConfig.proxyMetadata`.
    pub proxy_metadata: BTreeMap<String, String>,
    /// Which requests are logged. `accessLogFile`; none leaves it to the proxies.
    pub access_log: Option<AccessLog>,
    /// Whether lines of logs are JSON. `accessLogEncoding`; none leaves it to the proxies.
    pub log_json: Option<bool>,
}

impl Default for L7Settings {
    fn default() -> Self {
        Self {
            normalization: Normalization::Base,
            connect_timeout: Duration::from_secs(10),
            detection_timeout: Duration::ZERO,
            hbone_idle_timeout: Duration::from_secs(3600),
            default_retry: None,
            default_policy: None,
            locality: None,
            h2_upgrade: false,
            tcp_keepalive: None,
            virtual_services_export_to: Vec::new(),
            rules_export_to: Vec::new(),
            server_header: SERVER.into(),
            trusted_proxies: 0,
            proxy_protocol: false,
            http10: false,
            drain: Duration::from_secs(5),
            no_debug_headers: false,
            no_attempt_count: false,
            no_request_id: false,
            forward_host: false,
            forward_port: false,
            mesh_grants: false,
            proxy_metadata: BTreeMap::new(),
            access_log: None,
            log_json: None,
        }
    }
}

/// Which requests proxies log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Nothing,
    /// Each of them.
    All,
}

/// What dashboards and tests look for.
pub const SERVER: &str = "istio-envoy";
