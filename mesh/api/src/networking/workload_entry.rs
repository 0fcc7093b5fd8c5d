//! WorkloadEntry: one workload that is not a pod.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::MeshStatus;

/// Describes one workload outside the cluster's pods, for example a virtual machine. Also an endpoint of a ServiceEntry.
///
/// # Source
/// `networking.istio.io/v1 WorkloadEntry`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "WorkloadEntry",
    plural = "workloadentries",
    doc = "One workload that is not a pod.",
    namespaced,
    status = "MeshStatus",
    shortname = "we",
    category = "istio-io",
    category = "networking-istio-io",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#,
    printcolumn = r#"{"name": "Address", "type": "string", "jsonPath": ".spec.address", "description": "Address of the workload."}"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.address) && self.address != '') || (has(self.network) && self.network != '')",
        "message": "address is required unless network is set"
    },
    {
        "rule": "!has(self.address) || !self.address.startsWith('unix:') || self.address.startsWith('unix:///') || self.address.startsWith('unix:@')",
        "message": "address of a socket must be `unix:///absolute/path` or `unix:@name`"
    },
    {
        "rule": "!has(self.address) || !self.address.startsWith('unix:') || !has(self.ports)",
        "message": "ports must not be set where address is a socket"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    /// IP address, host name, or socket (`unix:///path`, `unix:@name`). May be absent where `network` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address: Option<String>,
    /// Port numbers by the names that the service uses. Absent: the service's own numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 128,
        "additionalProperties" = {"type": "integer", "minimum": 1, "maximum": 65535},
        "x-kubernetes-validations" = [{
            "rule": "self.all(key, size(key) > 0 && size(key) <= 63)",
            "message": "ports must have names of 1 to 63 characters"
        }]
    ))]
    pub ports: BTreeMap<String, u32>,
    /// Labels of the workload, as a pod has them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub labels: BTreeMap<String, String>,
    /// Network of the workload. Workloads of the same network reach each other directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub network: Option<String>,
    /// Place of the workload: `region/zone/subzone`, finer parts may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub locality: Option<String>,
    /// Share of the traffic, relative to the other endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Service account whose identity the workload has, in the object's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account: Option<String>,
}
