//! The cluster inside the daemon: API server, controllers, DNS, and one kubelet per node.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Client;

use super::{API_PORT, Options, state};
use crate::api::{ApiConfig, ApiServer, KUBERNETES_MINOR};
use crate::control::Status;
use crate::controllers::{self, ClusterConfig};
use crate::dns;
use crate::fabric::{NodePlan, Plan};
use crate::informer::Informers;
use crate::kubelet::{self, KubeletConfig};
use crate::runtime::NodeRuntime;
use crate::runtime::backend::Nodes;
use crate::services;

/// Nodes of a sandbox become Ready within milliseconds; a wait this long means a bug.
const NODES_READY_DEADLINE: Duration = Duration::from_secs(8);

/// Pause before a kubelet that could not register tries again.
const KUBELET_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Host number of the API server's Service address.
const API_SERVICE_HOST: u32 = 1;

/// Port of the cluster DNS on the fabric.
const DNS_PORT: u16 = 53;

/// Host number of the cluster DNS' Service address.
const DNS_SERVICE_HOST: u32 = 10;

/// Starts everything and returns when the API answers and all nodes are Ready. `listener` is the
/// socket on the host's loopback address.
pub(super) async fn start(
    options: &Options,
    plan: &Plan,
    nodes: &Nodes,
    listener: TcpListener,
) -> anyhow::Result<(Arc<ApiServer>, Status)> {
    let url = format!("https://{}", listener.local_addr().context("the listening socket has no address")?);
    let ips = plan.daemon_ips();
    let advertise: Vec<SocketAddr> = ips.iter().map(|&ip| SocketAddr::new(ip, API_PORT)).collect();
    let config = ApiConfig {
        advertise: advertise.clone(),
        store_dir: Some(options.dir.join(state::STORE_DIR)),
        ..ApiConfig::new(Arc::new(nodes.clone()))
    };
    let services = IpNet::V4(config.service_ipv4);
    let api = ApiServer::new(config).context("starting the API server")?;
    let mut listeners = vec![listener];
    for address in advertise {
        listeners.push(TcpListener::bind(address).with_context(|| format!("listening on {address}"))?);
    }
    let tls = api.tls(&ips).context("making the API server's certificate")?;
    let server = Arc::clone(&api);
    tokio::spawn(async move {
        if let Err(error) = server.serve(listeners, tls).await {
            tracing::error!(%error, "API server ended");
        }
    });
    let kubeconfig = options.dir.join(state::KUBECONFIG);
    write_private(&kubeconfig, &api.admin_kubeconfig(&url))?;
    let cluster = ClusterConfig {
        api_addresses: ips.clone(),
        api_port: API_PORT,
        dns_addresses: ips,
        api_service_ip: service_address(services, API_SERVICE_HOST)?,
        dns_service_ip: service_address(services, DNS_SERVICE_HOST)?,
        ca_pem: api.ca_pem(),
    };
    run_cluster(api.client(), plan, nodes, cluster).await?;
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: format!("v1.{KUBERNETES_MINOR}"),
        api_server: url,
        kubeconfig: kubeconfig.display().to_string(),
        bin_dir: options.bin_dir.display().to_string(),
        nodes: nodes.iter().map(NodeRuntime::status).collect(),
    };
    Ok((api, status))
}

/// Starts what works through the API, and waits for the nodes.
async fn run_cluster(client: Client, plan: &Plan, nodes: &Nodes, cluster: ClusterConfig) -> anyhow::Result<()> {
    controllers::bootstrap(&client, &cluster).await.context("creating the first objects")?;
    let cache = Informers::start(&client);
    for node in &plan.nodes {
        let runtime = nodes.get(&node.name).context("every planned node has a runtime")?.clone();
        let config = kubelet_config(node, &cluster);
        let netns = runtime.node_netns().try_clone().context("sharing the node's namespace")?;
        tokio::spawn(services::run(cache.clone(), node.name.clone(), netns));
        tokio::spawn(run_kubelet(client.clone(), cache.clone(), runtime, config));
    }
    let dns_addresses: Vec<SocketAddr> =
        cluster.dns_addresses.iter().map(|&ip| SocketAddr::new(ip, DNS_PORT)).collect();
    let dns_sockets = dns::bind(&dns_addresses).await.context("starting the cluster DNS")?;
    tokio::spawn(dns::serve(cache.clone(), dns_sockets));
    tokio::spawn(controllers::run(client, cache.clone(), cluster));
    let ready = tokio::time::timeout(NODES_READY_DEADLINE, nodes_ready(&cache, plan.nodes.len()));
    if ready.await.is_err() {
        bail!("the nodes were not Ready within {NODES_READY_DEADLINE:?}");
    }
    Ok(())
}

fn kubelet_config(node: &NodePlan, cluster: &ClusterConfig) -> KubeletConfig {
    KubeletConfig {
        region: "sandbox".to_owned(),
        // Nodes of a sandbox play the part of zones, so that topology has something to choose from.
        zone: format!("sandbox-{}", node.name),
        pod_cidrs: node.pod_cidrs.iter().map(IpNet::to_string).collect(),
        cluster_dns: vec![cluster.dns_service_ip],
        cluster_domain: dns::CLUSTER_DOMAIN.to_owned(),
        api_service: (cluster.api_service_ip, 443),
        labels: BTreeMap::new(),
    }
}

async fn run_kubelet(client: Client, cache: Informers, runtime: NodeRuntime, config: KubeletConfig) {
    loop {
        let ended = kubelet::run(client.clone(), cache.clone(), runtime.clone(), config.clone()).await;
        match ended {
            Ok(()) => tracing::error!(node = runtime.node_name(), "kubelet ended"),
            Err(error) => tracing::warn!(%error, "kubelet could not start"),
        }
        tokio::time::sleep(KUBELET_RETRY_PAUSE).await;
    }
}

/// Waits until so many nodes are Ready.
async fn nodes_ready(cache: &Informers, count: usize) {
    let mut changed = cache.nodes.generation();
    loop {
        changed.borrow_and_update();
        if cache.nodes.list().iter().filter(|node| is_ready(node)).count() >= count {
            return;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn service_address(services: IpNet, host: u32) -> anyhow::Result<IpAddr> {
    crate::bridge::nth_address(services, host).with_context(|| format!("service range {services} has no host {host}"))
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
