//! Where objects come from: watches on the API server, each on its own, all feeding one bounded queue.

pub mod convert;
mod crds;
pub mod files;
mod lean;
pub mod materials;
pub mod mesh;
pub mod remote;
mod watch;

pub(crate) use watch::chain;

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, ApiResource};
use kube::core::GroupVersionKind;
use mesh_telemetry::ready::Readiness;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
        self.watch_core();
        self.supervisor.spawn("definitions", crds::run(self.clone(), Kind::DEFINED));
    }

    /// Watches these kinds, of which the second are watched when their definitions are there, until the answer is dropped.
    fn watch(&self, core: &[Kind], defined: &'static [Kind]) -> Watches {
        let spawn = |kind: &Kind| self.supervisor.spawn(kind.name(), watch::run(self.clone(), *kind));
        let mut tasks: Vec<_> = core.iter().map(spawn).collect();
        tasks.push(self.supervisor.spawn("definitions", crds::run(self.clone(), defined)));
        Watches(tasks)
    }

    /// Starts watching the kinds that every cluster has.
    pub fn watch_core(&self) {
        for kind in Kind::BUILT_IN {
            self.supervisor.spawn(kind.name(), watch::run(self.clone(), *kind));
        }
    }

    /// All objects of a kind in the cluster.
    fn api<P: lean::Parts>(&self, kind: Kind) -> Api<lean::Lean<P>> {
        Api::all_with(self.client.clone(), &resource(kind))
    }
}

/// Watches that end when this is dropped.
#[derive(Debug)]
struct Watches(Vec<JoinHandle<()>>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Group, version, kind and plural of a kind.
pub fn resource(kind: Kind) -> ApiResource {
    let (group, plural) = match kind {
        Kind::ConfigMap => ("", "configmaps"),
        Kind::Secret => ("", "secrets"),
        Kind::Pod => ("", "pods"),
        Kind::Service => ("", "services"),
        Kind::Namespace => ("", "namespaces"),
        Kind::Node => ("", "nodes"),
        Kind::Slice => ("discovery.k8s.io", "endpointslices"),
        Kind::Authorization => (mesh_api::security::GROUP, "authorizationpolicies"),
        Kind::Peer => (mesh_api::security::GROUP, "peerauthentications"),
        Kind::Request => (mesh_api::security::GROUP, "requestauthentications"),
        Kind::ServiceEntry => (mesh_api::labels::NETWORKING_GROUP, "serviceentries"),
        Kind::WorkloadEntry => (mesh_api::labels::NETWORKING_GROUP, "workloadentries"),
        Kind::WorkloadGroup => (mesh_api::labels::NETWORKING_GROUP, "workloadgroups"),
        Kind::Gateway => (mesh_api::labels::GATEWAY_GROUP, "gateways"),
        Kind::GatewayClass => (mesh_api::labels::GATEWAY_GROUP, "gatewayclasses"),
        Kind::HttpRoute => (mesh_api::labels::GATEWAY_GROUP, "httproutes"),
        Kind::GrpcRoute => (mesh_api::labels::GATEWAY_GROUP, "grpcroutes"),
        Kind::TlsRoute => (mesh_api::labels::GATEWAY_GROUP, "tlsroutes"),
        Kind::TcpRoute => (mesh_api::labels::GATEWAY_GROUP, "tcproutes"),
        Kind::UdpRoute => (mesh_api::labels::GATEWAY_GROUP, "udproutes"),
        Kind::ReferenceGrant => (mesh_api::labels::GATEWAY_GROUP, "referencegrants"),
        Kind::ListenerSet => (mesh_api::labels::GATEWAY_GROUP, "listenersets"),
        Kind::BackendTlsPolicy => (mesh_api::labels::GATEWAY_GROUP, "backendtlspolicies"),
        Kind::TrafficPolicy => (EXPERIMENTAL_GROUP, "xbackendtrafficpolicies"),
        Kind::VirtualService => (mesh_api::labels::NETWORKING_GROUP, "virtualservices"),
        Kind::DestinationRule => (mesh_api::labels::NETWORKING_GROUP, "destinationrules"),
        Kind::WasmPlugin => (mesh_api::extensions::GROUP, "wasmplugins"),
        Kind::TrafficExtension => (mesh_api::extensions::GROUP, "trafficextensions"),
        Kind::EnvoyFilter => (mesh_api::labels::NETWORKING_GROUP, "envoyfilters"),
    };
    let version = match kind {
        // Older clusters serve only this one, and newer ones this one too.
        Kind::ReferenceGrant => "v1beta1",
        Kind::TrafficPolicy | Kind::WasmPlugin | Kind::TrafficExtension => "v1alpha1",
        Kind::EnvoyFilter => "v1alpha3",
        _ => "v1",
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.name()), plural)
}

/// API group of what the Gateway API tries out.
const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";
