//! The compiled configuration of one entry point: a service port, a listener, or a workload that is called by address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_policy::l7::Policies;
use mesh_route::Table;
use mesh_wire::l7;

use super::onward::BackendGuard;
use super::proxy::Proxy;
use crate::endpoints::ServiceView;
use crate::report::Service;
use crate::upstream::Cluster;

/// Everything that serves one entry point. Cheap to clone: what is large is shared.
#[derive(Clone)]
pub struct Chain {
    /// Name of the resource.
    pub name: Arc<str>,
    /// What it is for.
    pub entry: Entry,
    /// What the bytes are, as declared.
    pub protocol: Protocol,
    /// Where traffic may go; rules name them by index.
    pub backends: Arc<[Backend]>,
    /// Where traffic goes that no rule is for. None for listeners.
    pub default_backend: Option<usize>,
    /// HTTP routes. None on a service port: everything to the default backend.
    pub http: Option<Arc<Table>>,
    /// By server name.
    pub tls_rules: Arc<[TlsRule]>,
    /// For everything else.
    pub tcp_rules: Arc<[L4Rule]>,
    /// Who may: the proxy's policies and the entry point's own, together.
    pub policies: Arc<Policies>,
    /// Why nothing may pass.
    pub refuse_all: Option<Arc<str>>,
    /// The proxy itself.
    pub proxy: Arc<Proxy>,
}

/// What a chain is for.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A service port of a waypoint.
    Port(Arc<PortEntry>),
    /// A listener of a gateway.
    Listener(Arc<ListenerEntry>),
    /// A workload that is called by its address.
    Workload(SocketAddr),
}

/// A service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEntry {
    /// The service, for metrics.
    pub service: Arc<Service>,
    /// Its port.
    pub port: u16,
    /// Addresses that calls may name.
    pub addresses: Box<[IpAddr]>,
    /// Calls may name the host too.
    pub by_hostname: bool,
}

/// A listener, without its TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerEntry {
    /// Its name.
    pub section: Arc<str>,
    /// Port that clients call.
    pub port: u16,
    /// Exact, "*.suffix", or empty for all.
    pub hostname: Arc<str>,
}

/// What bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// To be found out.
    Detect,
    /// HTTP of any version.
    Http,
    /// HTTP, upstream as HTTP/2.
    Http2,
    /// HTTP, upstream as HTTP/2.
    Grpc,
    /// gRPC as browsers speak it.
    GrpcWeb,
    /// TLS that is passed through, or ends at a listener and is bytes inside.
    Tls,
    /// Bytes.
    Tcp,
    /// HTTP in TLS that ends here.
    Https,
}

/// Somewhere that traffic may go.
#[derive(Clone)]
pub struct Backend {
    /// Its pool and balancer.
    pub cluster: Arc<Cluster>,
    /// Its endpoints.
    pub view: Arc<ServiceView>,
    /// For metrics.
    pub service: Arc<Service>,
    /// As it was sent, without its guard; equal ones share a cluster.
    pub config: Arc<l7::Backend>,
    /// Policies of its service, where they are not those of the entry point.
    pub guard: Option<Arc<BackendGuard>>,
}

/// Where connections with a server name go.
#[derive(Debug, Clone)]
pub struct TlsRule {
    /// Exact, "*.suffix"; none: all.
    pub hostnames: Box<[Box<str>]>,
    /// Where.
    pub rule: L4Rule,
}

/// Where connections go.
#[derive(Debug, Clone)]
pub struct L4Rule {
    /// For logs: kind/namespace/name/rule.
    pub origin: Arc<str>,
    /// By weight.
    pub backends: Box<[Weighted]>,
    /// Only for these destinations; none: for all.
    pub subnets: Box<[IpNet]>,
    /// Only for this port.
    pub port: Option<u16>,
}

/// A share of connections.
#[derive(Debug, Clone)]
pub struct Weighted {
    /// In relation to the sum of all.
    pub weight: u32,
    /// Index of the backend, or why there is none.
    pub target: Result<usize, Arc<str>>,
}

impl Chain {
    /// The service that was called, if it was one.
    #[must_use]
    pub fn service(&self) -> Option<&Arc<Service>> {
        match &self.entry {
            Entry::Port(port) => Some(&port.service),
            Entry::Listener(_) | Entry::Workload(_) => None,
        }
    }

    /// A backend by its index in rules.
    #[must_use]
    pub fn backend(&self, index: usize) -> Option<&Backend> {
        self.backends.get(index)
    }
}

impl Protocol {
    /// As the wire has it.
    #[must_use]
    pub fn of(protocol: l7::Protocol) -> Self {
        match protocol {
            l7::Protocol::Detect => Self::Detect,
            l7::Protocol::Http => Self::Http,
            l7::Protocol::Http2 => Self::Http2,
            l7::Protocol::Grpc => Self::Grpc,
            l7::Protocol::GrpcWeb => Self::GrpcWeb,
            l7::Protocol::Tls => Self::Tls,
            l7::Protocol::Tcp => Self::Tcp,
            l7::Protocol::Https => Self::Https,
        }
    }

    /// Whether requests are read from it.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::Https)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("name", &self.name).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Backend {
    /// Whether both are the same port of the same service, whichever of its endpoints.
    #[must_use]
    pub fn is_same_port(&self, other: &Self) -> bool {
        let (one, other) = (&self.config, &other.config);
        one.port == other.port && one.hostname == other.hostname && one.namespace == other.namespace
    }
}

/// `host:port`, and the subset.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l7::Backend { hostname, port, subset, dynamic_wildcard, .. } = &*self.config;
        let host = if dynamic_wildcard.is_empty() { hostname } else { dynamic_wildcard };
        write!(f, "{host}:{port}")?;
        if subset.is_empty() { Ok(()) } else { write!(f, " subset {subset}") }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l7::Backend { namespace, hostname, port, subset, .. } = &*self.config;
        write!(f, "{namespace}/{hostname}:{port}")?;
        if subset.is_empty() { Ok(()) } else { write!(f, " subset {subset}") }
    }
}
