//! `meltemi-bridge`: the sandbox's main CNI plugin. Connects a pod to the node's bridge and gives it
//! one address per family.
//!
//! Pods get host routes only (`/32`, `/128`), so that traffic between two pods of a node also passes
//! the node's routing: that is where service addresses are translated, in both directions.
//!
//! # Source
//!
//! CNI specification 1.1.0.

use std::env;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use mesh_sys::netns::NetNs;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::link::{self, LinkError, Links, Route, set_sysctl};

mod ipam;

use ipam::{IpamError, Lease, Ranges};

/// Name of the plugin's program and `type` in the configuration.
pub const PLUGIN_NAME: &str = "meltemi-bridge";

/// Versions of the specification whose results the plugin can write.
const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Longest configuration read; runtimes send a few kilobytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The plugin's entry in the configuration list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    cni_version: String,
    /// The bridge's name.
    bridge: String,
    /// One subnet per family; the first address is the node's.
    ranges: Vec<IpNet>,
    /// Directory of the address leases.
    data_dir: PathBuf,
}

/// A failure as the specification wants it reported.
#[derive(Debug)]
struct Failure {
    code: u32,
    message: String,
}

/// The call's parameters.
struct Call {
    container_id: String,
    netns: String,
    interface: String,
}

/// Runs the plugin: environment and standard input as the specification says. The result is the
/// process's exit code.
pub fn main() -> u8 {
    let command = env::var("CNI_COMMAND").unwrap_or_default();
    let mut stdin = Vec::new();
    let read = io::stdin().take(CONFIG_BYTES_MAX).read_to_end(&mut stdin);
    let answer = read
        .map_err(|error| Failure::new(5, format!("reading the configuration: {error}")))
        .and_then(|_| run(&command, &stdin));
    let (answer, code) = match answer {
        Ok(answer) => (answer, 0),
        Err(Failure { code, message }) => (Some(json!({"cniVersion": "1.0.0", "code": code, "msg": message})), 1),
    };
    let written = answer.map_or(Ok(()), |answer| writeln!(io::stdout(), "{answer}"));
    if written.is_err() { 1 } else { code }
}

fn run(command: &str, stdin: &[u8]) -> Result<Option<Value>, Failure> {
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS})));
    }
    let config: Config = serde_json::from_slice(stdin)
        .map_err(|error| Failure::new(6, format!("decoding the configuration: {error}")))?;
    if !VERSIONS.contains(&config.cni_version.as_str()) {
        let message = format!("version {:?} is not one of {VERSIONS:?}", config.cni_version);
        return Err(Failure::new(1, message));
    }
    match command {
        "ADD" => add(&config, &Call::from_env(true)?).map(Some),
        "DEL" => delete(&config, &Call::from_env(false)?).map(|()| None),
        "CHECK" | "STATUS" | "GC" => Ok(None),
        other => Err(Failure::new(4, format!("CNI_COMMAND {other:?} is unknown"))),
    }
}

impl Call {
    fn from_env(netns_needed: bool) -> Result<Self, Failure> {
        let variable = |name: &str, needed: bool| match env::var(name) {
            Ok(value) if !value.is_empty() => Ok(value),
            _ if needed => Err(Failure::new(4, format!("{name} is missing"))),
            _ => Ok(String::new()),
        };
        Ok(Self {
            container_id: variable("CNI_CONTAINERID", true)?,
            netns: variable("CNI_NETNS", netns_needed)?,
            interface: variable("CNI_IFNAME", true)?,
        })
    }

    /// The node's end of the pod's link; at most 15 bytes.
    fn host_link(&self) -> String {
        let id: String = self.container_id.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
        format!("veth{id}")
    }
}

fn add(config: &Config, call: &Call) -> Result<Value, Failure> {
    let ranges = Ranges::new(&config.ranges)?;
    let node = NetNs::current().map_err(|error| Failure::new(5, format!("own network namespace: {error}")))?;
    let pod =
        NetNs::open(&call.netns).map_err(|error| Failure::new(8, format!("CNI_NETNS {}: {error}", call.netns)))?;
    let store = ipam::Store::open(&config.data_dir)?;
    let lease = store.allocate(&ranges, &call.container_id)?;
    let connected = connect(config, call, &ranges, &lease, &node, &pod);
    if let Err(error) = connected {
        // The runtime calls DEL as well, but may have no configuration any more.
        let _ = store.release(&call.container_id);
        return Err(error.into());
    }
    Ok(result(config, call, &ranges, &lease))
}

fn connect(
    config: &Config,
    call: &Call,
    ranges: &Ranges,
    lease: &Lease,
    node: &NetNs,
    pod: &NetNs,
) -> Result<(), LinkError> {
    let host_link = call.host_link();
    link::configure(node, async |links: Links| {
        ensure_bridge(&links, &config.bridge, ranges).await?;
        links.delete(&host_link).await?;
        links.add_veth(&host_link, &call.interface, pod).await?;
        links.enslave(&host_link, &config.bridge).await
    })?;
    link::configure(pod, async |links: Links| {
        for setting in pod_settings(&call.interface, link::ipv6_enabled()) {
            set_sysctl(&setting, "0")?;
        }
        for address in &lease.addresses {
            links.add_address(&call.interface, IpNet::from(*address)).await?;
        }
        links.up(&call.interface).await?;
        for gateway in lease.addresses.iter().filter_map(|&address| ranges.gateway_for(address)) {
            let on_link = Route { destination: IpNet::from(gateway), gateway: None };
            links.add_route(&call.interface, on_link).await?;
            links.add_route(&call.interface, Route::default_via(gateway)).await?;
        }
        Ok(())
    })
}

/// Settings of the pod's interface that are switched off: duplicate address detection, which would
/// delay the first packet, and redirects, which would lead pods around the node's routing.
fn pod_settings(interface: &str, ipv6: bool) -> Vec<String> {
    let v4 = ["accept_redirects"].map(|name| format!("ipv4/conf/{interface}/{name}"));
    let v6 = ["accept_dad", "accept_ra", "accept_redirects"].map(|name| format!("ipv6/conf/{interface}/{name}"));
    if ipv6 { v4.into_iter().chain(v6).collect() } else { v4.to_vec() }
}

/// Makes the bridge with the node's addresses when it is not there. Callers hold the lease lock.
async fn ensure_bridge(links: &Links, bridge: &str, ranges: &Ranges) -> Result<(), LinkError> {
    keep_filter_off_bridges()?;
    if links.exists(bridge) {
        return Ok(());
    }
    links.add_bridge(bridge).await?;
    set_sysctl(&format!("ipv4/conf/{bridge}/send_redirects"), "0")?;
    for subnet in ranges.subnets() {
        if subnet.addr().is_ipv6() {
            set_sysctl(&format!("ipv6/conf/{bridge}/accept_dad"), "0")?;
        }
        links.add_address(bridge, subnet).await?;
    }
    Ok(())
}

/// Packets are translated where they are routed. Translated in the bridge as well they would go
/// round the node's routing, and a pod could not reach itself through a Service. The kernel module
/// that does it may be loaded at any time and starts switched on, so every pod sets this anew.
fn keep_filter_off_bridges() -> Result<(), LinkError> {
    for setting in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
        if std::path::Path::new("/proc/sys/net").join(setting).exists() {
            set_sysctl(setting, "0")?;
        }
    }
    Ok(())
}

fn delete(config: &Config, call: &Call) -> Result<(), Failure> {
    ipam::Store::open(&config.data_dir)?.release(&call.container_id)?;
    let node = NetNs::current().map_err(|error| Failure::new(5, format!("own network namespace: {error}")))?;
    let host_link = call.host_link();
    Ok(link::configure(&node, async |links: Links| links.delete(&host_link).await)?)
}

fn result(config: &Config, call: &Call, ranges: &Ranges, lease: &Lease) -> Value {
    let with_ip_version = config.cni_version.starts_with("0.");
    let ips: Vec<Value> = lease
        .addresses
        .iter()
        .map(|&address| {
            let mut entry = json!({
                "address": IpNet::from(address),
                "gateway": ranges.gateway_for(address),
                "interface": 2,
            });
            if let (true, Some(entry)) = (with_ip_version, entry.as_object_mut()) {
                // Required up to 0.4.0, gone since 1.0.0.
                entry.insert("version".to_owned(), json!(if address.is_ipv4() { "4" } else { "6" }));
            }
            entry
        })
        .collect();
    let routes: Vec<Value> = lease
        .addresses
        .iter()
        .map(|address| json!({"dst": if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }}))
        .collect();
    json!({
        "cniVersion": config.cni_version,
        "interfaces": [
            {"name": config.bridge},
            {"name": call.host_link()},
            {"name": call.interface, "sandbox": call.netns},
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    })
}

impl Failure {
    fn new(code: u32, message: String) -> Self {
        Self { code, message }
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        Self::new(999, error.to_string())
    }
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        let code = match &error {
            IpamError::Ranges { .. } => 7,
            IpamError::Exhausted { .. } => 11,
            IpamError::Store { .. } => 5,
        };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Self::new(code, format!("{error}{}", cause.unwrap_or_default()))
    }
}

/// The configuration list that puts this plugin first on a node.
pub fn conflist(bridge: &str, subnets: &[IpNet], data_dir: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "sandbox",
        "plugins": [{
            "type": PLUGIN_NAME,
            "bridge": bridge,
            "ranges": subnets,
            "dataDir": data_dir,
        }],
    })
}

/// The address with number `host` in a subnet, when it has one.
pub fn nth_address(subnet: IpNet, host: u32) -> Option<IpAddr> {
    ipam::nth(subnet, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(version: &str) -> Vec<u8> {
        json!({
            "cniVersion": version, "name": "n", "type": PLUGIN_NAME, "bridge": "cni0",
            "ranges": ["10.244.1.0/24"], "dataDir": "/nonexistent",
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn bad_calls_get_the_specifications_codes() {
        assert_eq!(run("ADD", b"{").unwrap_err().code, 6);
        assert_eq!(run("ADD", &config("0.1.0")).unwrap_err().code, 1);
        assert_eq!(run("DANCE", &config("1.0.0")).unwrap_err().code, 4);
        assert_eq!(run("ADD", &config("1.0.0")).unwrap_err().code, 4, "environment is missing");
        assert!(run("CHECK", &config("1.0.0")).unwrap().is_none());
        assert!(run("VERSION", b"").unwrap().unwrap().get("supportedVersions").is_some());
    }

    #[test]
    fn host_link_names_fit_and_differ_by_container() {
        let call = |id: &str| Call { container_id: id.to_owned(), netns: String::new(), interface: String::new() };
        let name = call("0123456789abcdef").host_link();
        assert_eq!(name, "veth0123456789a");
        assert_eq!(name.len(), 15);
        assert_eq!(call("a/b").host_link(), "vethab");
    }

    #[test]
    fn results_follow_the_version() {
        let call = Call { container_id: "c".into(), netns: "/n".into(), interface: "eth0".into() };
        let lease = Lease { addresses: vec!["10.244.1.2".parse().unwrap()] };
        for (version, has_ip_version) in [("0.4.0", true), ("1.0.0", false)] {
            let config: Config = serde_json::from_slice(&config(version)).unwrap();
            let ranges = Ranges::new(&config.ranges).unwrap();
            let result = result(&config, &call, &ranges, &lease);
            assert_eq!(result["ips"][0]["address"], "10.244.1.2/32");
            assert_eq!(result["ips"][0]["gateway"], "10.244.1.1");
            assert_eq!(result["ips"][0].get("version").is_some(), has_ip_version);
            assert_eq!(result["cniVersion"], version);
        }
    }
}
