//! ServiceEntry: a service that the mesh shall know beside those of the cluster.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{WorkloadEntrySpec, WorkloadSelector};
use crate::status::ServiceEntryStatus;

/// Makes hosts outside the cluster's Services known to the mesh: their ports, addresses and endpoints.
///
/// # Source
/// `networking.istio.io/v1 ServiceEntry`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "ServiceEntry",
    plural = "serviceentries",
    doc = "A service that the mesh knows beside those of the cluster.",
    namespaced,
    status = "ServiceEntryStatus",
    shortname = "se",
    category = "istio-io",
    category = "networking-istio-io",
    printcolumn = r#"{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts", "description": "The service's host names."}"#,
    printcolumn = r#"{"name": "Location", "type": "string", "jsonPath": ".spec.location", "description": "Whether the service belongs to the mesh."}"#,
    printcolumn = r#"{"name": "Resolution", "type": "string", "jsonPath": ".spec.resolution", "description": "How addresses are found."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("required" = ["hosts"], "x-kubernetes-validations" = [
    {
        "rule": "!has(self.workloadSelector) || !has(self.endpoints) || size(self.endpoints) == 0",
        "message": "endpoints and workloadSelector exclude each other: give one of them"
    },
    {
        "rule": "!has(self.addresses) || !has(self.resolution) || self.resolution in ['NONE', 'STATIC'] || !self.addresses.exists(a, a.contains('/'))",
        "message": "addresses may hold CIDR blocks only with resolution NONE or STATIC"
    },
    {
        "rule": "(has(self.resolution) && self.resolution != 'NONE') || !has(self.endpoints) || size(self.endpoints) == 0",
        "message": "endpoints need a resolution other than NONE: set resolution to STATIC or DNS"
    },
    {
        "rule": "!has(self.resolution) || !(self.resolution in ['DNS', 'DNS_ROUND_ROBIN']) || (has(self.endpoints) && size(self.endpoints) > 0) || self.hosts.all(h, !h.startsWith('*'))",
        "message": "hosts must be full names for resolution DNS and DNS_ROUND_ROBIN without endpoints: a wildcard cannot be looked up"
    },
    {
        "rule": "!has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || !has(self.endpoints) || size(self.endpoints) <= 1",
        "message": "endpoints may hold only one entry for resolution DNS_ROUND_ROBIN"
    },
    {
        "rule": "!has(self.resolution) || self.resolution != 'DYNAMIC_DNS' || self.hosts.all(h, h.startsWith('*.'))",
        "message": "hosts must be wildcards such as `*.example.com` for resolution DYNAMIC_DNS"
    },
    {
        "rule": "!has(self.resolution) || self.resolution != 'DYNAMIC_DNS' || ((!has(self.addresses) || size(self.addresses) == 0) && (!has(self.endpoints) || size(self.endpoints) == 0))",
        "message": "addresses and endpoints must be empty for resolution DYNAMIC_DNS"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// Names of the service: full names, or wildcards in the first label such as `*.example.com`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 255)),
        extend("x-kubernetes-validations" = [{
            "rule": "self.all(h, h != '*')",
            "message": "hosts must not hold `*`: name a host or a domain such as `*.example.com`"
        }])
    )]
    pub hosts: Vec<String>,
    /// Virtual addresses of the service, or blocks in CIDR form. Absent: allocated by the control plane where it can be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub addresses: Vec<String>,
    /// Ports of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = [{
                "rule": "self.all(p, self.exists_one(q, q.number == p.number))",
                "message": "ports must have different numbers"
            }]
        )
    )]
    pub ports: Vec<ServicePort>,
    /// Whether the service belongs to the mesh. Absent: MESH_EXTERNAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// How the addresses behind the names are found. Absent: NONE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// Endpoints of the service. Not together with `workloadSelector`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub endpoints: Vec<WorkloadEntrySpec>,
    /// Pods and WorkloadEntries that are the endpoints. Not together with `endpoints`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see the service: names, `.` for its own, `*` for all, `~` for none. Not honoured by node proxies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(max = 63)),
        extend("x-kubernetes-validations" = [
            {
                "rule": "size(self) <= 1 || !self.exists(e, e == '*' || e == '~')",
                "message": "exportTo must hold `*` or `~` alone"
            },
            {
                "rule": "self.all(e, self.exists_one(f, f == e))",
                "message": "exportTo must not name a namespace twice"
            }
        ])
    )]
    pub export_to: Vec<String>,
    /// Names of which the server certificate must carry one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 2048)))]
    pub subject_alt_names: Vec<String>,
}

/// A port of a service outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["number", "name"]))]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Port that clients call.
    #[schemars(range(min = 1, max = 65535))]
    pub number: u32,
    /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS, in any case. Absent: TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub protocol: Option<String>,
    /// Name of the port, a DNS label; endpoints refer to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub name: String,
    /// Port of the endpoints where it differs from `number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<u32>,
}

/// Whether a service belongs to the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside the mesh; consumed through its API.
    #[default]
    MeshExternal,
    /// Part of the mesh, although not in the cluster's Services.
    MeshInternal,
}

/// How the addresses of a service are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Connections go to the address that the client chose.
    #[default]
    None,
    /// The endpoints' addresses are written in the object.
    Static,
    /// Names are looked up; every address found is used.
    Dns,
    /// Names are looked up; new connections use the first address of the latest answer.
    DnsRoundRobin,
    /// The host of each request is looked up.
    DynamicDns,
}
