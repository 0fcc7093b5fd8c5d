//! A workload of a local file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_core::addr::ip_to_bytes;
use mesh_wire::workload as wire;
use serde::{Deserialize, Serialize};

use super::service::{Gateway, message_ports};

/// Names and values as in `config_dump`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Workload {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    service_account: String,
    #[serde(default)]
    trust_domain: String,
    #[serde(default)]
    workload_ips: Vec<IpAddr>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    native_tunnel: bool,
    #[serde(default)]
    network: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    waypoint: Option<Gateway>,
    #[serde(default)]
    network_gateway: Option<Gateway>,
    #[serde(default)]
    network_mode: NetworkMode,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    canonical_name: String,
    #[serde(default)]
    canonical_revision: String,
    #[serde(default)]
    workload_name: String,
    #[serde(default)]
    workload_type: WorkloadType,
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    locality: Locality,
    #[serde(default)]
    authorization_policies: Vec<String>,
    #[serde(default)]
    application_tunnel: Option<ApplicationTunnel>,
    #[serde(default = "one")]
    capacity: u32,
    /// `namespace/hostname` to service port to the workload's own port.
    #[serde(default)]
    services: BTreeMap<String, BTreeMap<u16, u16>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "HBONE")]
    Hbone,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
enum NetworkMode {
    #[default]
    Standard,
    HostNetwork,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
enum Status {
    #[default]
    Healthy,
    Unhealthy,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum WorkloadType {
    #[default]
    #[serde(alias = "Deployment")]
    Deployment,
    #[serde(alias = "CronJob")]
    CronJob,
    #[serde(alias = "Pod")]
    Pod,
    #[serde(alias = "Job")]
    Job,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Locality {
    region: String,
    zone: String,
    subzone: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ApplicationTunnel {
    #[serde(default)]
    protocol: TunnelProtocol,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum TunnelProtocol {
    #[default]
    None,
    Proxy,
}

impl Workload {
    /// What a control plane would send.
    pub(super) fn message(&self) -> wire::Workload {
        let port_list = |ports| wire::PortList { ports: message_ports(ports) };
        let Locality { region, zone, subzone } = self.locality.clone();
        wire::Workload {
            uid: self.uid.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            addresses: self.workload_ips.iter().map(|ip| ip_to_bytes(ip.to_canonical())).collect(),
            hostname: self.hostname.clone(),
            network: self.network.clone(),
            tunnel_protocol: match self.protocol {
                Protocol::Tcp => wire::TunnelProtocol::None.into(),
                Protocol::Hbone => wire::TunnelProtocol::Hbone.into(),
            },
            trust_domain: self.trust_domain.clone(),
            service_account: self.service_account.clone(),
            waypoint: self.waypoint.as_ref().map(Gateway::message),
            network_gateway: self.network_gateway.as_ref().map(Gateway::message),
            node: self.node.clone(),
            canonical_name: self.canonical_name.clone(),
            canonical_revision: self.canonical_revision.clone(),
            workload_type: match self.workload_type {
                WorkloadType::Deployment => wire::WorkloadType::Deployment,
                WorkloadType::CronJob => wire::WorkloadType::Cronjob,
                WorkloadType::Pod => wire::WorkloadType::Pod,
                WorkloadType::Job => wire::WorkloadType::Job,
            }
            .into(),
            workload_name: self.workload_name.clone(),
            native_tunnel: self.native_tunnel,
            application_tunnel: self.application_tunnel.map(ApplicationTunnel::message),
            services: self.services.iter().map(|(key, ports)| (key.clone(), port_list(ports))).collect(),
            authorization_policies: self.authorization_policies.clone(),
            status: match self.status {
                Status::Healthy => wire::WorkloadStatus::Healthy.into(),
                Status::Unhealthy => wire::WorkloadStatus::Unhealthy.into(),
            },
            cluster_id: self.cluster_id.clone(),
            locality: Some(wire::Locality { region, zone, subzone }),
            network_mode: match self.network_mode {
                NetworkMode::Standard => wire::NetworkMode::Standard.into(),
                NetworkMode::HostNetwork => wire::NetworkMode::HostNetwork.into(),
            },
            capacity: Some(self.capacity),
            ..wire::Workload::default()
        }
    }
}

impl ApplicationTunnel {
    fn message(self) -> wire::ApplicationTunnel {
        use wire::application_tunnel::Protocol;
        let protocol = match self.protocol {
            TunnelProtocol::None => Protocol::None,
            TunnelProtocol::Proxy => Protocol::Proxy,
        };
        wire::ApplicationTunnel { protocol: protocol.into(), port: self.port.unwrap_or(0).into() }
    }
}

fn one() -> u32 {
    1
}
