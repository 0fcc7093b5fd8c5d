//! Where objects come from: watches on the API server, each on its own, all feeding one bounded queue.

pub mod convert;
mod crds;
pub mod mesh;
mod watch;

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use mesh_telemetry::ready::Readiness;
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::supervise::Supervisor;
use crate::world::{Change, Kind};

/// What every watch needs.
#[derive(Clone)]
pub struct Sources {
    /// The API server.
    pub client: Client,
    /// Where changes go; a full queue slows the watches down, nothing is dropped.
    pub changes: mpsc::Sender<Change>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Own revision.
    pub revision: Arc<str>,
    /// Says what keeps us from starting.
    pub readiness: Readiness,
    /// Notices watches that fail.
    pub supervisor: Supervisor,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Sources {
    /// Starts watching every kind; kinds of ours start when their definitions are there.
    pub fn start(&self) {
        for kind in [Kind::Namespace, Kind::Node, Kind::Service, Kind::Slice, Kind::Pod] {
            self.supervisor.spawn(kind.name(), watch::run(self.clone(), kind));
        }
        self.supervisor.spawn("definitions", crds::run(self.clone(), [Kind::Authorization, Kind::Peer]));
    }

    /// All objects of a kind in the cluster.
    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource(kind))
    }
}

/// Group, version, kind and plural of a kind.
pub fn resource(kind: Kind) -> ApiResource {
    let (group, plural) = match kind {
        Kind::Pod => ("", "pods"),
        Kind::Service => ("", "services"),
        Kind::Namespace => ("", "namespaces"),
        Kind::Node => ("", "nodes"),
        Kind::Slice => ("discovery.k8s.io", "endpointslices"),
        Kind::Authorization => (mesh_api::security::GROUP, "authorizationpolicies"),
        Kind::Peer => (mesh_api::security::GROUP, "peerauthentications"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind.name()), plural)
}
