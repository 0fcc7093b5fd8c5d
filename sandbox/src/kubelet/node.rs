//! The node's own objects: `Node` and its heartbeat lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{KubeletConfig, RegisterError};
use crate::runtime::NodeRuntime;

/// What the node has to give.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub(super) cpus: usize,
    pub(super) memory_bytes: u64,
}

impl Capacity {
    /// The host's processors and memory: every node of the sandbox has all of them.
    pub(super) fn of_host() -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.as_deref().and_then(total_memory).unwrap_or(MEMORY_FALLBACK_BYTES),
        }
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Creates the Node, or brings it up to date, and writes its status.
pub(super) async fn register(
    client: &Client,
    runtime: &NodeRuntime,
    config: &KubeletConfig,
    capacity: Capacity,
) -> Result<(), RegisterError> {
    let name = runtime.node_name();
    let failed = |source: kube::Error| RegisterError { node: name.to_owned(), source: Box::new(source) };
    let api: Api<Node> = Api::all(client.clone());
    let object = node(name, config);
    let typed: Node = serde_json::from_value(object.clone()).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    match api.create(&PostParams::default(), &typed).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            api.patch(name, &PatchParams::default(), &Patch::Merge(&object)).await.map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    let ips: Vec<String> = runtime.node_ips().iter().map(ToString::to_string).collect();
    let status = json!({"status": status(name, &ips, capacity, &jiff::Timestamp::now().to_string())});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.map_err(failed)?;
    Ok(())
}

fn node(name: &str, config: &KubeletConfig) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch(),
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch(),
        "topology.kubernetes.io/region": config.region,
        "topology.kubernetes.io/zone": config.zone,
    });
    if let Some(labels) = labels.as_object_mut() {
        labels.extend(config.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "podCIDR": config.pod_cidrs.first(),
            "podCIDRs": config.pod_cidrs,
            "providerID": format!("sandbox://{name}"),
        },
    })
}

/// The processor architecture by its Kubernetes name.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(name: &str, ips: &[String], capacity: Capacity, now: &str) -> Value {
    let mut addresses: Vec<Value> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let resources = json!({
        "cpu": capacity.cpus.to_string(),
        "memory": format!("{}Ki", capacity.memory_bytes / 1024),
        "pods": PODS_MAX.to_string(),
    });
    json!({
        "addresses": addresses,
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {
            "architecture": arch(),
            "operatingSystem": "linux",
            "osImage": "Meltemi sandbox",
            "kernelVersion": kernel_version(),
            "kubeletVersion": format!("v1.34.0-sandbox+{}", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "",
            "containerRuntimeVersion": concat!("sandbox://", env!("CARGO_PKG_VERSION")),
            "machineID": name,
            "systemUUID": name,
            "bootID": name,
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    })
}

fn kernel_version() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Renews the node's lease for ever.
pub(super) async fn heartbeat(client: Client, node: String) {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if let Err(error) = renew(&api, &node).await {
            tracing::debug!(%node, %error, "heartbeat failed");
        }
    }
}

async fn renew(api: &Api<Lease>, node: &str) -> Result<(), kube::Error> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now});
    let patch = json!({"spec": spec});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = json!({"metadata": {"name": node, "namespace": "kube-node-lease"}, "spec": spec});
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Time between two heartbeats (Kubernetes: a quarter of the lease's 40 s).
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pods of one node, as the node says (Kubernetes' default).
const PODS_MAX: u32 = 110;
/// Memory of a host that does not tell.
const MEMORY_FALLBACK_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_has_what_controllers_and_kubectl_read() {
        let capacity = Capacity { cpus: 2, memory_bytes: 4096 };
        let status = status("node-1", &["172.30.0.11".into()], capacity, "2026-01-01T00:00:00Z");
        let typed: k8s_openapi::api::core::v1::NodeStatus = serde_json::from_value(status).unwrap();
        let addresses = typed.addresses.unwrap();
        assert_eq!((addresses[0].type_.as_str(), addresses[1].address.as_str()), ("InternalIP", "node-1"));
        let ready = typed.conditions.unwrap().into_iter().find(|one| one.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "True");
    }

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(total_memory("nothing"), None);
    }
}
