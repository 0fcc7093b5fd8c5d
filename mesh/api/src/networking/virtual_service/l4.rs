//! Routes of connections.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Destination;

/// Where TLS connections that match go, without being decrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["match"]))]
#[serde(default)]
pub struct TlsRoute {
    /// What is matched; any may match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 1024))]
    pub matches: Vec<TlsMatch>,
    /// Destinations, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-validations" = [{
        "rule": "size(self) <= 1 || self.exists(r, has(r.weight) && r.weight > 0)",
        "message": "route with several destinations must have a weight above 0"
    }]))]
    pub route: Vec<RouteDestination>,
}

/// Where other connections that match go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TcpRoute {
    /// What is matched; any may match. Empty: every connection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "match")]
    #[schemars(length(max = 1024))]
    pub matches: Vec<TcpMatch>,
    /// Destinations, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-validations" = [{
        "rule": "size(self) <= 1 || self.exists(r, has(r.weight) && r.weight > 0)",
        "message": "route with several destinations must have a weight above 0"
    }]))]
    pub route: Vec<RouteDestination>,
}

/// Matches TLS connections when everything that is given matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["sniHosts"]))]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatch {
    /// Server names; each must be one of the VirtualService's hosts or lie under one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 255)))]
    pub sni_hosts: Vec<String>,
    /// Blocks of destination addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub destination_subnets: Vec<String>,
    /// Port that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub port: Option<u32>,
    /// Labels of the caller. Not at waypoints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways, in place of those of the VirtualService.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub gateways: Vec<String>,
    /// Namespace of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
}

/// Matches connections when everything that is given matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpMatch {
    /// Blocks of destination addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub destination_subnets: Vec<String>,
    /// Port that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub port: Option<u32>,
    /// Block of the caller's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_subnet: Option<String>,
    /// Labels of the caller. Not at waypoints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways, in place of those of the VirtualService.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub gateways: Vec<String>,
    /// Namespace of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
}

/// One destination of a route of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["destination"]))]
#[serde(default)]
pub struct RouteDestination {
    /// The service.
    pub destination: Destination,
    /// Share of the connections, relative to the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub weight: Option<i32>,
}
