//! How the proxies of Gateways are deployed, and what their classes are called.

use std::sync::Arc;

use serde_json::{Value, json};

/// Process options that decide what is made for a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// Image of the proxy. `WAYPOINT_IMAGE`.
    pub image: Arc<str>,
    /// When the image is pulled; empty leaves it to the cluster. `WAYPOINT_IMAGE_PULL_POLICY`.
    pub pull_policy: Arc<str>,
    /// Where proxies find the control plane.
    pub discovery_address: Arc<str>,
    /// Parts of pods of waypoints: `resources`, `affinity`, `nodeSelector`, `tolerations` and
    /// `topologySpreadConstraints`. `WAYPOINT_POD_DEFAULTS`.
    pub pod: Value,
    /// Log filter of proxies. `WAYPOINT_LOG_LEVEL`.
    pub log_level: Arc<str>,
    /// Class of ingress and egress gateways. `PILOT_GATEWAY_API_DEFAULT_GATEWAYCLASS_NAME`.
    pub edge_class: Arc<str>,
    /// Controller of that class. `PILOT_GATEWAY_API_CONTROLLER_NAME`.
    pub edge_controller: Arc<str>,
    /// Whether a Gateway may name a Service of the user's. `ENABLE_GATEWAY_API_MANUAL_DEPLOYMENT`.
    pub manual: bool,
    /// Whether a Gateway's own labels and annotations are copied. `ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS`.
    pub copy_metadata: bool,
    /// Whether deployments are made. `PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER`.
    pub deploys: bool,
    /// Whether classes are made. `PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER`.
    pub classes: bool,
    /// Whether statuses of the Gateway API are written. `PILOT_ENABLE_GATEWAY_API_STATUS`.
    pub statuses: bool,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            image: concat!("meltemi/waypoint:", env!("CARGO_PKG_VERSION")).into(),
            pull_policy: "".into(),
            discovery_address: "istiod.istio-system.svc:15012".into(),
            pod: json!({}),
            log_level: "info".into(),
            edge_class: EDGE_CLASS.into(),
            edge_controller: EDGE_CONTROLLER.into(),
            manual: true,
            copy_metadata: true,
            deploys: true,
            classes: true,
            statuses: true,
        }
    }
}

/// Usual name of the class of ingress and egress gateways.
pub const EDGE_CLASS: &str = "istio";
/// Usual controller of that class.
pub const EDGE_CONTROLLER: &str = "istio.io/gateway-controller";
