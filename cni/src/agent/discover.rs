//! Finding the network namespace of a running pod among the node's processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use mesh_sys::netns::{NetNs, NetNsId};

/// Looks through the processes of the node for pods and returns the namespace of each that is asked for.
///
/// A namespace counts only if it owns one of the pod's addresses: processes of a pod may have made namespaces of
/// their own. Of several, that of the oldest process is taken.
#[must_use]
pub fn namespaces(host_proc: &Path, wanted: &BTreeMap<String, Vec<IpAddr>>) -> BTreeMap<String, NetNs> {
    let host = NetNs::open(host_proc.join("1/ns/net")).ok().map(|netns| netns.id());
    let mut found: BTreeMap<String, (u64, NetNs)> = BTreeMap::new();
    // Whether a namespace owns an address of a pod, by namespace and pod.
    let mut checked: BTreeMap<(NetNsId, String), bool> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(host_proc) else { return BTreeMap::new() };
    for entry in entries.flatten() {
        let numeric = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !numeric {
            continue;
        }
        let process = entry.path();
        let Some(uid) = std::fs::read_to_string(process.join("cgroup")).ok().and_then(|text| pod_uid(&text)) else {
            continue;
        };
        let Some(ips) = wanted.get(&uid) else { continue };
        let Ok(netns) = NetNs::open(process.join("ns/net")) else { continue };
        if Some(netns.id()) == host {
            continue;
        }
        let owns = *checked.entry((netns.id(), uid.clone())).or_insert_with(|| owns_one_of(&netns, ips));
        if !owns {
            continue;
        }
        let started =
            std::fs::read_to_string(process.join("stat")).ok().and_then(|text| start_time(&text)).unwrap_or(u64::MAX);
        match found.get(&uid) {
            Some((oldest, _)) if *oldest <= started => {}
            _ => drop(found.insert(uid, (started, netns))),
        }
    }
    found.into_iter().map(|(uid, (_, netns))| (uid, netns)).collect()
}

/// The pod UID in a cgroup file, version 1 or 2, systemd or cgroupfs. `None` without one or with several.
#[must_use]
pub fn pod_uid(cgroup: &str) -> Option<String> {
    let mut uids: Vec<String> = cgroup
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        .filter_map(segment_uid)
        .collect();
    uids.sort();
    uids.dedup();
    match uids.as_slice() {
        [uid] => Some(uid.clone()),
        _ => None,
    }
}

/// `pod<uid>`, or `kubepods-besteffort-pod<uid>.slice` with underscores.
fn segment_uid(segment: &str) -> Option<String> {
    let segment = segment.strip_suffix(".slice").unwrap_or(segment);
    let start = if segment.starts_with("pod") { 0 } else { segment.rfind("-pod")? + 1 };
    let uid = segment.get(start + 3..)?.replace('_', "-");
    let groups: Vec<usize> = uid.split('-').map(str::len).collect();
    let hex = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (hex && groups == [8, 4, 4, 4, 12]).then_some(uid)
}

/// Field 22 of a process's stat file; the name in field 2 may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn owns_one_of(netns: &NetNs, ips: &[IpAddr]) -> bool {
    let own = netns.run(|| {
        let all = nix::ifaddrs::getifaddrs().ok()?;
        let own: Vec<IpAddr> = all.filter_map(|one| address(&one)).collect();
        Some(own)
    });
    own.ok().flatten().is_some_and(|own| own.iter().any(|ip| ips.contains(ip)))
}

fn address(one: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = one.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3c2a10-5b7e-4c1d-9e2f-a1b2c3d4e5f6";

    #[test]
    fn pod_uids_are_found_in_every_layout() {
        let under = UID.replace('-', "_");
        for text in [
            format!("0::/kubepods/besteffort/pod{UID}/0a1b"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/cri-containerd-0a1b.scope"
            ),
            format!("11:memory:/kubepods/pod{UID}/0a\n3:cpu:/kubepods/pod{UID}/0a"),
            format!("0::/system.slice/docker-1f.scope/kubelet.slice/kubepods-pod{under}.slice/cri-containerd-2a.scope"),
        ] {
            assert_eq!(pod_uid(&text).as_deref(), Some(UID), "{text}");
        }
    }

    #[test]
    fn what_names_no_pod_or_several_is_skipped() {
        let other = UID.replace('0', "1");
        for text in ["0::/", "0::/user.slice/pod.slice", &format!("0::/pod{UID}\n1:a:/pod{other}"), "0::/podman/x", ""]
        {
            assert_eq!(pod_uid(text), None, "{text}");
        }
    }

    #[test]
    fn the_start_time_survives_odd_names() {
        let fields: Vec<String> = (3..=30).map(|field| field.to_string()).collect();
        assert_eq!(start_time(&format!("7 (a ) b) {}", fields.join(" "))), Some(22));
    }
}
