//! Service addresses in a node's network namespace: what a cluster's kube-proxy does.
//!
//! `ruleset` computes the whole nftables table from Services and endpoint slices (pure);
//! this file applies it whenever it changes.

mod ruleset;

use std::sync::Arc;
use std::time::Duration;

use mesh_sys::netns::NetNs;

use crate::informer::Informers;
use ruleset::{Family, ServicePort};

/// Keeps the Service rules of one node current, for ever.
///
/// Pods' packets pass the node's namespace, so that one table per node serves all of them and
/// the node itself.
pub async fn run(cache: Informers, node_name: String, netns: NetNs) {
    cache.services.synced().await;
    cache.endpoint_slices.synced().await;
    let netns = Arc::new(netns);
    let mut services = cache.services.generation();
    let mut slices = cache.endpoint_slices.generation();
    let mut applied = String::new();
    loop {
        services.borrow_and_update();
        slices.borrow_and_update();
        let ports = ports(&cache, &node_name);
        let text = ruleset::render(&ports);
        if text != applied {
            match apply(&netns, text.clone()).await {
                Ok(()) => applied = text,
                Err(error) => {
                    // The old table stays in force as a whole; the next change tries again.
                    tracing::warn!(node = %node_name, %error, "service rules not applied");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            _ = services.changed() => {}
            _ = slices.changed() => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn ports(cache: &Informers, node_name: &str) -> Vec<ServicePort> {
    let slices = cache.endpoint_slices.list();
    let mut ports: Vec<ServicePort> =
        cache.services.list().iter().flat_map(|service| ruleset::service_ports(service, &slices, node_name)).collect();
    ports.sort_by(|one, other| one.order().cmp(&other.order()));
    debug_assert!(ports.iter().all(|port| Family::of(port.address) == port.family()));
    ports
}

async fn apply(netns: &Arc<NetNs>, text: String) -> Result<(), String> {
    let netns = Arc::clone(netns);
    // `nft` is a process of its own and takes milliseconds.
    tokio::task::spawn_blocking(move || match netns.run(|| mesh_sys::nft::apply(&text)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("entering the node's namespace: {error}")),
    })
    .await
    .unwrap_or_else(|error| Err(format!("nft task: {error}")))
}

/// Changes that come together are applied together.
const SETTLE: Duration = Duration::from_millis(20);
/// Wait after a ruleset that the kernel refused.
const RETRY: Duration = Duration::from_secs(1);
