//! What a listener speaks, and the routes that fit.

use mesh_api::gateway::RouteGroupKind;
use mesh_api::labels::GATEWAY_GROUP;

use crate::world::Kind;

/// Protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Plain HTTP.
    Http,
    /// HTTP inside TLS that ends here.
    Https,
    /// TLS, ended or passed on.
    Tls,
    /// Bytes.
    Tcp,
    /// Tunnels of the mesh.
    Hbone,
    /// PROXY protocol, for waypoints that are not ours.
    Proxy,
    /// Datagrams; not served.
    Udp,
    /// Nothing that we know.
    Unknown,
}

impl ListenerProtocol {
    /// Reads the field; letters count as they are.
    pub fn read(text: &str) -> Self {
        match text {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "TCP" => Self::Tcp,
            "HBONE" => Self::Hbone,
            "istio.io/PROXY" => Self::Proxy,
            "UDP" => Self::Udp,
            _ => Self::Unknown,
        }
    }

    /// Port of a listener that says none.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https | Self::Tls => Some(443),
            Self::Tcp | Self::Hbone | Self::Proxy | Self::Udp | Self::Unknown => None,
        }
    }
}

/// A kind of routes as statuses name it.
pub(crate) fn named(kind: Kind) -> RouteGroupKind {
    RouteGroupKind { group: Some(GATEWAY_GROUP.to_owned()), kind: kind.name().to_owned() }
}
