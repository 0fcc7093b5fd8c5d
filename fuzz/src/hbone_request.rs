//! The authority of a CONNECT request.

use std::sync::{Arc, LazyLock};

use mesh_core::Identity;
use mesh_core::addr::ip_to_bytes;
use mesh_wire::workload as wire;
use ztunnel::route::{self, PROXY_PORTS};
use ztunnel::state::{IdentityWatcher, Local, Snapshot, State};

/// Whatever it says, the connection stays within the pod and off the proxy's own ports.
pub fn run(bytes: &[u8]) {
    let Ok(authority) = std::str::from_utf8(bytes) else { return };
    let snapshot = &*SNAPSHOT;
    let local = snapshot.workload_by_uid(POD).expect("is in the snapshot");
    let address = "10.1.0.77:15008".parse().expect("is an address");
    match route::inbound(snapshot, local, authority, address) {
        Ok(target) => {
            assert_eq!(target.addr.ip(), address.ip());
            assert!(!PROXY_PORTS.contains(&target.addr.port()), "{authority:?} leads to {}", target.addr);
        }
        Err(refusal) => assert!(matches!(refusal.status, 400 | 503), "{refusal:?}"),
    }
}

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let service = wire::Service {
        name: "cart".to_owned(),
        namespace: "shop".to_owned(),
        hostname: "cart.shop.svc.cluster.local".to_owned(),
        addresses: vec![wire::NetworkAddress {
            network: String::new(),
            address: ip_to_bytes([172, 20, 0, 9].into()),
            ..Default::default()
        }],
        ports: vec![wire::Port { service_port: 80, target_port: 8080, ..Default::default() }],
        ..Default::default()
    };
    let workload = wire::Workload {
        uid: POD.to_owned(),
        name: "cart-1".to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![ip_to_bytes([10, 1, 0, 77].into())],
        services: [("shop/cart.shop.svc.cluster.local".to_owned(), wire::PortList { ports: service.ports.clone() })]
            .into(),
        ..Default::default()
    };
    let (state, mut feed) = State::new(local(""), Arc::new(NoIdentities));
    let resources = [wire::address::Type::Service(service), wire::address::Type::Workload(workload)];
    let named = resources.map(|resource| (String::new(), wire::Address { r#type: Some(resource) }));
    assert!(feed.addresses(named.into(), &[]).is_empty());
    state.snapshot()
});

const POD: &str = "Kubernetes//Pod/shop/cart-1";

/// A proxy of `network` that serves every workload.
pub(crate) fn local(network: &str) -> Local {
    Local { network: network.into(), ..Local::default() }
}

/// Certificates are not what is fuzzed here.
pub(crate) struct NoIdentities;

impl IdentityWatcher for NoIdentities {
    fn needed(&self, _: &Identity) {}
    fn unneeded(&self, _: &Identity) {}
}
