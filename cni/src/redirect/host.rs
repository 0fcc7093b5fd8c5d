//! Rules on the node itself: kubelet probes of enrolled pods come from an address of their own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use mesh_sys::netns::NetNs;

use super::{ProbeAddresses, RedirectError};

/// The addresses of enrolled pods and the rule that gives probes to them their source address. One owner writes.
#[derive(Debug)]
pub struct HostRules {
    netns: NetNs,
    probes: ProbeAddresses,
    kubelet_uid: u32,
    ipv6: bool,
    /// Address to pod UID: bounded by the pods of the node.
    pods: BTreeMap<IpAddr, String>,
}

impl HostRules {
    /// For the node whose network namespace is `netns`. Nothing is in force before the first [`HostRules::sync`].
    #[must_use]
    pub fn new(netns: NetNs, probes: ProbeAddresses, kubelet_uid: u32, ipv6: bool) -> Self {
        Self { netns, probes, kubelet_uid, ipv6, pods: BTreeMap::new() }
    }

    /// Remembers a pod's addresses for the next [`HostRules::sync`].
    pub fn remember(&mut self, uid: &str, ips: &[IpAddr]) {
        self.pods.extend(ips.iter().map(|ip| (*ip, uid.to_owned())));
    }

    /// Remembers what the node's sets hold for these pods: for an agent that has restarted and whose pods are known to
    /// be captured but not, at the moment, by which addresses.
    ///
    /// # Errors
    /// See [`RedirectError`].
    pub fn recall(&mut self, uids: &[String]) -> Result<(), RedirectError> {
        let listed = self.netns.run(|| mesh_sys::nft::list_table("inet", TABLE));
        let text = listed.map_err(|source| RedirectError::Enter { source })??.unwrap_or_default();
        self.pods.extend(elements(&text).into_iter().filter(|(_, uid)| uids.contains(uid)));
        Ok(())
    }

    /// Adds a pod's addresses. An address that another pod had is taken over.
    ///
    /// # Errors
    /// See [`RedirectError`]; the addresses are remembered and put in force with the next success.
    pub fn add(&mut self, uid: &str, ips: &[IpAddr]) -> Result<(), RedirectError> {
        let before = self.pods.clone();
        self.remember(uid, ips);
        if self.pods == before { Ok(()) } else { self.sync() }
    }

    /// Removes a pod's addresses, except those that a newer pod has taken over.
    ///
    /// # Errors
    /// See [`RedirectError`].
    pub fn remove(&mut self, uid: &str) -> Result<(), RedirectError> {
        let before = self.pods.len();
        self.pods.retain(|_, owner| owner != uid);
        if self.pods.len() == before { Ok(()) } else { self.sync() }
    }

    /// Puts exactly the known addresses in force: table, sets and rules in one transaction.
    ///
    /// # Errors
    /// See [`RedirectError`].
    pub fn sync(&self) -> Result<(), RedirectError> {
        let text = self.text();
        self.netns.run(|| Ok(mesh_sys::nft::apply(&text)?)).map_err(|source| RedirectError::Enter { source })?
    }

    /// Takes everything away, when the agent leaves the node for good.
    ///
    /// # Errors
    /// See [`RedirectError`].
    pub fn delete(&self) -> Result<(), RedirectError> {
        self.netns
            .run(|| Ok(mesh_sys::nft::apply(&format!("add table inet {TABLE}\ndelete table inet {TABLE}\n"))?))
            .map_err(|source| RedirectError::Enter { source })?
    }

    fn text(&self) -> String {
        let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
        let families: &[bool] = if self.ipv6 { &[false, true] } else { &[false] };
        for v6 in families {
            let (set, kind) = if *v6 { (SET_V6, "ipv6_addr") } else { (SET_V4, "ipv4_addr") };
            let own = self.pods.iter().filter(|(ip, _)| ip.is_ipv6() == *v6);
            let elements: Vec<String> = own.map(|(ip, uid)| format!("{ip} comment \"{uid}\"")).collect();
            let _ = writeln!(text, "\tset {set} {{\n\t\ttype {kind}");
            if !elements.is_empty() {
                let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
            }
            text.push_str("\t}\n");
        }
        text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n");
        for v6 in families {
            let (family, set) = if *v6 { ("ip6", SET_V6) } else { ("ip", SET_V4) };
            let probe = if *v6 { self.probes.v6.to_string() } else { self.probes.v4.to_string() };
            let _ = writeln!(
                text,
                "\t\tmeta l4proto tcp meta skuid {} {family} daddr @{set} counter snat {family} to {probe}",
                self.kubelet_uid
            );
        }
        text.push_str("\t}\n}\n");
        text
    }
}

/// Addresses with a comment, from the tool's listing of a table.
fn elements(listing: &str) -> Vec<(IpAddr, String)> {
    let words: Vec<&str> = listing.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()).collect();
    words
        .windows(3)
        .filter_map(|three| match three {
            [ip, "comment", uid] => Some((ip.parse().ok()?, uid.trim_matches('"').to_owned())),
            _ => None,
        })
        .collect()
}

/// The user that the node's kubelet runs as, found among its processes.
///
/// # Errors
/// When none of the processes is a kubelet, says which names were looked for.
pub fn kubelet_uid(host_proc: &Path) -> Result<u32, String> {
    let entries = std::fs::read_dir(host_proc).map_err(|error| format!("reading {}: {error}", host_proc.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let numeric = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let comm = if numeric { std::fs::read_to_string(path.join("comm")).unwrap_or_default() } else { continue };
        let is_kubelet = match comm.trim() {
            "kubelet" | "k3s" | "k3s-server" | "k3s-agent" => true,
            "kubelite" => {
                std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains("kubelet"))
            }
            _ => false,
        };
        if is_kubelet && let Some(uid) = uid_of(&path) {
            return Ok(uid);
        }
    }
    Err(format!("no process named kubelet, kubelite or k3s in {}: probes could not be told apart", host_proc.display()))
}

fn uid_of(process: &Path) -> Option<u32> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// The name that other agents of this API use on nodes.
const TABLE: &str = "istio-ambient-nat";
const SET_V4: &str = "istio-inpod-probes-v4";
const SET_V6: &str = "istio-inpod-probes-v6";

#[cfg(test)]
mod tests {
    use super::*;

    fn host(ipv6: bool) -> HostRules {
        HostRules::new(NetNs::current().unwrap(), ProbeAddresses::default(), 7, ipv6)
    }

    #[test]
    fn sets_hold_addresses_with_their_pod_and_the_rule_names_the_kubelet() {
        let mut host = host(true);
        host.pods.insert("10.0.0.5".parse().unwrap(), "uid-a".into());
        host.pods.insert("fd00::5".parse().unwrap(), "uid-a".into());
        let text = host.text();
        assert!(text.contains("elements = { 10.0.0.5 comment \"uid-a\" }"), "{text}");
        assert!(text.contains("elements = { fd00::5 comment \"uid-a\" }"), "{text}");
        assert!(
            text.contains("meta skuid 7 ip daddr @istio-inpod-probes-v4 counter snat ip to 169.254.7.127"),
            "{text}"
        );
        assert!(text.contains("snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff"), "{text}");
    }

    #[test]
    fn without_ipv6_there_is_nothing_of_it() {
        assert!(!host(false).text().contains("v6"));
    }

    #[test]
    fn cni_row_12_a_late_delete_spares_an_address_that_a_newer_pod_has() {
        let mut host = host(false);
        host.pods.insert("10.0.0.5".parse().unwrap(), "old".into());
        host.pods.insert("10.0.0.5".parse().unwrap(), "new".into());
        assert!(host.remove("old").is_ok());
        assert_eq!(host.pods.len(), 1);
    }

    #[test]
    fn elements_are_read_from_a_listing() {
        let text = "table inet t {\n\tset s {\n\t\telements = { 10.0.0.5 comment \"u-1\", 10.0.0.6 comment \"u-2\",\n\
                    \t\t\t     fd00::5 comment \"u-1\" }\n\t}\n}";
        let found = elements(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[2], ("fd00::5".parse().unwrap(), "u-1".to_owned()));
        assert!(elements("table inet t {\n}").is_empty());
    }

    #[test]
    fn the_kubelet_is_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("42");
        std::fs::create_dir(&process).unwrap();
        std::fs::write(process.join("comm"), "kubelet\n").unwrap();
        std::fs::write(process.join("status"), "Name:\tkubelet\nUid:\t3\t3\t3\t3\n").unwrap();
        assert_eq!(kubelet_uid(dir.path()), Ok(3));
        std::fs::write(process.join("comm"), "other\n").unwrap();
        assert!(kubelet_uid(dir.path()).unwrap_err().contains("kubelet"));
    }
}
