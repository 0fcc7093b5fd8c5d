//! The event that the plugin posts to the agent: `POST /cmdadd` on a Unix socket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// File of the socket, in the agent's run directory.
pub const SOCKET: &str = "pluginevent.sock";
/// Path of the request.
pub const PATH: &str = "/cmdadd";
/// File of the socket that takes log lines of the plugin, in the agent's run directory.
pub const LOG_SOCKET: &str = "log.sock";
/// Path of the request that carries log lines.
pub const LOG_PATH: &str = "/log";
/// File of the plugin's credentials, in the agent's run directory.
pub const KUBECONFIG: &str = "istio-cni-kubeconfig";

/// A pod is about to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddEvent {
    /// Path of the pod's network namespace on the host.
    pub netns: String,
    /// Pod name.
    pub pod_name: String,
    /// Pod namespace.
    pub pod_namespace: String,
    /// Addresses that the chain has given the pod; absent without an earlier result.
    #[serde(rename = "IPs")]
    pub ips: Option<Vec<IpConfig>>,
    /// UID of the pod, where the runtime names it: a pod of a stateful set comes back under its old name. Agents that
    /// do not know the key ignore it.
    #[serde(rename = "PodUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// One address of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpConfig {
    /// Index into the interfaces of the result.
    pub interface: Option<i64>,
    /// Address and mask.
    pub address: IpMask,
    /// Gateway, as text.
    #[serde(default)]
    pub gateway: Option<String>,
}

/// An address with its network mask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpMask {
    /// Text form.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The bytes of the mask in base64.
    #[serde(rename = "Mask")]
    pub mask: String,
}

impl IpMask {
    /// From an address and the length of its prefix.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        let ones = |bytes: usize| -> Vec<u8> {
            let bit = |byte: usize| usize::from(prefix).saturating_sub(byte * 8).min(8) as u32;
            (0..bytes).map(|byte| !(0xff_u32 >> bit(byte)) as u8).collect()
        };
        let mask = ones(if ip.is_ipv4() { 4 } else { 16 });
        Self { ip: ip.to_string(), mask: STANDARD.encode(mask) }
    }
}

impl AddEvent {
    /// The pod's addresses, canonical.
    ///
    /// # Errors
    /// Names the text that is not an address.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let all = self.ips.iter().flatten();
        all.map(|one| {
            let text = &one.address.ip;
            text.parse::<IpAddr>()
                .map(|ip| ip.to_canonical())
                .map_err(|_| format!("IPs: {text:?} is not an IP address"))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_wire_form_is_capitalised_and_masks_are_base64() {
        let event = AddEvent {
            netns: "/var/run/netns/x".into(),
            pod_name: "p".into(),
            pod_namespace: "n".into(),
            ips: Some(vec![IpConfig {
                interface: Some(2),
                address: IpMask::new("10.0.0.5".parse().unwrap(), 20),
                gateway: None,
            }]),
            pod_uid: None,
        };
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({"Netns": "/var/run/netns/x", "PodName": "p", "PodNamespace": "n",
                   "IPs": [{"Interface": 2, "Address": {"IP": "10.0.0.5", "Mask": "///wAA=="}, "Gateway": null}]})
        );
    }

    #[test]
    fn null_addresses_and_mapped_addresses_are_read() {
        let event: AddEvent =
            serde_json::from_value(json!({"Netns": "", "PodName": "", "PodNamespace": "", "IPs": null})).unwrap();
        assert_eq!(event.addresses().unwrap(), Vec::<IpAddr>::new());
        let event: AddEvent = serde_json::from_value(json!({"Netns": "", "PodName": "", "PodNamespace": "",
            "IPs": [{"Interface": null, "Address": {"IP": "::ffff:10.0.0.9", "Mask": ""}, "Gateway": ""}]}))
        .unwrap();
        assert_eq!(event.addresses().unwrap(), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
    }
}
