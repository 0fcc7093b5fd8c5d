//! Where services are: endpoints of service ports, made of the workload protocol's resources.
//!
//! ```text
//! Address resources --> Store (one writer) --> ServiceView (lock-free readers) --> EndpointSet (immutable)
//! ```

mod decode;
mod derive;
mod feed;
mod store;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use mesh_core::Identity;

pub use decode::{FieldError, Gateway, GatewayDestination, Workload};
pub use feed::Feed;
pub use store::{Guarded, Peer, Place, Store};

/// The endpoints of one port of one service, as they are at the moment. Shared by everybody who calls that port; lives on
/// while the service is gone, without endpoints.
#[derive(Debug)]
pub struct ServiceView {
    key: ServiceKey,
    set: ArcSwap<EndpointSet>,
}

/// Which endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the service.
    pub namespace: Arc<str>,
    /// Its fully qualified host name.
    pub hostname: Arc<str>,
    /// Its port, not that of the endpoints.
    pub port: u16,
    /// Not its own endpoints but those of its waypoint, if it has one.
    pub via_waypoint: bool,
}

/// Endpoints at one moment. Never changes; a change makes a new set with a higher version.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// Grows with each change of this view. Zero: the control plane has said nothing yet.
    pub version: u64,
    /// Whether the service is there.
    pub exists: bool,
    /// In the order of their ids; unhealthy ones are in it.
    pub list: Box<[Endpoint]>,
    /// How endpoints are preferred by where they are, as the service says.
    pub preference: Preference,
}

/// One way to reach a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Identifies it in stick tables, outlier detection and logs: the workload's uid.
    pub id: Arc<str>,
    /// Address and target port. With [`Endpoint::hostname`] only the port is meant.
    pub address: SocketAddr,
    /// A name to be resolved, of endpoints that have no address.
    pub hostname: Option<Arc<str>>,
    /// How it is called.
    pub transport: Transport,
    /// Load-balancing weight, zero: takes no traffic.
    pub weight: u32,
    /// Takes new traffic.
    pub healthy: bool,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// Network name; may be empty.
    pub network: Arc<str>,
    /// Cluster that it runs in.
    pub cluster: Arc<str>,
    /// Node that it runs on; may be empty.
    pub node: Arc<str>,
    /// Labels, as far as subsets and priorities need them.
    pub labels: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    /// Who it is; none outside of the mesh.
    pub identity: Option<Identity>,
    /// For metrics and logs.
    pub end: Arc<crate::report::End>,
}

/// How an endpoint is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// As it is.
    Plain,
    /// CONNECT [`Endpoint::address`] through this proxy.
    Hbone {
        /// Where the tunnel ends: usually the endpoint's address, port 15008.
        proxy: SocketAddr,
        /// Any of which the proxy must prove.
        expected: Arc<[Identity]>,
    },
    /// Through the gateway of another network: a tunnel within a tunnel.
    Nested {
        /// The gateway.
        gateway: SocketAddr,
        /// Any of which the gateway must prove.
        gateway_expected: Arc<[Identity]>,
        /// What both tunnels ask for: `hostname:port` of the service.
        authority: Arc<str>,
        /// Any of which the far end must prove.
        expected: Arc<[Identity]>,
    },
}

/// Where something runs; each part may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone within the region.
    pub zone: Arc<str>,
    /// Part of the zone.
    pub subzone: Arc<str>,
}

/// What the service itself says about where its traffic should stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preference {
    /// In order of importance.
    pub scopes: Box<[Scope]>,
    /// What the order means.
    pub mode: PreferenceMode,
    /// Unhealthy endpoints are as good as healthy ones.
    pub allow_unhealthy: bool,
}

/// How far a preference goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PreferenceMode {
    /// None.
    #[default]
    Standard,
    /// Only endpoints that match every scope.
    Strict,
    /// Those that match most of the leading scopes.
    Failover,
    /// The address that was called, no choice.
    Passthrough,
}

/// What must be equal for an endpoint to be near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Region.
    Region,
    /// Zone.
    Zone,
    /// Part of the zone.
    Subzone,
    /// Node.
    Node,
    /// Cluster.
    Cluster,
    /// Network.
    Network,
}

impl ServiceView {
    /// A view that knows of nothing yet.
    #[must_use]
    pub fn new(key: ServiceKey) -> Self {
        Self { key, set: ArcSwap::default() }
    }

    /// Which port of which service.
    #[must_use]
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// The endpoints of now, for a look; do not keep it over a wait.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// The endpoints of now, to keep.
    #[must_use]
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.set.load_full()
    }

    /// Replaces the endpoints, if they differ.
    pub fn publish(&self, mut next: EndpointSet) {
        let now = self.set.load();
        if now.version > 0 && now.exists == next.exists && now.list == next.list && now.preference == next.preference {
            return;
        }
        next.version = now.version + 1;
        self.set.store(Arc::new(next));
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.hostname, self.port)?;
        if self.via_waypoint { f.write_str(" via its waypoint") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
