//! Settings of the process: flags, then environment, then defaults. Every mistake is reported, not only the first.

mod flags;
mod gateways;
pub mod idle;
pub mod mesh;
mod mesh_l7;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::labels;
use mesh_core::duration;
use mesh_core::env::{Env, parse_bool};
use mesh_core::names::NamespacedName;

pub use flags::{Cli, Command, DiscoveryFlags};

use crate::allocate::Pools;
use crate::ca::authority::Lifetimes;
use crate::publish::Debounce;
use crate::world::ProxySettings;

/// Effective settings. Holds no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// DNS suffix of services. `--domain`.
    pub domain: String,
    /// Name of the own cluster. `--clusterID`, `CLUSTER_ID`.
    pub cluster_id: String,
    /// Other names of the own cluster. `--clusterAliases`.
    pub cluster_aliases: Vec<String>,
    /// Mesh configuration to use while there is no ConfigMap. `--meshConfig`.
    pub mesh_config_file: PathBuf,
    /// Whether there is a cluster; else files are all there is. `--registries`.
    pub cluster: bool,
    /// Directory of objects. `--configDir`.
    pub config_dir: Option<PathBuf>,
    /// Readiness and debugging. `--httpAddr`.
    pub http_addr: String,
    /// Metrics and debugging. `--monitoringAddr`.
    pub monitoring_addr: String,
    /// Plaintext xDS; not served unless asked for. `--grpcAddr`.
    pub grpc_addr: Option<String>,
    /// xDS and CA over TLS. `--secureGRPCAddr`.
    pub secure_grpc_addr: String,
    /// Webhooks over TLS; none where they are not served. `--httpsAddr`.
    pub https_addr: Option<String>,
    /// How long open work may take to end. `--shutdownDuration`.
    pub shutdown: Duration,
    /// Pings to idle clients. `--keepaliveInterval`, `--keepaliveTimeout`.
    pub keepalive: (Duration, Duration),
    /// Streams are ended after this time, so that clients spread over replicas. `--keepaliveMaxServerConnectionAge`.
    pub max_connection_age: Option<Duration>,
    /// Log filter. `RUST_LOG`, else `--log_output_level`.
    pub log_filter: String,
    /// Log lines as JSON. `--log_as_json`.
    pub log_json: bool,
    /// Own namespace. `POD_NAMESPACE`.
    pub namespace: String,
    /// Own name, which is the identity in leader elections. `POD_NAME`.
    pub pod_name: String,
    /// Own revision. `REVISION`.
    pub revision: String,
    /// Debounce of changes. `PILOT_DEBOUNCE_AFTER`, `PILOT_DEBOUNCE_MAX`.
    pub debounce: Debounce,
    /// Responses built at the same time. `PILOT_PUSH_THROTTLE`.
    pub push_throttle: usize,
    /// New streams a second. `PILOT_MAX_REQUESTS_PER_SECOND`.
    pub streams_per_second: usize,
    /// Whether xDS over TLS is authenticated. `XDS_AUTH`.
    pub xds_auth: bool,
    /// Whether a node must be of its caller's namespace. `PILOT_ENABLE_XDS_IDENTITY_CHECK`.
    pub identity_check: bool,
    /// Audiences of tokens. `TOKEN_AUDIENCES`.
    pub audiences: Vec<String>,
    /// Accounts that may impersonate the pods of their node. `CA_TRUSTED_NODE_ACCOUNTS`.
    pub trusted_node_accounts: Vec<NamespacedName>,
    /// Lifetimes of certificates. `DEFAULT_WORKLOAD_CERT_TTL`, `MAX_WORKLOAD_CERT_TTL`.
    pub lifetimes: Lifetimes,
    /// Folder of plugged-in key material. `ROOT_CA_DIR`.
    pub root_ca_dir: PathBuf,
    /// Whether the set of roots may change. `ISTIO_MULTIROOT_MESH`.
    pub multi_root: bool,
    /// Whether revocation lists of the authority are distributed. `PILOT_ENABLE_CA_CRL`.
    pub revocation_lists: bool,
    /// Whether roots are distributed as a ClusterTrustBundle. `ENABLE_CLUSTER_TRUST_BUNDLE_API`.
    pub trust_bundle: bool,
    /// Further names of the serving certificate. `ISTIOD_CUSTOM_HOST`.
    pub custom_hosts: Vec<String>,
    /// Whether status is written. `AMBIENT_ENABLE_STATUS`.
    pub status: bool,
    /// Whether writers elect a leader, or always write. `ENABLE_LEADER_ELECTION`.
    pub leader_election: bool,
    /// Whether dry-run policies are sent. `AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`.
    pub dry_run: bool,
    /// Whether workloads behind a waypoint take connections from it only. `PILOT_AUTO_ALLOW_WAYPOINT_POLICY`.
    pub implicit_waypoint_allow: bool,
    /// Whether ServiceEntries select pods. `PILOT_ENABLE_SERVICEENTRY_SELECT_PODS`.
    pub entries_select_pods: bool,
    /// Whether Services select WorkloadEntries. `PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES`.
    pub services_select_workload_entries: bool,
    /// Blocks to allocate addresses of ServiceEntries from; none where it is off. `PILOT_ENABLE_IP_AUTOALLOCATE`,
    /// `PILOT_IP_AUTOALLOCATE_IPV4_PREFIX`, `PILOT_IP_AUTOALLOCATE_IPV6_PREFIX`.
    pub address_pools: Option<Pools>,
    /// Whether workloads that are no pods can register themselves. `PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION`.
    pub registration: bool,
    /// How long the entry of such a workload stays after it left. `PILOT_WORKLOAD_ENTRY_GRACE_PERIOD`.
    pub registration_grace: Duration,
    /// Whether other clusters and networks are part of the mesh. `AMBIENT_ENABLE_MULTI_NETWORK`.
    pub multi_network: bool,
    /// How long another cluster may keep us from starting. `PILOT_REMOTE_CLUSTER_TIMEOUT`.
    pub remote_cluster_timeout: Duration,
    /// Whether `/debug` is served on the readiness port too. `ENABLE_DEBUG_ON_HTTP`.
    pub debug_on_http: bool,
    /// Whether `/debug/force_disconnect` is served. `UNSAFE_ENABLE_ADMIN_ENDPOINTS`.
    pub unsafe_admin: bool,
    /// How the proxies of Gateways are deployed.
    pub proxies: Arc<ProxySettings>,
    /// Accepted settings that have no effect, to be logged.
    pub warnings: Vec<String>,
}

/// Every setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct ConfigError {
    /// One sentence a setting.
    pub problems: Vec<String>,
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    /// All problems at once.
    pub fn new(flags: &DiscoveryFlags, env: &Env, cpus: usize) -> Result<Self, ConfigError> {
        let mut read = Reader { env, problems: Vec::new() };
        let throttle = (15 + 5 * cpus).min(100);
        let text =
            |name: &str, default: &str| env.get(name).filter(|text| !text.is_empty()).unwrap_or(default).to_owned();
        let config = Self {
            domain: flags.domain.trim_start_matches('.').to_owned(),
            cluster_id: flags.cluster_id.clone().unwrap_or_else(|| text("CLUSTER_ID", "Kubernetes")),
            cluster_aliases: flags.cluster_aliases.clone(),
            mesh_config_file: flags.mesh_config.clone(),
            cluster: flags.registries.as_deref() != Some(""),
            config_dir: flags.config_dir.clone(),
            http_addr: flags.http_addr.clone(),
            monitoring_addr: flags.monitoring_addr.clone(),
            grpc_addr: flags.grpc_addr.clone().filter(|addr| !addr.is_empty()),
            secure_grpc_addr: flags.secure_grpc_addr.clone(),
            https_addr: Some(flags.https_addr.clone()).filter(|addr| !addr.is_empty()),
            shutdown: read.flag_duration("--shutdownDuration", &flags.shutdown_duration),
            keepalive: (
                read.flag_duration("--keepaliveInterval", &flags.keepalive_interval),
                read.flag_duration("--keepaliveTimeout", &flags.keepalive_timeout),
            ),
            max_connection_age: flags
                .keepalive_max_server_connection_age
                .as_ref()
                .map(|text| read.flag_duration("--keepaliveMaxServerConnectionAge", text)),
            log_filter: text("RUST_LOG", &flags::log_filter(&flags.log_output_level)),
            log_json: flags.log_as_json,
            namespace: text("POD_NAMESPACE", labels::SYSTEM_NAMESPACE),
            // Two replicas of one name would both believe to lead.
            pod_name: text("POD_NAME", &text("HOSTNAME", &format!("istiod-{:08x}", rand::random::<u32>()))),
            revision: text("REVISION", "default"),
            debounce: Debounce {
                after: read.duration("PILOT_DEBOUNCE_AFTER", "100ms"),
                max: read.duration("PILOT_DEBOUNCE_MAX", "10s"),
                endpoints: read.bool("PILOT_ENABLE_EDS_DEBOUNCE", true),
            },
            push_throttle: read.count("PILOT_PUSH_THROTTLE", throttle),
            streams_per_second: read.count("PILOT_MAX_REQUESTS_PER_SECOND", throttle),
            xds_auth: read.bool("XDS_AUTH", true),
            identity_check: read.bool("PILOT_ENABLE_XDS_IDENTITY_CHECK", true),
            audiences: list(&text("TOKEN_AUDIENCES", "istio-ca")),
            trusted_node_accounts: read.accounts("CA_TRUSTED_NODE_ACCOUNTS"),
            lifetimes: Lifetimes {
                default: read.duration("DEFAULT_WORKLOAD_CERT_TTL", "24h"),
                max: read.duration("MAX_WORKLOAD_CERT_TTL", "2160h"),
            },
            root_ca_dir: text("ROOT_CA_DIR", "/etc/cacerts").into(),
            multi_root: read.bool("ISTIO_MULTIROOT_MESH", false),
            revocation_lists: read.bool("PILOT_ENABLE_CA_CRL", true),
            trust_bundle: read.bool("ENABLE_CLUSTER_TRUST_BUNDLE_API", false),
            custom_hosts: list(&text("ISTIOD_CUSTOM_HOST", "")),
            status: read.bool("AMBIENT_ENABLE_STATUS", true),
            leader_election: read.bool("ENABLE_LEADER_ELECTION", true),
            dry_run: read.bool("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", false),
            implicit_waypoint_allow: read.bool("PILOT_AUTO_ALLOW_WAYPOINT_POLICY", false),
            entries_select_pods: read.bool("PILOT_ENABLE_SERVICEENTRY_SELECT_PODS", true),
            services_select_workload_entries: read.bool("PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES", true),
            address_pools: read.address_pools(),
            registration: read.bool("PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", true),
            registration_grace: read.duration("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "10s"),
            multi_network: read.bool("AMBIENT_ENABLE_MULTI_NETWORK", false),
            remote_cluster_timeout: read.duration("PILOT_REMOTE_CLUSTER_TIMEOUT", "30s"),
            debug_on_http: read.bool("ENABLE_DEBUG_ON_HTTP", true),
            unsafe_admin: read.bool("UNSAFE_ENABLE_ADMIN_ENDPOINTS", false),
            proxies: Arc::new(gateways::settings(&mut read)),
            warnings: warnings(flags, env),
        };
        read.problems.extend(config.contradictions().map(str::to_owned));
        if read.problems.is_empty() { Ok(config) } else { Err(ConfigError { problems: read.problems }) }
    }

    /// Settings that cannot both hold.
    fn contradictions(&self) -> impl Iterator<Item = &'static str> + use<> {
        let lifetimes = (self.lifetimes.default > self.lifetimes.max)
            .then_some("DEFAULT_WORKLOAD_CERT_TTL is longer than MAX_WORKLOAD_CERT_TTL");
        let nothing = (!self.cluster && self.config_dir.is_none())
            .then_some("--registries=\"\" needs --configDir: there would be nothing to read");
        lifetimes.into_iter().chain(nothing)
    }
}

/// Reads settings and collects what is wrong with them.
struct Reader<'a> {
    env: &'a Env,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn value<T>(&mut self, name: &str, default: T, expected: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let Some(text) = self.env.get(name).filter(|text| !text.is_empty()) else { return default };
        parse(text).unwrap_or_else(|| {
            self.problems.push(format!("{name}={text:?}: expected {expected}"));
            default
        })
    }

    fn bool(&mut self, name: &str, default: bool) -> bool {
        self.value(name, default, "true or false", parse_bool)
    }

    /// A positive number; 0 means the default.
    fn count(&mut self, name: &str, default: usize) -> usize {
        let count = self.value(name, 0, "a number of 0 or more", |text| text.parse().ok());
        if count == 0 { default } else { count }
    }

    fn duration(&mut self, name: &str, default: &str) -> Duration {
        let default = duration::parse(default).unwrap_or_default();
        self.value(name, default, "a duration such as 100ms or 24h", |text| duration::parse(text).ok())
    }

    fn flag_duration(&mut self, name: &str, text: &str) -> Duration {
        duration::parse(text).unwrap_or_else(|_| {
            self.problems.push(format!("{name}={text:?}: expected a duration such as 10s or 30m"));
            Duration::ZERO
        })
    }

    fn address_pools(&mut self) -> Option<Pools> {
        let on = self.bool("PILOT_ENABLE_IP_AUTOALLOCATE", true);
        let default = Pools::default();
        let v4 = self.value(
            "PILOT_IP_AUTOALLOCATE_IPV4_PREFIX",
            default.v4,
            "an IPv4 block such as 240.240.0.0/16",
            |text| text.parse().ok(),
        );
        let v6 =
            self.value("PILOT_IP_AUTOALLOCATE_IPV6_PREFIX", default.v6, "an IPv6 block such as 2001:2::/48", |text| {
                text.parse().ok()
            });
        on.then_some(Pools { v4, v6 })
    }

    fn accounts(&mut self, name: &str) -> Vec<NamespacedName> {
        let parse = |text: &str| list(text).iter().map(|one| one.parse().ok()).collect::<Option<Vec<_>>>();
        self.value(name, Vec::new(), "a list of namespace/account", parse)
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

/// What is accepted for compatibility and has no effect.
fn warnings(flags: &DiscoveryFlags, env: &Env) -> Vec<String> {
    let mut warnings = flags.without_effect();
    warnings.extend(idle::env(env).into_iter().map(|one| format!("{} has no effect: {}", one.field, one.reason)));
    warnings
}
