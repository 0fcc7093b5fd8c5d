//! Messages and services that components exchange. Generated from `proto/`; no logic.
//!
//! Field numbers and names are contracts with every other implementation of the same protocols.

/// Incremental xDS (`envoy.service.discovery.v3`).
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// Workload discovery resources (`istio.workload`).
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod workload {
    tonic::include_proto!("istio.workload");
}

/// Layer-4 authorization resources (`istio.security`).
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod security {
    tonic::include_proto!("istio.security");
}

/// Certificate signing (`istio.v1.auth`).
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod ca {
    tonic::include_proto!("istio.v1.auth");
}

/// Node agent to node proxy (`istio.workload.zds`).
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod zds {
    tonic::include_proto!("istio.workload.zds");
}

/// Our own additions (`meltemi.v1`), which other implementations ignore.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod meltemi {
    tonic::include_proto!("meltemi.v1");

    /// Name of the extension of a service that holds [`WaypointRequired`].
    pub const WAYPOINT_REQUIRED: &str = "meltemi.waypoint-required";
    /// Type URL of [`WaypointRequired`].
    pub const WAYPOINT_REQUIRED_TYPE: &str = "type.googleapis.com/meltemi.v1.WaypointRequired";
    /// Name of the extension of a workload that holds [`Labels`].
    pub const LABELS: &str = "meltemi.labels";
    /// Type URL of [`Labels`].
    pub const LABELS_TYPE: &str = "type.googleapis.com/meltemi.v1.Labels";
    /// Metadata of a stream's request: which extensions the client understands, separated by commas.
    pub const EXTENSIONS_HEADER: &str = "x-meltemi-extensions";
    /// Metadata of a stream's response: which promises hold, as `name=strict` or `name=reference`.
    pub const PROMISES_HEADER: &str = "x-meltemi-promises";
    /// In [`EXTENSIONS_HEADER`]: the client reads [`PROMISES_HEADER`].
    pub const PROMISES_EXTENSION: &str = "promises";
    /// In [`EXTENSIONS_HEADER`]: the client enforces [`WaypointRequired`].
    pub const WAYPOINT_REQUIRED_EXTENSION: &str = "waypoint-required";
}

/// What a layer-7 proxy must know (`meltemi.l7.v1`): our own, between our controller and our waypoint.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unreachable_pub, unused_qualifications)] // generated
pub mod l7 {
    tonic::include_proto!("meltemi.l7.v1");
}

/// Type URLs of the resources that delta xDS carries.
pub mod type_url {
    /// [`crate::workload::Address`]: workloads and services.
    pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
    /// [`crate::workload::Workload`]: workloads only, for older clients.
    pub const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
    /// [`crate::l7::Resource`].
    pub const L7: &str = "type.googleapis.com/meltemi.l7.v1.Resource";
    /// [`crate::security::Authorization`].
    pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
}
