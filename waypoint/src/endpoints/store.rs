//! What readers see of services and workloads. Nothing here takes a lock while traffic flows.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::{NamespacedName, NetworkAddr};
use tokio::sync::watch;

use super::decode::{GatewayDestination, Ports, Workload};
use super::{Endpoint, EndpointSet, Locality, ServiceKey, ServiceView, derive};
use crate::report::End;

/// Services and workloads, as far as this proxy needs them. One writer: [`super::Feed`].
pub struct Store {
    network: Arc<str>,
    views: Mutex<HashMap<ServiceKey, Arc<ServiceView>>>,
    /// Workloads by address; only kept where calls may name them.
    workloads: ArcSwap<HashMap<NetworkAddr, Arc<Workload>>>,
    /// Services of workloads that calls may name: ports of those that a policy guards, nothing of the others.
    guards: ArcSwap<Guards>,
    guards_changed: watch::Sender<u64>,
    own: ArcSwap<Place>,
}

/// Where this proxy is, and what it is to others.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// Network that it is on.
    pub network: Arc<str>,
    /// Cluster that it runs in.
    pub cluster: Arc<str>,
    /// Node that it runs on.
    pub node: Arc<str>,
    /// Labels of its own workload, as far as they were sent.
    pub labels: Arc<std::collections::BTreeMap<Arc<str>, Arc<str>>>,
    /// Its own workload, once the control plane has said.
    pub workload: Option<Arc<Workload>>,
    /// Virtual addresses of the services that it is an endpoint of.
    pub addresses: Arc<[NetworkAddr]>,
}

/// Services by name, with their ports where a policy guards them.
pub(super) type Guards = HashMap<NamespacedName, Option<Ports>>;

/// Whether a port of a workload belongs to a service that a policy guards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    /// To none.
    No,
    /// To this one.
    By(NamespacedName),
    /// Nothing is known of these services, which it serves.
    Unknown(Vec<NamespacedName>),
}

/// A workload that was called by its address, or calls.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Workload>);

impl Store {
    /// Nothing is known but where we are.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self {
            network: place.network.clone(),
            views: Mutex::default(),
            workloads: ArcSwap::default(),
            guards: ArcSwap::default(),
            guards_changed: watch::Sender::new(0),
            own: ArcSwap::from_pointee(place),
        }
    }

    /// Where this proxy is.
    #[must_use]
    pub fn place(&self) -> Arc<Place> {
        self.own.load_full()
    }

    /// A workload on our own network.
    #[must_use]
    pub fn workload(&self, ip: IpAddr) -> Option<Peer> {
        let key = NetworkAddr::new(self.network.clone(), ip);
        self.workloads.load().get(&key).cloned().map(Peer)
    }

    /// Whether a port of a workload that is called by its address belongs to a service that a policy guards: what calls the
    /// service passes its policies, what calls the workload would not.
    #[must_use]
    pub fn guarded(&self, peer: &Peer, port: u16) -> Guarded {
        let guards = self.guards.load();
        let mut unknown = Vec::new();
        for (service, own) in &peer.0.services {
            match guards.get(service) {
                Some(Some(ports)) if ports.lead_to(own, port) => return Guarded::By(service.clone()),
                Some(_) => {}
                None => unknown.push(service.clone()),
            }
        }
        if unknown.is_empty() { Guarded::No } else { Guarded::Unknown(unknown) }
    }

    /// Changes whenever [`Store::guarded`] may say something else of a workload that stays as it is.
    #[must_use]
    pub fn guards_changes(&self) -> watch::Receiver<u64> {
        self.guards_changed.subscribe()
    }

    /// What the control plane is asked for to learn of an address.
    #[must_use]
    pub fn resource_name(&self, ip: IpAddr) -> String {
        format!("{}/{ip}", self.network)
    }

    /// All views, for display, in order.
    #[must_use]
    pub fn views(&self) -> Vec<Arc<ServiceView>> {
        let mut views: Vec<_> = self.lock().values().cloned().collect();
        views.sort_by(|a, b| a.key().cmp(b.key()));
        views
    }

    pub(super) fn network(&self) -> &Arc<str> {
        &self.network
    }

    /// The view of a key, and whether it was made just now.
    pub(super) fn view(&self, key: &ServiceKey) -> (Arc<ServiceView>, bool) {
        let mut views = self.lock();
        if let Some(view) = views.get(key) {
            return (view.clone(), false);
        }
        let view = Arc::new(ServiceView::new(key.clone()));
        views.insert(key.clone(), view.clone());
        (view, true)
    }

    /// Forgets views that nobody else holds.
    pub(super) fn prune_views(&self) {
        self.lock().retain(|_, view| Arc::strong_count(view) > 1);
    }

    pub(super) fn set_workloads(&self, workloads: HashMap<NetworkAddr, Arc<Workload>>) {
        self.workloads.store(Arc::new(workloads));
    }

    pub(super) fn set_guards(&self, guards: Guards) {
        if **self.guards.load() != guards {
            self.guards.store(Arc::new(guards));
            self.guards_changed.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn set_place(&self, place: Place) {
        self.own.store(Arc::new(place));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceKey, Arc<ServiceView>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether a workload's waypoint is this very proxy.
    fn is(&self, destination: &GatewayDestination) -> bool {
        match destination {
            GatewayDestination::Name(name) => {
                self.workload.as_ref().is_some_and(|own| own.services.iter().any(|(service, _)| service == name))
            }
            GatewayDestination::Address(address) => {
                let own = self.workload.as_ref().filter(|own| *own.network == *address.network);
                own.is_some_and(|own| own.addresses.contains(&address.ip)) || self.addresses.contains(address)
            }
        }
    }
}

impl Peer {
    /// For metrics and logs.
    #[must_use]
    pub fn end(&self) -> &Arc<End> {
        &self.0.end
    }

    /// Whether calls to its address are to go through this proxy. Those to the address of a node never are: everything else
    /// that listens there would be open to whoever calls.
    #[must_use]
    pub fn is_served_from(&self, place: &Place) -> bool {
        !self.0.host_network && self.0.waypoint.as_ref().is_some_and(|waypoint| place.is(&waypoint.destination))
    }

    /// The workload at one of its addresses, as the only endpoint there is.
    #[must_use]
    pub fn endpoint_set(&self, address: SocketAddr) -> EndpointSet {
        let mut endpoint: Endpoint = derive::direct(&self.0, address);
        // It was asked for, whatever its state.
        (endpoint.healthy, endpoint.weight) = (true, 1);
        EndpointSet { version: 0, exists: true, list: [endpoint].into(), ..EndpointSet::default() }
    }

    /// As the control plane would tell of it.
    #[cfg(test)]
    pub(crate) fn for_test(workload: Workload) -> Self {
        Self(Arc::new(workload))
    }

    /// Whether both are the same workload in the same state.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("network", &self.network).finish_non_exhaustive()
    }
}
