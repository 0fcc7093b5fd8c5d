//! WorkloadGroup: what workloads that register themselves have in common.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkloadEntrySpec;
use crate::status::MeshStatus;

/// Template of the WorkloadEntries of workloads that register themselves, and how their health is probed.
///
/// # Source
/// `networking.istio.io/v1 WorkloadGroup`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "WorkloadGroup",
    doc = "What workloads that register themselves have in common.",
    namespaced,
    status = "MeshStatus",
    shortname = "wg",
    category = "istio-io",
    category = "networking-istio-io",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("required" = ["template"]))]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroupSpec {
    /// Labels and annotations of the entries that are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<EntryMetadata>,
    /// The entries that are made; each gets the address of its workload.
    #[schemars(schema_with = "template")]
    pub template: WorkloadEntrySpec,
    /// How workloads are probed. Absent: they count as healthy while connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// Labels and annotations of the entries that are made from a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EntryMetadata {
    /// Labels of the entries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the entries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub annotations: BTreeMap<String, String>,
}

/// How the health of a workload is found out; the workload's own agent probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.httpGet) ? 1 : 0) + (has(self.tcpSocket) ? 1 : 0) + (has(self.exec) ? 1 : 0) + (has(self.grpc) ? 1 : 0) <= 1",
    "message": "httpGet, tcpSocket, exec and grpc exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Seconds before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds that a probe may take. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub timeout_seconds: Option<i32>,
    /// Seconds between probes. Absent: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub period_seconds: Option<i32>,
    /// Successes in a row that make a workload healthy. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub success_threshold: Option<i32>,
    /// Failures in a row that make a workload unhealthy. Absent: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failure_threshold: Option<i32>,
    /// Healthy when a GET is answered with 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpProbe>,
    /// Healthy when a connection is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpProbe>,
    /// Healthy when a command ends with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// Healthy when the gRPC health service says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
}

/// A probe by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["port"]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpProbe {
    /// Path to GET. Absent: `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Port of the workload.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// Host to connect to. Absent: the workload itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `HTTP` or `HTTPS`. Absent: `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Headers of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub http_headers: Vec<ProbeHeader>,
}

/// A header of an HTTP probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProbeHeader {
    /// Name of the header.
    #[schemars(regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub name: String,
    /// Value of the header.
    pub value: String,
}

/// A probe by connecting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["port"]))]
#[serde(default)]
pub struct TcpProbe {
    /// Host to connect to. Absent: the workload itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port of the workload.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
}

/// A probe by running a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["command"]))]
#[serde(default)]
pub struct ExecProbe {
    /// The command and its arguments; no shell reads them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1)))]
    pub command: Vec<String>,
}

/// A probe by gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GrpcProbe {
    /// Port of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
    /// Service that the health request names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// The schema of a WorkloadEntry without its rule that there be an address: that comes when a workload registers.
fn template(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = WorkloadEntrySpec::json_schema(generator);
    schema.remove("x-kubernetes-validations");
    schema
}
