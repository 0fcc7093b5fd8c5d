//! Gateways and their classes, as far as waypoints and networks are concerned.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::gateway::GatewaySpec;
use mesh_api::security::TargetRef;
use mesh_core::names::NamespacedName;

use super::{Labels, Selector};

/// A Gateway of any class. It is a waypoint as soon as it has an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateway {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `spec.gatewayClassName`.
    pub class: Arc<str>,
    /// Creation time in seconds since 1970.
    pub created_s: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// The label that says what traffic it takes, when there is one.
    pub waypoint_for: Option<TrafficType>,
    /// The annotation that says how traffic is handed to its pods, when there is one.
    pub inbound_binding: Option<InboundBinding>,
    /// The network label.
    pub network: Option<Arc<str>>,
    /// The service-account annotation.
    pub service_account: Option<Arc<str>>,
    /// `spec.listeners`.
    pub listeners: Box<[Listener]>,
    /// `status.addresses`, in their order; what is neither an address nor a name is left out.
    pub addresses: Box<[GatewayAddress]>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// All labels: those of its objects may be copied from here.
    pub labels: Labels,
    /// All annotations, but for what kubectl remembers of the last apply.
    pub annotations: Labels,
    /// `spec` as written.
    pub spec: Arc<GatewaySpec>,
}

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayClass {
    /// Name.
    pub name: Arc<str>,
    /// `spec.controllerName`.
    pub controller: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// What its Gateways take that do not say so themselves.
    pub waypoint_for: Option<TrafficType>,
    /// How traffic is handed to the pods of its Gateways that do not say so themselves.
    pub inbound_binding: Option<InboundBinding>,
}

/// What traffic a waypoint takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficType {
    /// What addresses a service.
    #[default]
    Service,
    /// What addresses a workload.
    Workload,
    /// Both.
    All,
    /// Nothing.
    None,
    /// Not a value that we know: it takes nothing either, but nobody asked for that.
    Unknown,
}

impl TrafficType {
    /// Reads the label; a value that nobody knows takes no traffic.
    pub fn read(text: &str) -> Self {
        match text {
            "service" => Self::Service,
            "workload" => Self::Workload,
            "all" => Self::All,
            "none" => Self::None,
            _ => Self::Unknown,
        }
    }

    /// Whether it takes traffic that addresses a service.
    pub fn takes_services(self) -> bool {
        matches!(self, Self::Service | Self::All)
    }

    /// Whether it takes traffic that addresses a workload.
    pub fn takes_workloads(self) -> bool {
        matches!(self, Self::Workload | Self::All)
    }

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None | Self::Unknown => "none",
        }
    }
}

/// How a node proxy hands traffic to a waypoint's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundBinding {
    /// As HBONE, which is the default; hides what the class says.
    None,
    /// Decrypted, with a PROXY protocol header, to this port; 0 is the port that was asked for.
    Proxy(u16),
}

impl InboundBinding {
    /// Reads `NONE` or `PROXY[/port]`. A protocol that nobody knows counts for nothing, a bad port is 0.
    pub fn read(text: &str) -> Self {
        let (protocol, port) = text.split_once('/').unwrap_or((text, ""));
        match protocol {
            "PROXY" => Self::Proxy(port.parse().unwrap_or_default()),
            _ => Self::None,
        }
    }
}

/// One listener of a [`Gateway`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Name, unique in the Gateway.
    pub name: Arc<str>,
    /// Port.
    pub port: u16,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// `tls.mode` is Terminate, written or by default.
    pub terminates: bool,
    /// Namespaces whose objects may attach.
    pub allowed: AllowedNamespaces,
}

/// Protocol of a listener, as far as we tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Tunnels.
    Hbone,
    /// PROXY protocol.
    Proxy,
    /// Any other.
    Other,
}

impl ListenerProtocol {
    /// Reads the field.
    pub fn read(text: &str) -> Self {
        match text {
            "HBONE" => Self::Hbone,
            "istio.io/PROXY" => Self::Proxy,
            _ => Self::Other,
        }
    }
}

/// `allowedRoutes.namespaces` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those whose labels are selected.
    Selected(Box<Selector>),
    /// None: the setting cannot be read, so nobody is let in by mistake.
    Nobody,
}

/// An address of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAddress {
    /// An IP address of the cluster's network.
    Ip(IpAddr),
    /// The host name of a service.
    Hostname(Arc<str>),
}

/// A RequestAuthentication, as far as attachment is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.targetRefs`, or the older single one.
    pub targets: Box<[TargetRef]>,
    /// `spec.selector`, when not empty.
    pub selector: Option<Labels>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_types_and_inbound_bindings_are_read_as_written() {
        for text in ["service", "workload", "all", "none"] {
            assert_eq!(TrafficType::read(text).name(), text);
        }
        let unknown = TrafficType::read("services");
        assert_eq!((unknown, unknown.name()), (TrafficType::Unknown, "none"));
        assert!(!unknown.takes_services() && !unknown.takes_workloads());
        assert_eq!(InboundBinding::read("NONE"), InboundBinding::None);
        assert_eq!(InboundBinding::read("PROXY"), InboundBinding::Proxy(0));
        assert_eq!(InboundBinding::read("PROXY/15088"), InboundBinding::Proxy(15088));
        assert_eq!(InboundBinding::read("PROXY/99999"), InboundBinding::Proxy(0));
        assert_eq!(InboundBinding::read("proxy/1"), InboundBinding::None);
    }
}
