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

/// Type URLs of the resources that delta xDS carries.
pub mod type_url {
    /// [`crate::workload::Address`]: workloads and services.
    pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
    /// [`crate::workload::Workload`]: workloads only, for older clients.
    pub const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
    /// [`crate::security::Authorization`].
    pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
}
