//! Settings of the node agent: flags over environment over defaults, checked together.
//!
//! A flag `--cni-conf-name=X` and a variable `CNI_CONF_NAME=X` are the same setting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use mesh_core::env::{Env, parse_bool};

use crate::eligibility::{Eligibility, EnablementSelector, comma_list, default_selectors, selector_error};
use crate::install::kubeconfig::server_url;
use crate::redirect::ProbeAddresses;

/// What the agent works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node_name: String,
    /// Own pod.
    pub pod_name: String,
    /// Own namespace.
    pub pod_namespace: String,
    /// Which pods to capture.
    pub eligibility: Eligibility,
    /// The same selectors, for the plugin's configuration.
    pub selectors: Vec<EnablementSelector>,
    /// Namespaces that are left alone.
    pub exclude_namespaces: Vec<String>,
    /// DNS capture, unless a pod says otherwise.
    pub dns_capture: bool,
    /// Rules for IPv6 too.
    pub ipv6: bool,
    /// Bring the rules of enrolled pods up to date at start.
    pub reconcile_rules: bool,
    /// Plugin retries and then refuses when it cannot tell whether a pod is to be captured.
    pub detection_retry: bool,
    /// Node's network namespace is that of the node's first process; else the own one.
    pub switch_to_host_netns: bool,
    /// Remove the plugin from the node at every stop, restarts included.
    pub disable_safe_upgrade: bool,
    /// URL of the API server for the plugin, or why there is none.
    pub api_server: Result<String, String>,
    /// Probe source addresses.
    pub probes: ProbeAddresses,
    /// CNI configuration file to extend; the first valid one when absent.
    pub conf_name: Option<String>,
    /// Log level of the plugin.
    pub plugin_log_level: String,
    /// Where things are.
    pub paths: Paths,
    /// Metrics port.
    pub monitoring: SocketAddr,
    /// Health port.
    pub health: SocketAddr,
    /// Settings that are accepted and have no effect, with the reason. Logged at start.
    pub remarks: Vec<String>,
}

/// Files and directories, as the agent sees them.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Binaries of the image.
    pub image_bin: PathBuf,
    /// Binaries of the node.
    pub host_bin: PathBuf,
    /// CNI configuration of the node.
    pub net_dir: PathBuf,
    /// Processes of the node.
    pub host_proc: PathBuf,
    /// Prefix under which the node's own paths are mounted.
    pub host_root: PathBuf,
    /// Sockets and kubeconfig shared with the plugin.
    pub run_dir: PathBuf,
    /// Socket for node proxies.
    pub ztunnel_socket: PathBuf,
    /// Own service-account token, CA and namespace.
    pub service_account: PathBuf,
}

/// How to log, read before everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// One JSON object a line.
    pub json: bool,
    /// Filter directives.
    pub filter: String,
}

/// Lays the command line over the environment.
///
/// # Errors
/// Every argument that is not a known flag, or lacks its value.
pub fn overlay(arguments: impl IntoIterator<Item = String>, env: &Env) -> Result<Env, Vec<String>> {
    let mut settings: Vec<(String, String)> =
        env.with_prefix("").map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut errors = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--") else {
            errors.push(format!("{argument:?}: expected a flag such as --log-level=info"));
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let name = name.replace('-', "_").to_uppercase();
        if !FLAGS.contains(&name.as_str()) {
            errors.push(format!("--{flag}: unknown flag"));
            continue;
        }
        let value = value
            .or_else(|| if SWITCHES.contains(&name.as_str()) { Some("true".to_owned()) } else { arguments.next() });
        match value {
            Some(value) => settings.push((name, value)),
            None => errors.push(format!("--{flag}: expected a value")),
        }
    }
    if errors.is_empty() { Ok(settings.into_iter().collect()) } else { Err(errors) }
}

impl LogSettings {
    /// From the settings; what cannot be read is the default, because a logger must come up to say so.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        let levels = env.get("LOG_OUTPUT_LEVEL").unwrap_or_default();
        // `scope:level` as other components of the mesh spell it; `default` is every scope.
        let directives: Vec<String> = comma_list(levels)
            .iter()
            .map(|one| match one.split_once(':') {
                Some(("default" | "all", level)) => level.to_owned(),
                Some((scope, level)) => format!("{scope}={level}"),
                None => one.clone(),
            })
            .collect();
        let filter = if directives.is_empty() { "info".to_owned() } else { format!("info,{}", directives.join(",")) };
        Self { json: env.bool("LOG_AS_JSON", false).unwrap_or(false), filter }
    }
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    /// Every setting that is wrong, with its value and what was expected.
    pub fn new(env: &Env) -> Result<Self, Vec<String>> {
        let mut read = Reader { env, errors: Vec::new() };
        let probes = ProbeAddresses {
            v4: read.parsed("HOST_PROBE_SNAT_IP", "an IPv4 address", ProbeAddresses::default().v4),
            v6: read.parsed("HOST_PROBE_SNAT_IPV6", "an IPv6 address", ProbeAddresses::default().v6),
        };
        let node_name =
            read.required(if env.get("KUBERNETES_NODE_NAME").is_some() { "KUBERNETES_NODE_NAME" } else { "NODE_NAME" });
        let selectors = read.selectors();
        let exclude_namespaces = comma_list(env.get("EXCLUDE_NAMESPACES").unwrap_or_default());
        read.unsupported();
        let config = Self {
            node_name,
            pod_name: env.get("POD_NAME").unwrap_or_default().to_owned(),
            pod_namespace: read.required("POD_NAMESPACE"),
            eligibility: Eligibility::new(selectors.clone(), exclude_namespaces.clone()),
            selectors,
            exclude_namespaces,
            dns_capture: read.bool("AMBIENT_DNS_CAPTURE", false),
            ipv6: read.bool("AMBIENT_IPV6", true),
            reconcile_rules: read.bool("AMBIENT_RECONCILE_POD_RULES_ON_STARTUP", true),
            detection_retry: read.bool("ENABLE_AMBIENT_DETECTION_RETRY", false),
            switch_to_host_netns: read.bool("ALLOW_SWITCH_TO_HOST_NS", true),
            disable_safe_upgrade: read.bool("AMBIENT_DISABLE_SAFE_UPGRADE", false),
            api_server: server_url(env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT")),
            probes,
            conf_name: env.get("CNI_CONF_NAME").filter(|name| !name.is_empty()).map(str::to_owned),
            plugin_log_level: read.text("LOG_LEVEL", "warn"),
            paths: read.paths(),
            monitoring: any_address(read.parsed("MONITORING_PORT", "a port", 15014)),
            health: any_address(HEALTH_PORT),
            remarks: read.remarks(),
        };
        if read.errors.is_empty() { Ok(config) } else { Err(read.errors) }
    }
}

impl std::fmt::Display for Config {
    /// What matters, on one line. There is nothing secret in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "node={} namespace={} exclude={} dns_capture={} ipv6={} reconcile_rules={} detection_retry={} probes={},{} \
             selectors={}",
            self.node_name,
            self.pod_namespace,
            self.exclude_namespaces.join(","),
            self.dns_capture,
            self.ipv6,
            self.reconcile_rules,
            self.detection_retry,
            self.probes.v4,
            self.probes.v6,
            serde_json::to_string(&self.selectors).unwrap_or_default(),
        )
    }
}

/// Reads settings and collects what is wrong with them.
struct Reader<'a> {
    env: &'a Env,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str, default: &str) -> String {
        self.env.get(name).filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
    }

    fn required(&mut self, name: &str) -> String {
        let value = self.text(name, "");
        if value.is_empty() {
            self.errors.push(format!("{name} is not set"));
        }
        value
    }

    fn bool(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.env.get(name).filter(|text| !text.is_empty()) else { return default };
        parse_bool(value).unwrap_or_else(|| {
            self.errors.push(format!("{name}={value:?}: expected true or false"));
            default
        })
    }

    fn parsed<T: FromStr>(&mut self, name: &str, expected: &str, default: T) -> T {
        let Some(value) = self.env.get(name).filter(|text| !text.is_empty()) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.errors.push(format!("{name}={value:?}: expected {expected}"));
            default
        })
    }

    fn selectors(&mut self) -> Vec<EnablementSelector> {
        const NAME: &str = "AMBIENT_ENABLEMENT_SELECTOR";
        let Some(text) = self.env.get(NAME).filter(|text| !text.trim().is_empty()) else { return default_selectors() };
        let all: Vec<EnablementSelector> = match serde_saphyr::from_str(text) {
            Ok(all) => all,
            Err(error) => {
                self.errors.push(format!("{NAME}: expected a YAML list of selectors: {error}"));
                return Vec::new();
            }
        };
        let both = all.iter().flat_map(|one| [&one.pod_selector, &one.namespace_selector]);
        self.errors.extend(both.filter_map(selector_error).map(|error| format!("{NAME}: {error}")));
        all
    }

    /// Settings that ask for something that is not there: better not to start than to do something else.
    fn unsupported(&mut self) {
        for (name, only, why) in [
            ("AMBIENT_ENABLED", true, "this agent serves ambient mode only"),
            ("CHAINED_CNI_PLUGIN", true, "a stand-alone configuration file is not supported"),
            ("SKIP_TLS_VERIFY", false, "the API server is always verified"),
            ("ISTIO_OWNED_CNI_CONFIG", false, "a configuration file of its own is not supported"),
        ] {
            if self.bool(name, only) != only {
                self.errors.push(format!("{name}={}: {why}", !only));
            }
        }
        if let Some(file) = self.env.get("KUBE_CA_FILE").filter(|text| !text.is_empty()) {
            self.errors.push(format!("KUBE_CA_FILE={file:?}: only the authority of the service account is supported"));
        }
    }

    fn remarks(&mut self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.bool("NATIVE_NFTABLES", true) {
            remarks.push("NATIVE_NFTABLES=false: only nftables is supported for now, so nftables is used".to_owned());
        }
        if self.env.get("FORCE_IPTABLES_BINARY").is_some_and(|text| !text.is_empty()) {
            remarks.push("FORCE_IPTABLES_BINARY has no effect: only nftables is supported for now".to_owned());
        }
        for name in ["KUBECONFIG_MODE", "CNI_CONF_GROUP_READ", "SKIP_CNI_BINARIES", "CTRLZ_PORT", "CTRLZ_ADDRESS"] {
            if self.env.get(name).is_some_and(|text| !text.is_empty()) {
                remarks.push(format!("{name} has no effect"));
            }
        }
        remarks
    }

    fn paths(&self) -> Paths {
        let path = |name: &str, default: &str| PathBuf::from(self.text(name, default));
        Paths {
            image_bin: "/opt/cni/bin".into(),
            host_bin: "/host/opt/cni/bin".into(),
            net_dir: path("MOUNTED_CNI_NET_DIR", "/host/etc/cni/net.d"),
            host_proc: "/host/proc".into(),
            host_root: "/host".into(),
            run_dir: path("CNI_AGENT_RUN_DIR", "/var/run/istio-cni"),
            ztunnel_socket: path("ZTUNNEL_UDS_ADDRESS", "/var/run/ztunnel/ztunnel.sock"),
            service_account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
        }
    }
}

fn any_address(port: u16) -> SocketAddr {
    let ip: IpAddr =
        if mesh_sys::socket::ipv6_available() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, port)
}

/// Port of `/healthz` and `/readyz`.
const HEALTH_PORT: u16 = 8000;
/// Settings that may be given as flags. Those about iptables, repair and introspection are accepted so that charts
/// made for other agents keep working.
const FLAGS: [&str; 37] = [
    "AMBIENT_DISABLE_SAFE_UPGRADE",
    "AMBIENT_DNS_CAPTURE",
    "AMBIENT_ENABLED",
    "AMBIENT_ENABLEMENT_SELECTOR",
    "AMBIENT_IPV6",
    "AMBIENT_RECONCILE_POD_RULES_ON_STARTUP",
    "CHAINED_CNI_PLUGIN",
    "CNI_AGENT_RUN_DIR",
    "CNI_CONF_GROUP_READ",
    "CNI_CONF_NAME",
    "CTRLZ_ADDRESS",
    "CTRLZ_PORT",
    "ENABLE_AMBIENT_DETECTION_RETRY",
    "EXCLUDE_NAMESPACES",
    "ISTIO_OWNED_CNI_CONFIG",
    "ISTIO_OWNED_CNI_CONFIG_FILENAME",
    "KUBECONFIG_MODE",
    "KUBE_CA_FILE",
    "LOG_AS_JSON",
    "LOG_LEVEL",
    "LOG_OUTPUT_LEVEL",
    "MONITORING_PORT",
    "MOUNTED_CNI_NET_DIR",
    "NATIVE_NFTABLES",
    "POD_NAMESPACE",
    "REPAIR_BROKEN_POD_LABEL_KEY",
    "REPAIR_BROKEN_POD_LABEL_VALUE",
    "REPAIR_DELETE_PODS",
    "REPAIR_ENABLED",
    "REPAIR_INIT_CONTAINER_EXIT_CODE",
    "REPAIR_INIT_CONTAINER_NAME",
    "REPAIR_LABEL_PODS",
    "REPAIR_REPAIR_PODS",
    "REPAIR_SIDECAR_ANNOTATION",
    "SKIP_CNI_BINARIES",
    "SKIP_TLS_VERIFY",
    "ZTUNNEL_UDS_ADDRESS",
];
/// Flags that mean `true` when no value follows.
const SWITCHES: [&str; 13] = [
    "AMBIENT_DISABLE_SAFE_UPGRADE",
    "AMBIENT_DNS_CAPTURE",
    "AMBIENT_ENABLED",
    "AMBIENT_IPV6",
    "AMBIENT_RECONCILE_POD_RULES_ON_STARTUP",
    "CHAINED_CNI_PLUGIN",
    "CNI_CONF_GROUP_READ",
    "ENABLE_AMBIENT_DETECTION_RETRY",
    "ISTIO_OWNED_CNI_CONFIG",
    "LOG_AS_JSON",
    "NATIVE_NFTABLES",
    "REPAIR_ENABLED",
    "SKIP_TLS_VERIFY",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let base = [("NODE_NAME", "n1"), ("POD_NAMESPACE", "istio-system")];
        Config::new(&base.iter().chain(extra).copied().collect())
    }

    #[test]
    fn defaults_are_those_of_the_chart() {
        let config = config(&[("EXCLUDE_NAMESPACES", " kube-system ,, x ")]).unwrap();
        assert_eq!(config.exclude_namespaces, ["kube-system", "x"]);
        assert!(config.ipv6 && config.reconcile_rules && !config.dns_capture && config.remarks.is_empty());
        assert_eq!(config.paths.net_dir.to_str(), Some("/host/etc/cni/net.d"));
        assert_eq!(config.monitoring.port(), 15014);
    }

    #[test]
    fn every_wrong_setting_is_reported_at_once() {
        let errors = config(&[
            ("AMBIENT_IPV6", "yes"),
            ("POD_NAMESPACE", ""),
            ("HOST_PROBE_SNAT_IP", "x"),
            ("CHAINED_CNI_PLUGIN", "false"),
        ]);
        let text = errors.unwrap_err().join("\n");
        for part in
            ["AMBIENT_IPV6=\"yes\"", "POD_NAMESPACE is not set", "HOST_PROBE_SNAT_IP=\"x\"", "CHAINED_CNI_PLUGIN=false"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env: Env = [("CNI_CONF_NAME", "env"), ("MONITORING_PORT", "1"), ("NODE_NAME", "n")].into_iter().collect();
        let arguments =
            ["--cni-conf-name=flag", "--monitoring-port", "2", "--ambient-dns-capture", "--pod-namespace=x"];
        let env = overlay(arguments.map(str::to_owned), &env).unwrap();
        let config = Config::new(&env).unwrap();
        assert_eq!((config.conf_name.as_deref(), config.monitoring.port()), (Some("flag"), 2));
        assert!(config.dns_capture);
    }

    #[test]
    fn every_wrong_flag_is_reported_at_once() {
        let arguments = ["install", "--no-such-flag=1", "--log-level"].map(str::to_owned);
        let text = overlay(arguments, &Env::default()).unwrap_err().join("\n");
        assert!(text.contains("install") && text.contains("no-such-flag") && text.contains("log-level"), "{text}");
    }

    #[test]
    fn iptables_settings_say_that_nftables_is_used() {
        let remarks = config(&[("NATIVE_NFTABLES", "false")]).unwrap().remarks;
        assert!(remarks[0].contains("only nftables"), "{remarks:?}");
    }

    #[test]
    fn selectors_come_as_yaml_and_are_checked() {
        let yaml = "- podSelector: {matchLabels: {a: b}}\n";
        assert_eq!(config(&[("AMBIENT_ENABLEMENT_SELECTOR", yaml)]).unwrap().selectors.len(), 1);
        let yaml = "- podSelector: {matchExpressions: [{key: a, operator: Like}]}\n";
        assert!(config(&[("AMBIENT_ENABLEMENT_SELECTOR", yaml)]).unwrap_err().join("").contains("Like"));
    }

    #[test]
    fn log_scopes_are_read_as_other_components_spell_them() {
        let env: Env =
            [("LOG_OUTPUT_LEVEL", "default:warn,cni-agent:debug"), ("LOG_AS_JSON", "true")].into_iter().collect();
        assert_eq!(LogSettings::new(&env), LogSettings { json: true, filter: "info,warn,cni-agent=debug".into() });
    }
}
