//! Package `istio.workload`.

use std::collections::HashMap;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    #[prost(oneof = "Kind", tags = "1, 2")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(clippy::large_enum_variant)] // lives for a moment
pub enum Kind {
    #[prost(message, tag = "1")]
    Workload(Workload),
    #[prost(message, tag = "2")]
    Service(Service),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Service {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub hostname: String,
    #[prost(message, repeated, tag = "4")]
    pub addresses: Vec<NetworkAddress>,
    #[prost(message, repeated, tag = "5")]
    pub ports: Vec<Port>,
    #[prost(string, repeated, tag = "6")]
    pub subject_alt_names: Vec<String>,
    #[prost(message, optional, tag = "7")]
    pub waypoint: Option<GatewayAddress>,
    #[prost(message, optional, tag = "8")]
    pub load_balancing: Option<LoadBalancing>,
    #[prost(int32, tag = "9")]
    pub ip_families: i32,
    #[prost(message, repeated, tag = "10")]
    pub extensions: Vec<Extension>,
    #[prost(bool, tag = "11")]
    pub canonical: bool,
    #[prost(bool, tag = "12")]
    pub ingress_use_waypoint: bool,
    #[prost(message, repeated, tag = "13")]
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    #[prost(int32, tag = "14")]
    pub visibility: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WeightedWaypoint {
    #[prost(message, optional, tag = "1")]
    pub destination: Option<GatewayAddress>,
    #[prost(uint32, tag = "2")]
    pub weight: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Port {
    #[prost(uint32, tag = "1")]
    pub service_port: u32,
    #[prost(uint32, tag = "2")]
    pub target_port: u32,
    #[prost(int32, tag = "3")]
    pub app_protocol: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PortList {
    #[prost(message, repeated, tag = "1")]
    pub ports: Vec<Port>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NetworkAddress {
    #[prost(string, tag = "1")]
    pub network: String,
    #[prost(bytes = "vec", tag = "2")]
    pub address: Vec<u8>,
    #[prost(uint32, optional, tag = "3")]
    pub length: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespacedHostname {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub hostname: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayAddress {
    #[prost(oneof = "Destination", tags = "1, 2")]
    pub destination: Option<Destination>,
    #[prost(uint32, tag = "3")]
    pub hbone_mtls_port: u32,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Destination {
    #[prost(message, tag = "1")]
    Hostname(NamespacedHostname),
    #[prost(message, tag = "2")]
    Address(NetworkAddress),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LoadBalancing {
    #[prost(int32, repeated, tag = "1")]
    pub routing_preference: Vec<i32>,
    #[prost(int32, tag = "2")]
    pub mode: i32,
    #[prost(int32, tag = "3")]
    pub health_policy: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Extension {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub config: Option<prost_types::Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Workload {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub addresses: Vec<Vec<u8>>,
    #[prost(string, tag = "4")]
    pub network: String,
    #[prost(int32, tag = "5")]
    pub tunnel_protocol: i32,
    #[prost(string, tag = "6")]
    pub trust_domain: String,
    #[prost(string, tag = "7")]
    pub service_account: String,
    #[prost(message, optional, tag = "8")]
    pub waypoint: Option<GatewayAddress>,
    #[prost(string, tag = "9")]
    pub node: String,
    #[prost(string, tag = "10")]
    pub canonical_name: String,
    #[prost(string, tag = "11")]
    pub canonical_revision: String,
    #[prost(int32, tag = "12")]
    pub workload_type: i32,
    #[prost(string, tag = "13")]
    pub workload_name: String,
    #[prost(bool, tag = "14")]
    pub native_tunnel: bool,
    #[prost(string, repeated, tag = "16")]
    pub authorization_policies: Vec<String>,
    #[prost(int32, tag = "17")]
    pub status: i32,
    #[prost(string, tag = "18")]
    pub cluster_id: String,
    #[prost(message, optional, tag = "19")]
    pub network_gateway: Option<GatewayAddress>,
    #[prost(string, tag = "20")]
    pub uid: String,
    #[prost(string, tag = "21")]
    pub hostname: String,
    #[prost(map = "string, message", tag = "22")]
    pub services: HashMap<String, PortList>,
    #[prost(message, optional, tag = "23")]
    pub application_tunnel: Option<ApplicationTunnel>,
    #[prost(message, optional, tag = "24")]
    pub locality: Option<Locality>,
    #[prost(int32, tag = "25")]
    pub network_mode: i32,
    #[prost(message, repeated, tag = "26")]
    pub extensions: Vec<Extension>,
    #[prost(message, optional, tag = "27")]
    pub capacity: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ApplicationTunnel {
    #[prost(int32, tag = "1")]
    pub protocol: i32,
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Locality {
    #[prost(string, tag = "1")]
    pub region: String,
    #[prost(string, tag = "2")]
    pub zone: String,
    #[prost(string, tag = "3")]
    pub subzone: String,
}

pub const TUNNEL_NONE: i32 = 0;
pub const TUNNEL_HBONE: i32 = 1;
pub const TUNNEL_LEGACY: i32 = 2;
pub const HEALTHY: i32 = 0;
pub const UNHEALTHY: i32 = 1;
pub const HOST_NETWORK: i32 = 1;
pub const APP_TUNNEL_NONE: i32 = 0;
pub const APP_TUNNEL_PROXY: i32 = 1;
pub const MODE_STRICT: i32 = 1;
pub const MODE_FAILOVER: i32 = 2;
pub const MODE_PASSTHROUGH: i32 = 3;
pub const SCOPE_REGION: i32 = 1;
pub const SCOPE_ZONE: i32 = 2;
pub const SCOPE_NODE: i32 = 4;
pub const SCOPE_NETWORK: i32 = 6;
pub const VISIBILITY_NAMESPACE: i32 = 1;
pub const IPV4_ONLY: i32 = 1;
