//! The files of a pod that are not volumes: `hosts`, `resolv.conf`, `hostname`.

use std::fs;
use std::io;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use super::resolv::{ClusterDns, hostname, hosts, resolv_conf};
use super::volumes::pod_root;

/// Writes the files into the pod's directory.
///
/// # Errors
/// The system's answer.
pub(super) fn write(kubelet: &Kubelet, uid: &str, pod: &Pod, ips: &[IpAddr]) -> io::Result<()> {
    let root = pod_root(kubelet, uid);
    fs::create_dir_all(&root)?;
    // The node has no configuration of its own: it resolves as the host does.
    let of_node = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let dns =
        ClusterDns { servers: &kubelet.config.cluster_dns, domain: &kubelet.config.cluster_domain, of_node: &of_node };
    fs::write(root.join("resolv.conf"), resolv_conf(pod, &dns))?;
    fs::write(root.join("etc-hosts"), hosts(pod, ips, &kubelet.config.cluster_domain))?;
    fs::write(root.join("hostname"), format!("{}\n", hostname(pod)))
}

/// Removes the pod's directory with everything in it. Mounts of running containers are not
/// affected; failing leaves files behind, nothing else.
pub(super) fn remove(kubelet: &Kubelet, uid: &str) {
    if let Err(error) = fs::remove_dir_all(pod_root(kubelet, uid))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(uid, %error, "pod directory not removed");
    }
}
