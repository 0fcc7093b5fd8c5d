//! Settings of the process, read once from the environment. Nothing else reads it. All mistakes are reported together.

mod control;
mod reader;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::env::Env;
use mesh_core::{Identity, TrustDomain};
use mesh_identity::KeyExchange;
use mesh_telemetry::log::Format;
use serde::Deserialize;
use serde_json::{Value, json};

pub use control::{Root, Token};

use crate::report::Logged;
use reader::Reader;

/// What the process was started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Takes tunnels.
    Waypoint,
    /// Takes what its listeners say.
    Router,
}

/// Settings. Units are in the types.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first words of the command line.
    pub start: Start,
    /// `MELTEMI_GATEWAY`: namespace and name of the Gateway that this proxy is of.
    pub gateway: String,
    /// `POD_NAME`.
    pub pod_name: String,
    /// `POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `INSTANCE_IP`, several separated by commas.
    pub instance_ips: Box<[IpAddr]>,
    /// `SERVICE_ACCOUNT`.
    pub service_account: String,
    /// `TRUST_DOMAIN`.
    pub trust_domain: TrustDomain,
    /// `ISTIO_META_CLUSTER_ID`.
    pub cluster_id: String,
    /// `ISTIO_META_NETWORK`.
    pub network: String,
    /// `ISTIO_META_NODE_NAME`.
    pub node: String,
    /// Other `ISTIO_META_*`, as they were set.
    pub metadata: BTreeMap<String, String>,
    /// `XDS_ADDRESS`, else `discoveryAddress` of `PROXY_CONFIG`.
    pub xds_address: String,
    /// `XDS_ROOT_CA`.
    pub xds_root: Root,
    /// `CA_ADDR` or `CA_ADDRESS`, else as the control plane.
    pub ca_address: String,
    /// `CA_ROOT_CA`.
    pub ca_root: Root,
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
    /// `WAYPOINT_WORKER_THREADS`, else `concurrency` of `PROXY_CONFIG`, else `ISTIO_CPU_LIMIT`, else one per core; at least 1.
    pub workers: usize,
    /// `ISTIO_MEMORY_LIMIT`: bytes that the process may use; without it, or with 0, nobody looks.
    pub memory_limit: Option<u64>,
    /// `HBONE_PORT`: where tunnels are taken.
    pub hbone_port: u16,
    /// `ADMIN_PORT`: admin endpoints, on loopback.
    pub admin_port: u16,
    /// `STATS_PORT`: metrics.
    pub stats_port: u16,
    /// `PROXY_STATS_PORT`: metrics of the data path.
    pub proxy_stats_port: u16,
    /// `READINESS_PORT`.
    pub readiness_port: u16,
    /// `terminationDrainDuration` of `PROXY_CONFIG`: how long to go on accepting after SIGTERM.
    pub drain: Duration,
    /// `TERMINATION_GRACE`: how long what is under way may take after SIGTERM, at most.
    pub grace: Duration,
    /// `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`: wait for the last connection of a client instead.
    pub exit_on_zero: bool,
    /// `MINIMUM_DRAIN_DURATION`: the least time for that.
    pub drain_min: Duration,
    /// `WAYPOINT_ACCESS_LOG`.
    pub logged: Logged,
    /// `IPV6_ENABLED`.
    pub ipv6: bool,
    /// `RUST_LOG`.
    pub log_filter: String,
    /// `LOG_FORMAT`.
    pub log_format: Format,
}

/// What is read of `PROXY_CONFIG`; the rest concerns other proxies.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    discovery_address: Option<String>,
    concurrency: Option<usize>,
    termination_drain_duration: Option<String>,
}

/// All that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// Every setting that is malformed.
    pub fn from_env(start: Start, env: &Env) -> Result<Self, ConfigError> {
        let mut read = Reader::new(env);
        let file = proxy_config(&mut read);
        let config = Self::read(start, &mut read, &file);
        match read.errors() {
            errors if errors.is_empty() => Ok(config),
            errors => Err(ConfigError(errors)),
        }
    }

    fn read(start: Start, read: &mut Reader<'_>, file: &ProxyConfig) -> Self {
        let xds_address = control::address(read, &["XDS_ADDRESS"], file.discovery_address.as_deref());
        Self {
            start,
            gateway: gateway(read),
            pod_name: read.text("POD_NAME", ""),
            pod_namespace: read.text("POD_NAMESPACE", ""),
            instance_ips: instance_ips(read),
            service_account: read.text("SERVICE_ACCOUNT", "default"),
            trust_domain: trust_domain(read),
            cluster_id: read.first(&["ISTIO_META_CLUSTER_ID", "CLUSTER_ID"], "Kubernetes"),
            network: read.first(&["ISTIO_META_NETWORK", "NETWORK"], ""),
            node: read.first(&["ISTIO_META_NODE_NAME", "NODE_NAME"], ""),
            metadata: read.prefixed("ISTIO_META_").into_iter().collect(),
            ca_address: control::address(read, &["CA_ADDR", "CA_ADDRESS"], Some(&xds_address)),
            xds_address,
            xds_root: control::root(read, "XDS_ROOT_CA"),
            ca_root: control::root(read, "CA_ROOT_CA"),
            fake_ca: read.bool("FAKE_CA", false),
            token: control::token(read),
            secret_ttl: read.duration("SECRET_TTL", Duration::from_secs(24 * 3600)),
            crl_path: read.optional("CRL_PATH").map(Into::into),
            key_exchange: key_exchange(read),
            workers: workers(read, file.concurrency),
            memory_limit: Some(read.parsed("ISTIO_MEMORY_LIMIT", 0)).filter(|limit| *limit > 0),
            hbone_port: read.parsed("HBONE_PORT", 15008),
            admin_port: read.parsed("ADMIN_PORT", 15000),
            stats_port: read.parsed("STATS_PORT", 15020),
            proxy_stats_port: read.parsed("PROXY_STATS_PORT", 15090),
            readiness_port: read.parsed("READINESS_PORT", 15021),
            drain: drain(read, file),
            grace: read.duration("TERMINATION_GRACE", Duration::from_secs(25)),
            exit_on_zero: read.bool("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false),
            drain_min: read.duration("MINIMUM_DRAIN_DURATION", Duration::from_secs(5)),
            logged: read.parsed("WAYPOINT_ACCESS_LOG", Logged::default()),
            ipv6: read.bool("IPV6_ENABLED", true),
            log_filter: read.first(&["RUST_LOG"], "info"),
            log_format: read.parsed("LOG_FORMAT", Format::Plain),
        }
    }

    /// Who this proxy is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::new(self.trust_domain.clone(), &self.pod_namespace, &self.service_account)
    }

    /// `<type>~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`: who asks the control plane.
    #[must_use]
    pub fn node_id(&self) -> String {
        let kind = match self.start {
            Start::Waypoint => "waypoint",
            Start::Router => "router",
        };
        let Self { pod_name, pod_namespace, .. } = self;
        let ip = self.instance_ips.first().map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string);
        format!("{kind}~{ip}~{pod_name}.{pod_namespace}~{pod_namespace}.svc.cluster.local")
    }

    /// Metadata that goes with the node id.
    #[must_use]
    pub fn node_metadata(&self) -> BTreeMap<String, String> {
        let ips = self.instance_ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut metadata = self.metadata.clone();
        let own = [
            ("NAME", self.pod_name.clone()),
            ("NAMESPACE", self.pod_namespace.clone()),
            ("INSTANCE_IPS", ips),
            ("SERVICE_ACCOUNT", self.service_account.clone()),
            ("CLUSTER_ID", self.cluster_id.clone()),
            ("NETWORK", self.network.clone()),
        ];
        metadata.extend(own.map(|(name, value)| (name.to_owned(), value)));
        // Who names its node is sent everything of that node, which a gateway has no use for.
        metadata.remove("NODE_NAME");
        metadata
    }

    /// The effective settings for display; holds no secret.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "start": format!("{:?}", self.start),
            "gateway": self.gateway,
            "identity": self.identity().to_string(),
            "nodeId": self.node_id(),
            "clusterId": self.cluster_id,
            "network": self.network,
            "xdsAddress": self.xds_address,
            "caAddress": self.ca_address,
            "fakeCa": self.fake_ca,
            "token": format!("{:?}", self.token),
            "workers": self.workers,
            "memoryLimitBytes": self.memory_limit,
            "hbonePort": self.hbone_port,
            "adminPort": self.admin_port,
            "statsPort": self.stats_port,
            "readinessPort": self.readiness_port,
            "drainSeconds": self.drain.as_secs_f64(),
            "graceSeconds": self.grace.as_secs_f64(),
            "exitOnZeroActiveConnections": self.exit_on_zero,
            "logged": format!("{:?}", self.logged),
        })
    }
}

fn proxy_config(read: &mut Reader<'_>) -> ProxyConfig {
    let Some(text) = read.optional("PROXY_CONFIG") else { return ProxyConfig::default() };
    serde_saphyr::from_str(&text).unwrap_or_else(|error| {
        read.error(format!("PROXY_CONFIG: expected proxy configuration in YAML: {error}"));
        ProxyConfig::default()
    })
}

fn gateway(read: &mut Reader<'_>) -> String {
    let gateway = read.text("MELTEMI_GATEWAY", "");
    let parts: Vec<_> = gateway.split('/').collect();
    if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
        read.error(format!("MELTEMI_GATEWAY={gateway:?}: expected <namespace>/<name> of the Gateway"));
    }
    gateway
}

fn instance_ips(read: &mut Reader<'_>) -> Box<[IpAddr]> {
    let text = read.text("INSTANCE_IP", "");
    let mut ips = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => read.error(format!("INSTANCE_IP={part:?}: expected an address")),
        }
    }
    ips.into()
}

fn trust_domain(read: &mut Reader<'_>) -> TrustDomain {
    let name = read.text("TRUST_DOMAIN", TrustDomain::DEFAULT);
    TrustDomain::new(&name).unwrap_or_else(|error| {
        read.error(format!("TRUST_DOMAIN: {error}"));
        TrustDomain::default()
    })
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

fn workers(read: &mut Reader<'_>, concurrency: Option<usize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limit = match read.parsed("ISTIO_CPU_LIMIT", 0) {
        0 => cores,
        limit => cores.min(limit),
    };
    let automatic = concurrency.filter(|count| *count > 0).unwrap_or(limit);
    read.parsed("WAYPOINT_WORKER_THREADS", automatic).max(1)
}

fn drain(read: &mut Reader<'_>, file: &ProxyConfig) -> Duration {
    let Some(text) = &file.termination_drain_duration else { return DRAIN };
    mesh_core::duration::parse(text).unwrap_or_else(|error| {
        read.error(format!("PROXY_CONFIG: terminationDrainDuration: {error}"));
        DRAIN
    })
}

/// As the reference.
const DRAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
