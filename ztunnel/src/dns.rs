//! The DNS proxy of each pod, and the resolver of the process.
//!
//! A query takes this way: `server` (sockets), `message` (what is asked), `lookup` (does the mesh know the name),
//! `answer` (written here), or `upstream` (asked of the name servers of the process, byte for byte, from within the pod).

pub mod answer;
pub mod lookup;
pub mod message;
mod name_servers;
mod place;
mod report;
mod resolver;
mod server;
mod upstream;

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::drain::DrainWatch;
use mesh_telemetry::metrics::Registry;

pub use name_servers::{NameServers, ResolvConf};
pub use place::{Place, Sockets};
pub use report::Metrics;
pub use resolver::{Families, ResolveError, Resolver};
pub use server::{Owner, Server};
pub use upstream::{Upstream, UpstreamError};

use crate::config::{Config, Mode};
use crate::pod::Pod;
use crate::shared::Shared;
use lookup::{Search, Zone};

/// What the DNS proxies of all pods share.
#[derive(Clone, Debug)]
pub struct Dns {
    /// How names are understood.
    pub zone: Arc<Zone>,
    /// Whom to ask about names that the mesh does not know.
    pub servers: NameServers,
    /// Counters.
    pub metrics: Metrics,
}

impl Dns {
    /// With the name servers of the process, and, where it serves one workload, its search domains.
    #[must_use]
    pub fn from_config(config: &Config, registry: &Registry) -> Self {
        let path = Path::new(RESOLV_CONF);
        let search = match config.mode {
            Mode::Shared => Search::Kubernetes,
            Mode::Dedicated(_) => Search::Listed(ResolvConf::load(path).search),
        };
        let zone = Zone {
            domain: config.cluster_domain.trim_matches('.').to_ascii_lowercase(),
            search,
            preferred_namespace: config.preferred_service_namespace.clone(),
            ipv6: config.ipv6,
        };
        Self { zone: Arc::new(zone), servers: NameServers::of_file(path), metrics: Metrics::new(registry) }
    }
}

/// Serves the queries of a pod until the drain starts. As connections do, queries wait until the control plane's first
/// answers are in: a name server may know another address for a name of the mesh.
pub(crate) async fn serve(pod: Arc<Pod>, shared: Arc<Shared>, sockets: Sockets, mut watch: DrainWatch) {
    tokio::select! {
        () = shared.until_synced() => {}
        _ = watch.signaled() => return,
    }
    let owner = Owner {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
    };
    let place = Place::new(Some(pod.netns.clone()), pod.settings.mark);
    let dns = &shared.dns;
    let upstream = Upstream::new(dns.servers.clone(), place);
    let server = Server::new(shared.state.clone(), owner, dns.zone.clone(), upstream, dns.metrics.clone());
    Rc::new(server).serve(sockets, watch).await;
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

#[cfg(test)]
mod fixture;
