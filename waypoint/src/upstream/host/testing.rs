//! Endpoints and pools for tests.

use std::sync::Arc;

use mesh_identity::testing::TestCa;
use mesh_identity::{CertManager, SystemClock};
use mesh_wire::l7;

use super::*;
use crate::endpoints::{EndpointSet, Place, ServiceKey, ServiceView, Store, Transport};
use crate::own::Own;
use crate::upstream::cluster::Cluster;
use crate::upstream::pick::Picked;

pub(in crate::upstream) fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        id: address.into(),
        address: address.parse().unwrap(),
        hostname: None,
        transport: Transport::Plain,
        weight: 1,
        healthy: true,
        locality: Arc::default(),
        network: "".into(),
        cluster: "".into(),
        node: "".into(),
        labels: Arc::default(),
        identity: None,
        end: Arc::default(),
    }
}

pub(in crate::upstream) fn endpoints(count: u8) -> Vec<Endpoint> {
    (1..=count).map(|i| endpoint(&format!("10.0.0.{i}:80"))).collect()
}

pub(in crate::upstream) fn view(list: Vec<Endpoint>) -> Arc<ServiceView> {
    let key = ServiceKey { namespace: "shop".into(), hostname: "cart.shop".into(), port: 80, via_waypoint: false };
    let view = ServiceView::new(key);
    publish(&view, list);
    Arc::new(view)
}

pub(in crate::upstream) fn publish(view: &ServiceView, list: Vec<Endpoint>) {
    view.publish(EndpointSet { exists: true, list: list.into(), ..EndpointSet::default() });
}

/// Must be called within a runtime.
pub(in crate::upstream) fn shared_of(ca: Arc<TestCa>, place: Place) -> Arc<UpstreamShared> {
    let own = Own::new(
        "spiffe://cluster.local/ns/shop/sa/waypoint".parse().unwrap(),
        CertManager::spawn(ca, Arc::new(SystemClock)),
    );
    UpstreamShared::new(own, Arc::new(Store::new(place)), None)
}

pub(in crate::upstream) fn shared() -> Arc<UpstreamShared> {
    shared_of(Arc::new(TestCa::new()), Place::default())
}

pub(in crate::upstream) fn backend(policy: l7::TrafficPolicy) -> l7::Backend {
    l7::Backend {
        namespace: "shop".into(),
        hostname: "cart.shop".into(),
        port: 80,
        policy: Some(policy),
        ..l7::Backend::default()
    }
}

pub(in crate::upstream) fn cluster(policy: l7::TrafficPolicy, list: Vec<Endpoint>) -> Arc<Cluster> {
    shared().cluster(&backend(policy), view(list)).unwrap()
}

/// Somebody who was picked, outside of any pool.
pub(in crate::upstream) fn picked(address: &str) -> Picked {
    let state = Arc::new(HostState {
        id: 1,
        active: AtomicU32::new(0),
        streaks: Streaks::default(),
        ejected: AtomicBool::new(false),
        ejections: Mutex::default(),
        removed: AtomicBool::new(false),
        healthy_since_ms: AtomicU64::new(0),
    });
    Picked::new(Host::new(endpoint(address), state), 0)
}
