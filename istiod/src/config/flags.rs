//! The command line of `istiod discovery`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The control plane of the mesh.
#[derive(Debug, Parser)]
#[command(name = "istiod", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands of the binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve proxies: workload discovery, certificates, debugging.
    Discovery(Box<DiscoveryFlags>),
}

/// Flags of `discovery`. Names are those of the reference, so that its charts and habits keep working.
#[derive(Debug, Args, Clone)]
pub struct DiscoveryFlags {
    /// DNS suffix of services.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Name of this cluster (CLUSTER_ID when not given).
    #[arg(long = "clusterID")]
    pub cluster_id: Option<String>,
    /// Other names of this cluster.
    #[arg(long = "clusterAliases", value_delimiter = ',')]
    pub cluster_aliases: Vec<String>,
    /// Mesh configuration to use while the ConfigMap does not exist.
    #[arg(long = "meshConfig", default_value = "./etc/istio/config/mesh")]
    pub mesh_config: PathBuf,
    /// Readiness and debugging.
    #[arg(long = "httpAddr", default_value = ":8080")]
    pub http_addr: String,
    /// Metrics and debugging.
    #[arg(long = "monitoringAddr", default_value = ":15014")]
    pub monitoring_addr: String,
    /// xDS in plain text and without authentication; not served unless given.
    #[arg(long = "grpcAddr")]
    pub grpc_addr: Option<String>,
    /// xDS and certificates over TLS.
    #[arg(long = "secureGRPCAddr", default_value = ":15012")]
    pub secure_grpc_addr: String,
    /// How long open work may take to end.
    #[arg(long = "shutdownDuration", default_value = "10s")]
    pub shutdown_duration: String,
    /// Time between pings to idle clients.
    #[arg(long = "keepaliveInterval", default_value = "30s")]
    pub keepalive_interval: String,
    /// Time to wait for the answer to a ping.
    #[arg(long = "keepaliveTimeout", default_value = "10s")]
    pub keepalive_timeout: String,
    /// Streams are ended after this time; never when not given.
    #[arg(long = "keepaliveMaxServerConnectionAge")]
    pub keepalive_max_server_connection_age: Option<String>,
    /// Log levels: `info`, or `default:info,ads:debug`.
    #[arg(long = "log_output_level", default_value = "default:info")]
    pub log_output_level: String,
    /// Log lines as JSON.
    #[arg(long = "log_as_json")]
    pub log_as_json: bool,
    /// Webhooks over TLS; empty: not served.
    #[arg(long = "httpsAddr", default_value = ":15017")]
    pub https_addr: String,
    /// Networks of the mesh; not used in ambient.
    #[arg(long = "networksConfig", hide = true)]
    pub networks_config: Option<String>,
    /// Limit of requests to the API server; not needed.
    #[arg(long = "kubernetesApiQPS", hide = true)]
    pub kubernetes_api_qps: Option<String>,
    /// Limit of requests to the API server; not needed.
    #[arg(long = "kubernetesApiBurst", hide = true)]
    pub kubernetes_api_burst: Option<String>,
    /// Directory of YAML and JSON files to read objects from, and to watch; then those kinds that a cluster would need
    /// definitions for are read from the files only.
    #[arg(long = "configDir")]
    pub config_dir: Option<PathBuf>,
    /// Where services come from: `Kubernetes`, or nothing at all (`--registries=`), to read every object from --configDir.
    #[arg(long = "registries")]
    pub registries: Option<String>,
    /// Namespace of the node agent; not used yet.
    #[arg(long = "cniNamespace", hide = true)]
    pub cni_namespace: Option<String>,
    /// Cipher suites; those of the TLS library are used.
    #[arg(long = "tls-cipher-suites", hide = true)]
    pub tls_cipher_suites: Option<String>,
    /// Lowest TLS version; 1.2.
    #[arg(long = "tls-min-version", hide = true)]
    pub tls_min_version: Option<String>,
    /// Profiling; not supported.
    #[arg(long = "profile", hide = true)]
    pub profile: Option<String>,
}

impl DiscoveryFlags {
    /// Given flags that have no effect, each with the reason.
    pub(super) fn without_effect(&self) -> Vec<String> {
        let flags = [
            ("--networksConfig", self.networks_config.is_some(), "ambient reads the network from a namespace label"),
            ("--kubernetesApiQPS", self.kubernetes_api_qps.is_some(), "requests are not limited"),
            ("--kubernetesApiBurst", self.kubernetes_api_burst.is_some(), "requests are not limited"),
            (
                "--registries",
                self.registries.as_deref().is_some_and(|one| !matches!(one, "Kubernetes" | "")),
                "only Kubernetes, or nothing, can be read",
            ),
            ("--cniNamespace", self.cni_namespace.is_some(), "the node agent is not watched"),
            ("--tls-cipher-suites", self.tls_cipher_suites.is_some(), "the safe suites of the TLS library are used"),
            ("--tls-min-version", self.tls_min_version.is_some(), "TLS 1.2 and 1.3 are served"),
            ("--profile", self.profile.is_some(), "there is no profiling"),
        ];
        let given = flags.into_iter().filter(|(_, given, _)| *given);
        given.map(|(flag, _, reason)| format!("{flag} has no effect: {reason}")).collect()
    }
}

/// The levels of the reference (`default:info,ads:debug`) as filter directives; scopes become targets of ours.
pub(super) fn log_filter(levels: &str) -> String {
    let directive = |part: &str| match part.trim().split_once(':') {
        Some(("default" | "all", level)) => level.to_owned(),
        Some((scope, level)) => format!("{scope}={level}"),
        None => part.trim().to_owned(),
    };
    let filter: Vec<_> =
        levels.split(',').map(directive).map(|one| one.replace("fatal", "error").replace("none", "off")).collect();
    filter.join(",")
}
