//! Settings of the process, read once from the environment. Nothing else reads the environment.
//!
//! All mistakes are reported together. A setting of the reference that this version cannot honour
//! is refused, never ignored.

mod cpu;
mod reader;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::env::Env;
use mesh_identity::KeyExchange;
use mesh_telemetry::log::Format;
use serde_json::{Map, Value, json};

use reader::Reader;

/// Settings. Units are in the types; defaults in [`Config::from_env`].
#[derive(Clone, Debug)]
pub struct Config {
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
    /// `PACKET_MARK`: mark of every socket of the data path, which exempts it from capture; never 0.
    pub packet_mark: u32,
    /// `ENABLE_ORIG_SRC`.
    pub original_source: OriginalSource,
    /// `IPV6_ENABLED`.
    pub ipv6: bool,
    /// `ENABLE_RESPONSE_BAGGAGE`: describe the destination in responses.
    pub response_baggage: bool,
    /// `XDS_ADDRESS`: URL.
    pub xds_address: String,
    /// `XDS_ROOT_CA`.
    pub xds_root: Root,
    /// `ALT_XDS_HOSTNAME`.
    pub alt_xds_hostname: Option<String>,
    /// `XDS_HEADER_*`.
    pub xds_headers: Vec<(String, String)>,
    /// `CA_ADDRESS`: URL.
    pub ca_address: String,
    /// `CA_ROOT_CA`.
    pub ca_root: Root,
    /// `ALT_CA_HOSTNAME`.
    pub alt_ca_hostname: Option<String>,
    /// `CA_HEADER_*`.
    pub ca_headers: Vec<(String, String)>,
    /// `AUTH_TOKEN`.
    pub token: Token,
    /// `SECRET_TTL`: requested life of certificates.
    pub secret_ttl: Duration,
    /// Own pod, for the node id and metadata.
    pub own: Own,
    /// `ISTIO_META_*` and `ISTIO_METAJSON_*`.
    pub metadata: BTreeMap<String, Value>,
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
    /// `COMPLIANCE_POLICY`.
    pub key_exchange: KeyExchange,
    /// `AUTHZ_POLICY_INFO_LOGGING`.
    pub policy_info_logging: bool,
    /// `RUST_LOG`, with our own first directive.
    pub log_filter: String,
    /// `LOG_FORMAT`.
    pub log_format: Format,
    /// `PROMISE_POLICY_BEFORE_TRAFFIC`: `strict` or `reference`.
    pub policy_before_traffic: Promise,
    /// Settings that were given and have no effect in this version; logged at the start.
    pub without_effect: Vec<String>,
}

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// `POD_NAME`.
    pub pod_name: String,
    /// `POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `INSTANCE_IP`.
    pub instance_ip: String,
    /// `SERVICE_ACCOUNT`.
    pub service_account: String,
    /// `TRUST_DOMAIN`.
    pub trust_domain: String,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `KEEPALIVE_TIME`: idle time before the first probe.
    pub time: Duration,
    /// `KEEPALIVE_INTERVAL`: between probes.
    pub interval: Duration,
    /// `KEEPALIVE_RETRIES`: unanswered probes that end the connection.
    pub retries: u32,
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

/// Who vouches for a control-plane server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A file, read again each time.
    File(PathBuf),
    /// The operating system's bundle.
    System,
    /// PEM text.
    Inline(String),
}

/// What proves who we are to the control plane.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file, read again each time.
    File(PathBuf),
    /// The token itself.
    Literal(String),
    /// Nothing.
    None,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Literal(_) => f.write_str("Literal(<redacted>)"),
            Self::None => f.write_str("None"),
        }
    }
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
    /// Every setting that is malformed, contradicts another or cannot be honoured.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let mut read = Reader::new(env);
        refuse_unsupported(&mut read);
        let config = Self {
            network: read.text("NETWORK", ""),
            node: read.optional("NODE_NAME"),
            cluster_id: read.first(&["ISTIO_META_CLUSTER_ID", "CLUSTER_ID"], "Kubernetes"),
            cluster_domain: read.text("CLUSTER_DOMAIN", "cluster.local"),
            inpod_uds: read.text("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock").into(),
            port_reuse: read.bool("INPOD_PORT_REUSE", true),
            packet_mark: packet_mark(&mut read),
            original_source: original_source(&mut read),
            ipv6: read.bool("IPV6_ENABLED", true),
            response_baggage: read.bool("ENABLE_RESPONSE_BAGGAGE", true),
            xds_address: address(&mut read, "XDS_ADDRESS"),
            xds_root: root(&read, "XDS_ROOT_CA"),
            alt_xds_hostname: read.optional("ALT_XDS_HOSTNAME"),
            xds_headers: headers(env, "XDS_HEADER_"),
            ca_address: address(&mut read, "CA_ADDRESS"),
            ca_root: root(&read, "CA_ROOT_CA"),
            alt_ca_hostname: read.optional("ALT_CA_HOSTNAME"),
            ca_headers: headers(env, "CA_HEADER_"),
            token: token(&read),
            secret_ttl: read.duration("SECRET_TTL", Duration::from_secs(24 * 3600)),
            own: own(&mut read),
            metadata: metadata(&mut read, env),
            pool_max_streams: read.at_least("POOL_MAX_STREAMS_PER_CONNECTION", 100, 1),
            pool_unused_release: read.duration("POOL_UNUSED_RELEASE_TIMEOUT", Duration::from_secs(300)),
            stream_window: window(&mut read, "HTTP2_STREAM_WINDOW_SIZE", 4 << 20, HTTP2_WINDOW_MAX),
            connection_window: window(&mut read, "HTTP2_CONNECTION_WINDOW_SIZE", 16 << 20, HTTP2_WINDOW_MAX),
            frame_size: window(&mut read, "HTTP2_FRAME_SIZE", 1 << 20, HTTP2_FRAME_MAX),
            keepalive: keepalive(&mut read),
            user_timeout: read.bool("USER_TIMEOUT_ENABLED", false),
            termination_deadline: termination_deadline(&mut read),
            workers: cpu::workers(&mut read),
            key_exchange: key_exchange(&mut read),
            policy_info_logging: read.bool("AUTHZ_POLICY_INFO_LOGGING", false),
            log_filter: format!("{LOG_FILTER_FIRST},{}", read.text("RUST_LOG", "info")),
            log_format: read.parsed("LOG_FORMAT", Format::Plain),
            policy_before_traffic: promise(&mut read, "PROMISE_POLICY_BEFORE_TRAFFIC"),
            without_effect: WITHOUT_EFFECT
                .iter()
                .filter(|name| env.get(name).is_some())
                .map(|name| (*name).to_owned())
                .collect(),
        };
        match read.errors() {
            errors if errors.is_empty() => Ok(config),
            errors => Err(ConfigError(errors)),
        }
    }

    /// `<type>~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`: who asks the control plane.
    #[must_use]
    pub fn node_id(&self) -> String {
        let Own { pod_name, pod_namespace, instance_ip, .. } = &self.own;
        // The last part is always this domain, whatever the cluster's is.
        format!("ztunnel~{instance_ip}~{pod_name}.{pod_namespace}~{pod_namespace}.svc.cluster.local")
    }

    /// Metadata that goes with the node id.
    #[must_use]
    pub fn node_metadata(&self) -> BTreeMap<String, Value> {
        let mut metadata: BTreeMap<String, Value> = [
            ("NAME", self.own.pod_name.as_str()),
            ("NAMESPACE", &self.own.pod_namespace),
            ("INSTANCE_IPS", &self.own.instance_ip),
            ("NODE_NAME", self.node.as_deref().unwrap_or_default()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
        metadata.extend(self.metadata.clone());
        metadata
    }

    /// The effective settings for display; holds no secret.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let seconds = |duration: Duration| format!("{}s", duration.as_secs_f64());
        json!({
            "network": self.network,
            "localNode": self.node,
            "clusterId": self.cluster_id,
            "clusterDomain": self.cluster_domain,
            "inpodUds": self.inpod_uds,
            "inpodPortReuse": self.port_reuse,
            "packetMark": self.packet_mark,
            "originalSource": format!("{:?}", self.original_source),
            "ipv6Enabled": self.ipv6,
            "responseBaggage": self.response_baggage,
            "xdsAddress": self.xds_address,
            "altXdsHostname": self.alt_xds_hostname,
            "caAddress": self.ca_address,
            "altCaHostname": self.alt_ca_hostname,
            "authToken": format!("{:?}", self.token),
            "secretTtl": seconds(self.secret_ttl),
            "proxyNodeId": self.node_id(),
            "proxyMetadata": self.node_metadata().into_iter().collect::<Map<_, _>>(),
            "poolMaxStreamsPerConn": self.pool_max_streams,
            "poolUnusedReleaseTimeout": seconds(self.pool_unused_release),
            "windowSize": self.stream_window,
            "connectionWindowSize": self.connection_window,
            "frameSize": self.frame_size,
            "keepalive": self.keepalive.map(|k| json!({
                "time": seconds(k.time), "interval": seconds(k.interval), "retries": k.retries,
            })),
            "userTimeoutEnabled": self.user_timeout,
            "selfTerminationDeadline": seconds(self.termination_deadline),
            "numWorkerThreads": self.workers,
            "keyExchange": format!("{:?}", self.key_exchange),
            "logFilter": self.log_filter,
            "promises": { "policyBeforeTraffic": format!("{:?}", self.policy_before_traffic).to_lowercase() },
        })
    }
}

/// What the reference knows and this version does not: better no start than another behaviour than
/// asked for.
fn refuse_unsupported(read: &mut Reader<'_>) {
    if !read.bool("ENABLE_PROXY", true) {
        read.error("ENABLE_PROXY=false: a proxy that does not proxy is not supported by this version");
    }
    match read.text("PROXY_MODE", "shared").as_str() {
        "shared" => {}
        "dedicated" => {
            if read.optional("PROXY_WORKLOAD_INFO").is_none() {
                read.error("PROXY_WORKLOAD_INFO is not set: expected namespace/name/service-account in dedicated mode");
            }
            read.error("PROXY_MODE=\"dedicated\" is not supported by this version: expected shared");
        }
        other => read.error(format!("PROXY_MODE={other:?}: expected shared")),
    }
    if read.optional("LOCAL_XDS").is_some() && read.optional("LOCAL_XDS_PATH").is_some() {
        read.error("LOCAL_XDS and LOCAL_XDS_PATH are both set: expected at most one");
    }
    for name in ["FAKE_CA", "XDS_ON_DEMAND", "UNSTABLE_ENABLE_SOCKS5", "TLS12_ENABLED"] {
        if read.bool(name, false) {
            read.error(format!("{name}=true is not supported by this version"));
        }
    }
    for name in ["LOCAL_XDS", "LOCAL_XDS_PATH", "CRL_PATH"] {
        if read.optional(name).is_some() {
            read.error(format!("{name} is set, but not supported by this version"));
        }
    }
    if read.text("ISTIO_META_DNS_CAPTURE", "false").eq_ignore_ascii_case("true") {
        read.error("ISTIO_META_DNS_CAPTURE=true is not supported by this version: capture of DNS must be off");
    }
}

/// Unmarked, the proxy's own connections would be captured again, without end.
fn packet_mark(read: &mut Reader<'_>) -> u32 {
    let mark = read.number("PACKET_MARK", 1337);
    if mark == 0 {
        read.error("PACKET_MARK=0: expected a mark, by which pods tell the proxy's connections from their own");
    }
    mark
}

fn original_source(read: &mut Reader<'_>) -> OriginalSource {
    match read.optional("ENABLE_ORIG_SRC") {
        None => OriginalSource::Try,
        Some(_) if read.bool("ENABLE_ORIG_SRC", true) => OriginalSource::Require,
        Some(_) => OriginalSource::Off,
    }
}

fn address(read: &mut Reader<'_>, name: &str) -> String {
    let in_cluster = read.optional("KUBERNETES_SERVICE_HOST").is_some();
    let default = if in_cluster { "https://istiod.istio-system.svc:15012" } else { "https://localhost:15012" };
    let address = read.text(name, default);
    if address.is_empty() {
        read.error(format!("{name} is empty: this version has no other source of configuration and certificates"));
    }
    if address.contains("://") { address } else { format!("https://{address}") }
}

fn root(read: &Reader<'_>, name: &str) -> Root {
    match read.text(name, "./var/run/secrets/istio/root-cert.pem") {
        text if text == "SYSTEM" => Root::System,
        text if text.contains("-----BEGIN") => Root::Inline(text),
        path => Root::File(path.into()),
    }
}

fn token(read: &Reader<'_>) -> Token {
    let exists = |path: &str| std::path::Path::new(path).exists();
    match read.optional("AUTH_TOKEN") {
        // A path that does not exist yet is still a path, not a secret to send.
        Some(text) if exists(&text) || text.starts_with(['/', '.']) => Token::File(text.into()),
        Some(text) => Token::Literal(text),
        None if exists(TOKEN_FILE) => Token::File(TOKEN_FILE.into()),
        None => Token::None,
    }
}

fn own(read: &mut Reader<'_>) -> Own {
    Own {
        pod_name: read.text("POD_NAME", ""),
        pod_namespace: read.text("POD_NAMESPACE", ""),
        instance_ip: read.text("INSTANCE_IP", "1.1.1.1"),
        service_account: read.text("SERVICE_ACCOUNT", ""),
        trust_domain: read.text("TRUST_DOMAIN", mesh_core::TrustDomain::DEFAULT),
    }
}

fn headers(env: &Env, prefix: &str) -> Vec<(String, String)> {
    env.with_prefix(prefix).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn metadata(read: &mut Reader<'_>, env: &Env) -> BTreeMap<String, Value> {
    let texts = env.with_prefix("ISTIO_META_");
    let mut metadata: BTreeMap<_, _> = texts.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    for (name, value) in env.with_prefix("ISTIO_METAJSON_") {
        match serde_json::from_str::<Map<String, Value>>(value) {
            Ok(object) => metadata.extend(object),
            Err(error) => read.error(format!("ISTIO_METAJSON_{name}={value:?}: expected a JSON object: {error}")),
        }
    }
    metadata
}

fn window(read: &mut Reader<'_>, name: &str, default: u32, max: u32) -> u32 {
    let value = read.number(name, default);
    if !(HTTP2_SIZE_MIN..=max).contains(&value) {
        read.error(format!("{name}={value}: expected {HTTP2_SIZE_MIN} to {max} bytes"));
    }
    value
}

fn keepalive(read: &mut Reader<'_>) -> Option<Keepalive> {
    let keepalive = Keepalive {
        time: read.duration("KEEPALIVE_TIME", Duration::from_secs(180)),
        interval: read.duration("KEEPALIVE_INTERVAL", Duration::from_secs(180)),
        retries: read.number("KEEPALIVE_RETRIES", 9),
    };
    read.bool("KEEPALIVE_ENABLED", true).then_some(keepalive)
}

/// A little less than what the kubelet gives before it kills.
fn termination_deadline(read: &mut Reader<'_>) -> Duration {
    let derived = match read.optional("TERMINATION_GRACE_PERIOD_SECONDS") {
        None => Duration::from_secs(5),
        Some(_) => {
            let grace = read.number("TERMINATION_GRACE_PERIOD_SECONDS", 10_u64);
            let less = if grace > 10 { 5 } else { 1 };
            Duration::from_secs(grace.saturating_sub(less).max(1))
        }
    };
    read.duration("CONNECTION_TERMINATION_DEADLINE", derived)
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
const TOKEN_FILE: &str = "./var/run/secrets/tokens/istio-token";
/// The smallest frame size that HTTP/2 allows; a smaller window makes no sense either.
const HTTP2_SIZE_MIN: u32 = 16 << 10;
/// RFC 9113 section 6.9.1.
const HTTP2_WINDOW_MAX: u32 = (1 << 31) - 1;
/// RFC 9113 section 6.5.2.
const HTTP2_FRAME_MAX: u32 = (1 << 24) - 1;
/// Known to the reference and harmless to leave out: they tune what this version does not have.
const WITHOUT_EFFECT: [&str; 5] = [
    "PROXY_CONFIG",
    "LOCALHOST_APP_TUNNEL",
    "PREFERED_SERVICE_NAMESPACE",
    "ISTIO_META_DNS_PROXY_ADDR",
    "PROXY_WORKLOAD_INFO",
];

#[cfg(test)]
mod tests;
