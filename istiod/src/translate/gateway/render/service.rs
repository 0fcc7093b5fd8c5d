//! The Service of a Gateway.

use serde_json::{Value, json};

use super::{Frame, put};

/// Its specification.
pub(super) fn spec(frame: &Frame<'_>) -> Value {
    let status = json!({"name": "status-port", "port": STATUS_PORT, "protocol": "TCP", "appProtocol": "tcp"});
    let ports = frame
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "port": port.port, "protocol": "TCP", "appProtocol": port.app_protocol}));
    let ports: Vec<_> = std::iter::once(status).chain(ports).collect();
    let asked = frame.gateway.annotations.get(SERVICE_TYPE).filter(|text| !text.is_empty());
    let type_ = asked.unwrap_or_else(|| frame.family.service_type());
    let mut spec = json!({
        "type": type_,
        "selector": frame.selector(),
        "ipFamilyPolicy": "PreferDualStack",
        "ports": ports,
    });
    let address = frame.gateway.spec.addresses.first().and_then(|address| address.value.as_deref());
    if let Some(address) = address.filter(|_| type_ == "LoadBalancer") {
        put(&mut spec, "loadBalancerIP", address.into());
    }
    spec
}

/// Gateway annotation: type of the Service.
pub(crate) const SERVICE_TYPE: &str = "networking.istio.io/service-type";
/// Where proxies are probed.
pub(crate) const STATUS_PORT: u16 = 15021;
