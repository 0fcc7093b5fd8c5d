//! Settings of the process, read once from the environment and from the mesh configuration file.
//! Nothing else reads the environment.
//!
//! All mistakes are reported together. `docs/node-proxy.md` has a table of all settings; a test
//! compares it with what is read here.

mod control;
mod cpu;
mod display;
mod dns;
mod mesh_file;
mod mode;
mod own;
mod reader;
mod tuning;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::env::Env;
use mesh_identity::KeyExchange;
use mesh_telemetry::log::Format;
use serde_json::Value;

pub use control::{Root, Token};
pub use mode::{LocalSource, Mode, WorkloadInfo};
pub use own::Own;
pub use tuning::Keepalive;

use mesh_file::ProxyConfig;
use reader::Reader;

/// Settings. Units are in the types; defaults in [`Config::from_env`].
#[derive(Clone, Debug)]
pub struct Config {
    /// `PROXY_MODE`: for the pods of a node, or for one workload.
    pub mode: Mode,
    /// `ENABLE_PROXY`: whether TCP is proxied at all.
    pub enable_proxy: bool,
    /// `NETWORK`: the network of this node; may be empty.
    pub network: String,
    /// `NODE_NAME`: workloads of this node are our own; `None`: all are.
    pub node: Option<String>,
    /// `ISTIO_META_CLUSTER_ID`, else `CLUSTER_ID`.
    pub cluster_id: String,
    /// `CLUSTER_DOMAIN`.
    pub cluster_domain: String,
    /// `INPOD_UDS`: socket of the node agent.
    pub inpod_uds: PathBuf,
    /// `INPOD_PORT_REUSE`: let a second proxy listen on the same ports, for upgrades.
    pub port_reuse: bool,
    /// `PACKET_MARK`: mark of every socket of the data path, which exempts it from capture. Never `None` in shared
    /// mode, never 0.
    pub packet_mark: Option<u32>,
    /// `ENABLE_ORIG_SRC`.
    pub original_source: OriginalSource,
    /// `IPV6_ENABLED`.
    pub ipv6: bool,
    /// `LOCALHOST_APP_TUNNEL`: reach application tunnels that want a PROXY header on loopback.
    pub localhost_app_tunnel: bool,
    /// `ENABLE_RESPONSE_BAGGAGE`: describe the destination in responses.
    pub response_baggage: bool,
    /// `UNSTABLE_ENABLE_SOCKS5`: listen for SOCKS5 on loopback.
    pub socks5: bool,
    /// `XDS_ADDRESS`: URL; `None`: no control plane.
    pub xds_address: Option<String>,
    /// `XDS_ROOT_CA`.
    pub xds_root: Root,
    /// `ALT_XDS_HOSTNAME`.
    pub alt_xds_hostname: Option<String>,
    /// `XDS_HEADER_*`.
    pub xds_headers: Vec<(String, String)>,
    /// `XDS_ON_DEMAND`: ask for workloads and services by name instead of taking all.
    pub on_demand: bool,
    /// `LOCAL_XDS_PATH` or `LOCAL_XDS`: workloads, services and policies from a file, beside the control plane's.
    pub local_config: Option<LocalSource>,
    /// `CA_ADDRESS`: URL; `None` only with [`Config::fake_ca`] or without a proxy.
    pub ca_address: Option<String>,
    /// `CA_ROOT_CA`.
    pub ca_root: Root,
    /// `ALT_CA_HOSTNAME`.
    pub alt_ca_hostname: Option<String>,
    /// `CA_HEADER_*`.
    pub ca_headers: Vec<(String, String)>,
    /// `FAKE_CA`: sign certificates here with a root that everybody knows. For development only.
    pub fake_ca: bool,
    /// `AUTH_TOKEN`.
    pub token: Token,
    /// `SECRET_TTL`: requested life of certificates.
    pub secret_ttl: Duration,
    /// `CRL_PATH`: revoked certificates.
    pub crl_path: Option<PathBuf>,
    /// `COMPLIANCE_POLICY`.
    pub key_exchange: KeyExchange,
    /// `TLS12_ENABLED`: allow TLS 1.2 beside 1.3 between proxies.
    pub tls12: bool,
    /// Own pod, for the node id and metadata, and for the proxy's own tunnel listener.
    pub own: Own,
    /// `ISTIO_META_*` and `ISTIO_METAJSON_*`, and `proxyMetadata` of the file.
    pub metadata: BTreeMap<String, Value>,
    /// `ISTIO_META_DNS_CAPTURE`: answer DNS queries of pods.
    pub dns_capture: bool,
    /// `ISTIO_META_DNS_PROXY_ADDR`: where, within each pod.
    pub dns_addrs: Vec<SocketAddr>,
    /// `PREFERED_SERVICE_NAMESPACE`: wins among equal names of other namespaces.
    pub preferred_service_namespace: Option<String>,
    /// `POOL_MAX_STREAMS_PER_CONNECTION`, at least 1.
    pub pool_max_streams: usize,
    /// `POOL_UNUSED_RELEASE_TIMEOUT`.
    pub pool_unused_release: Duration,
    /// `HTTP2_STREAM_WINDOW_SIZE`, bytes.
    pub stream_window: u32,
    /// `HTTP2_CONNECTION_WINDOW_SIZE`, bytes.
    pub connection_window: u32,
    /// `HTTP2_FRAME_SIZE`, bytes.
    pub frame_size: u32,
    /// `KEEPALIVE_*`; `None`: off.
    pub keepalive: Option<Keepalive>,
    /// `USER_TIMEOUT_ENABLED`.
    pub user_timeout: bool,
    /// `CONNECTION_TERMINATION_DEADLINE`, else derived: how long connections may go on after SIGTERM.
    pub termination_deadline: Duration,
    /// `ZTUNNEL_WORKER_THREADS`, at least 1.
    pub workers: usize,
    /// `proxyAdminPort` of the file: admin endpoints, on loopback.
    pub admin_port: u16,
    /// `statsPort` of the file: metrics.
    pub stats_port: u16,
    /// Readiness; fixed.
    pub readiness_port: u16,
    /// `AUTHZ_POLICY_INFO_LOGGING`.
    pub policy_info_logging: bool,
    /// `RUST_LOG`, with our own first directive.
    pub log_filter: String,
    /// `LOG_FORMAT`.
    pub log_format: Format,
    /// `PROMISE_POLICY_BEFORE_TRAFFIC`: `strict` or `reference`.
    pub policy_before_traffic: Promise,
    /// `PROMISE_WAYPOINT_REQUIRED`: `strict` or `reference`.
    pub waypoint_required: Promise,
}

/// Whether the client's address is kept towards the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalSource {
    /// If it works.
    Try,
    /// It must work.
    Require,
    /// No.
    Off,
}

/// Whether one of our promises holds or the reference's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Ours.
    Strict,
    /// The reference's.
    Reference,
}

/// All that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// Every setting that is malformed or contradicts another.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let mut read = Reader::new(env);
        let file = ProxyConfig::read(&mut read);
        let config = Self::read(&mut read, &file);
        config.check(&mut read);
        match read.errors() {
            errors if errors.is_empty() => Ok(config),
            errors => Err(ConfigError(errors)),
        }
    }

    fn read(read: &mut Reader<'_>, file: &ProxyConfig) -> Self {
        let mode = mode::mode(read);
        let ipv6 = read.bool("IPV6_ENABLED", true);
        Self {
            enable_proxy: read.bool("ENABLE_PROXY", true),
            network: read.text("NETWORK", ""),
            node: read.optional("NODE_NAME"),
            cluster_id: read.first(&["ISTIO_META_CLUSTER_ID", "CLUSTER_ID"], "Kubernetes"),
            cluster_domain: read.text("CLUSTER_DOMAIN", "cluster.local"),
            inpod_uds: read.text("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock").into(),
            port_reuse: read.bool("INPOD_PORT_REUSE", true),
            packet_mark: mode::packet_mark(read, &mode),
            original_source: original_source(read),
            ipv6,
            localhost_app_tunnel: read.bool("LOCALHOST_APP_TUNNEL", true),
            response_baggage: read.bool("ENABLE_RESPONSE_BAGGAGE", true),
            socks5: read.bool("UNSTABLE_ENABLE_SOCKS5", false),
            xds_address: control::address(read, "XDS_ADDRESS", file),
            xds_root: control::root(read, "XDS_ROOT_CA"),
            alt_xds_hostname: read.optional("ALT_XDS_HOSTNAME"),
            xds_headers: read.prefixed("XDS_HEADER_"),
            on_demand: read.bool("XDS_ON_DEMAND", false),
            local_config: mode::local_source(read),
            ca_address: control::address(read, "CA_ADDRESS", file),
            ca_root: control::root(read, "CA_ROOT_CA"),
            alt_ca_hostname: read.optional("ALT_CA_HOSTNAME"),
            ca_headers: read.prefixed("CA_HEADER_"),
            fake_ca: read.bool("FAKE_CA", false),
            token: control::token(read),
            secret_ttl: read.duration("SECRET_TTL", Duration::from_secs(24 * 3600)),
            crl_path: read.optional("CRL_PATH").map(Into::into),
            key_exchange: key_exchange(read),
            tls12: read.bool("TLS12_ENABLED", false),
            own: own::own(read),
            metadata: own::metadata(read, file),
            dns_capture: dns::capture(read),
            dns_addrs: dns::addresses(read, ipv6),
            preferred_service_namespace: read.optional("PREFERED_SERVICE_NAMESPACE"),
            pool_max_streams: read.at_least("POOL_MAX_STREAMS_PER_CONNECTION", 100, 1),
            pool_unused_release: read.duration("POOL_UNUSED_RELEASE_TIMEOUT", Duration::from_secs(300)),
            stream_window: tuning::window(read, "HTTP2_STREAM_WINDOW_SIZE", 4 << 20),
            connection_window: tuning::window(read, "HTTP2_CONNECTION_WINDOW_SIZE", 16 << 20),
            frame_size: tuning::frame(read, "HTTP2_FRAME_SIZE", 1 << 20),
            keepalive: tuning::keepalive(read),
            user_timeout: read.bool("USER_TIMEOUT_ENABLED", false),
            termination_deadline: tuning::termination_deadline(read),
            workers: cpu::workers(read, file.concurrency),
            admin_port: file.admin_port.unwrap_or(ADMIN_PORT),
            stats_port: file.stats_port.unwrap_or(STATS_PORT),
            readiness_port: READINESS_PORT,
            policy_info_logging: read.bool("AUTHZ_POLICY_INFO_LOGGING", false),
            log_filter: format!("{LOG_FILTER_FIRST},{}", read.text("RUST_LOG", "info")),
            log_format: read.parsed("LOG_FORMAT", Format::Plain),
            policy_before_traffic: promise(read, "PROMISE_POLICY_BEFORE_TRAFFIC"),
            waypoint_required: promise(read, "PROMISE_WAYPOINT_REQUIRED"),
            mode,
        }
    }

    /// What no setting says alone.
    fn check(&self, read: &mut Reader<'_>) {
        if self.on_demand && self.dns_capture {
            read.error(
                "XDS_ON_DEMAND=true: expected ISTIO_META_DNS_CAPTURE=false with it, names cannot be asked for one by one",
            );
        }
        if self.on_demand && self.xds_address.is_none() {
            read.error("XDS_ON_DEMAND=true: expected XDS_ADDRESS to name whom to ask");
        }
        if self.ca_address.is_none() && !self.fake_ca && self.enable_proxy {
            read.error("CA_ADDRESS is empty: expected a URL, or FAKE_CA=true for development");
        }
        let ports = [self.admin_port, self.stats_port, self.readiness_port];
        if ports.iter().any(|port| ports.iter().filter(|other| port == *other).count() > 1) {
            read.error(format!("ports of admin, stats, readiness are {ports:?}: expected three different ones"));
        }
    }
}

fn original_source(read: &mut Reader<'_>) -> OriginalSource {
    match read.optional("ENABLE_ORIG_SRC") {
        None => OriginalSource::Try,
        Some(_) if read.bool("ENABLE_ORIG_SRC", true) => OriginalSource::Require,
        Some(_) => OriginalSource::Off,
    }
}

fn key_exchange(read: &mut Reader<'_>) -> KeyExchange {
    match read.optional("COMPLIANCE_POLICY").as_deref() {
        None => KeyExchange::Default,
        Some("pqc") => KeyExchange::PostQuantum,
        Some(other) => {
            read.error(format!("COMPLIANCE_POLICY={other:?}: expected pqc"));
            KeyExchange::Default
        }
    }
}

fn promise(read: &mut Reader<'_>, name: &str) -> Promise {
    match read.text(name, "strict").as_str() {
        "strict" => Promise::Strict,
        "reference" => Promise::Reference,
        other => {
            read.error(format!("{name}={other:?}: expected strict or reference"));
            Promise::Strict
        }
    }
}

/// First directive of every log filter, which the tools that read `/logging` expect.
const LOG_FILTER_FIRST: &str = "hickory_server::server=off";
/// Admin endpoints, on loopback.
const ADMIN_PORT: u16 = 15000;
/// Metrics.
const STATS_PORT: u16 = 15020;
/// Readiness.
const READINESS_PORT: u16 = 15021;

#[cfg(test)]
mod tests;
