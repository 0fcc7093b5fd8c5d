//! Settings of what is made for Gateways.

use serde_json::Value;

use super::Reader;
use crate::world::ProxySettings;

/// Reads them.
pub(super) fn settings(read: &mut Reader<'_>) -> ProxySettings {
    let default = ProxySettings::default();
    let text = |read: &mut Reader<'_>, name: &str, default: &str| -> std::sync::Arc<str> {
        read.env.get(name).filter(|text| !text.is_empty()).unwrap_or(default).into()
    };
    let namespace = text(read, "POD_NAMESPACE", mesh_api::labels::SYSTEM_NAMESPACE);
    let revision = text(read, "REVISION", "default");
    let suffix = if &*revision == "default" { String::new() } else { format!("-{revision}") };
    let discovery = format!("istiod{suffix}.{namespace}.svc:15012");
    ProxySettings {
        image: text(read, "WAYPOINT_IMAGE", &default.image),
        pull_policy: text(read, "WAYPOINT_IMAGE_PULL_POLICY", &default.pull_policy),
        discovery_address: text(read, "WAYPOINT_DISCOVERY_ADDRESS", &discovery),
        pod: read.value("WAYPOINT_POD_DEFAULTS", default.pod, POD, pod),
        log_level: text(read, "WAYPOINT_LOG_LEVEL", &default.log_level),
        edge_class: text(read, "PILOT_GATEWAY_API_DEFAULT_GATEWAYCLASS_NAME", &default.edge_class),
        edge_controller: text(read, "PILOT_GATEWAY_API_CONTROLLER_NAME", &default.edge_controller),
        manual: read.bool("ENABLE_GATEWAY_API_MANUAL_DEPLOYMENT", default.manual),
        copy_metadata: read.bool("ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS", default.copy_metadata),
        deploys: read.bool("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", default.deploys),
        classes: read.bool("PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER", default.classes),
        statuses: read.bool("PILOT_ENABLE_GATEWAY_API_STATUS", default.statuses),
    }
}

/// Parts of a pod that may be set, and no others.
fn pod(text: &str) -> Option<Value> {
    let read: Value = serde_json::from_str(text).ok()?;
    read.as_object()?.keys().all(|key| PARTS.contains(&key.as_str())).then_some(read)
}

const PARTS: [&str; 5] = ["resources", "affinity", "nodeSelector", "tolerations", "topologySpreadConstraints"];
const POD: &str = "a JSON object with any of resources, affinity, nodeSelector, tolerations, topologySpreadConstraints";

#[cfg(test)]
mod tests {
    use mesh_core::env::Env;
    use serde_json::json;

    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> (ProxySettings, Vec<String>) {
        let env: Env = pairs.iter().copied().collect();
        let mut reader = Reader { env: &env, problems: Vec::new() };
        let settings = settings(&mut reader);
        (settings, reader.problems)
    }

    #[test]
    fn proxies_find_the_control_plane_of_their_revision() {
        assert_eq!(&*read(&[]).0.discovery_address, "istiod.istio-system.svc:15012");
        let other = read(&[("REVISION", "blue"), ("POD_NAMESPACE", "mesh"), ("WAYPOINT_IMAGE", "r/waypoint:1")]).0;
        assert_eq!((&*other.discovery_address, &*other.image), ("istiod-blue.mesh.svc:15012", "r/waypoint:1"));
    }

    #[test]
    fn parts_of_pods_are_json_of_known_parts() {
        let (settings, problems) = read(&[("WAYPOINT_POD_DEFAULTS", r#"{"resources": {"limits": null}}"#)]);
        assert_eq!((settings.pod, problems.len()), (json!({"resources": {"limits": null}}), 0));
        for bad in ["[]", "{", r#"{"containers": []}"#] {
            let (_, problems) = read(&[("WAYPOINT_POD_DEFAULTS", bad)]);
            assert!(problems[0].contains("WAYPOINT_POD_DEFAULTS"), "{problems:?}");
        }
    }
}
