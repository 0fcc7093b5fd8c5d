use mesh_identity::testing::TestCa;
use mesh_identity::{CertManager, SystemClock};

use super::*;
use crate::endpoints::{Place, Store, Workload};
use crate::own::Own;
use crate::snapshot::{Role, Settings};

const SELF: &str = "spiffe://cluster.local/ns/ns/sa/waypoint";

fn upstream() -> Arc<UpstreamShared> {
    let certs = CertManager::spawn(Arc::new(TestCa::new()), Arc::new(SystemClock));
    UpstreamShared::new(Own::new(SELF.parse().unwrap(), certs), Arc::new(Store::new(Place::default())), None)
}

fn proxy(denied: bool) -> Arc<Proxy> {
    Arc::new(Proxy {
        namespace: "ns".into(),
        name: "waypoint".into(),
        role: Role::Waypoint,
        settings: Settings::default(),
        forward_client_identity: false,
        serves_workloads: true,
        authorizations: Arc::default(),
        refuse_all: denied.then(|| "denied".into()),
    })
}

fn peer() -> Peer {
    Peer::for_test(Workload {
        uid: "pod".into(),
        identity: "spiffe://cluster.local/ns/ns/sa/pod".parse().unwrap(),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        hostname: "".into(),
        network: "".into(),
        tunnel: false,
        host_network: false,
        waypoint: None,
        network_gateway: None,
        services: Box::default(),
        healthy: true,
        weight: 1,
        locality: Arc::default(),
        node: "".into(),
        cluster: "".into(),
        labels: Arc::default(),
        end: Arc::default(),
    })
}

fn store() -> Store {
    Store::new(Place::default())
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// Connections that were open before the workload changed hear of policies that change after it.
#[tokio::test]
async fn an_open_connection_hears_of_every_later_change() {
    let (upstream, chains) = (upstream(), DirectChains::default());
    let (allowing, denying) = (proxy(false), proxy(true));
    let open = chains.get(&peer(), address(80), &allowing, &upstream).unwrap();
    let mut changes = open.changes();
    // The same workload in another state, as after a change of its health.
    chains.get(&peer(), address(80), &allowing, &upstream).unwrap();
    changes.changed().await.unwrap();
    chains.refresh(&denying, &store());
    changes.changed().await.unwrap();
    assert!(open.current().unwrap().refuse_all.is_some());
    // A connection that is made before the worker follows brings the change as well.
    chains.get(&peer(), address(80), &allowing, &upstream).unwrap();
    assert!(open.current().unwrap().refuse_all.is_none());
}

#[tokio::test]
async fn calls_to_many_addresses_orphan_no_open_connection() {
    let (upstream, chains) = (upstream(), DirectChains::default());
    let (allowing, peer) = (proxy(false), peer());
    let open = chains.get(&peer, address(1), &allowing, &upstream).unwrap();
    for port in 2..u16::try_from(DIRECT_CHAINS_MAX).unwrap() + 100 {
        chains.get(&peer, address(port), &allowing, &upstream).unwrap();
    }
    assert!(chains.0.borrow().len() <= DIRECT_CHAINS_MAX);
    chains.refresh(&proxy(true), &store());
    assert!(open.current().unwrap().refuse_all.is_some());
}

#[tokio::test]
async fn there_is_a_bound_on_addresses_that_are_being_called() {
    let (upstream, chains) = (upstream(), DirectChains::default());
    let (allowing, peer) = (proxy(false), peer());
    let ports = 1..=u16::try_from(DIRECT_CHAINS_MAX).unwrap();
    let open: Vec<_> = ports.map(|port| chains.get(&peer, address(port), &allowing, &upstream).unwrap()).collect();
    assert!(chains.get(&peer, address(5_000), &allowing, &upstream).is_err());
    drop(open);
    chains.get(&peer, address(5_000), &allowing, &upstream).unwrap();
}
