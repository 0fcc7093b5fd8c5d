//! The downward API: what a pod may read about itself. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};
use kube::ResourceExt;

use super::quantity;

/// Facts about a pod that its object does not hold yet when its containers start.
#[derive(Debug, Clone, Default)]
pub(super) struct Placement {
    pub(super) pod_ips: Vec<IpAddr>,
    pub(super) host_ips: Vec<IpAddr>,
    /// `limits.*` of a container without limits: what the node has.
    pub(super) node_cpu: String,
    pub(super) node_memory: String,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// A message that names the path when there is no such field.
pub(super) fn field(pod: &Pod, placement: &Placement, path: &str) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let all = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if let Some((map, key)) = subscript(path) {
        return match map {
            "metadata.labels" => Ok(text(pod.labels().get(key))),
            "metadata.annotations" => Ok(text(pod.annotations().get(key))),
            _ => Err(unsupported(path)),
        };
    }
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" => first(&placement.pod_ips),
        "status.podIPs" => all(&placement.pod_ips),
        "status.hostIP" => first(&placement.host_ips),
        "status.hostIPs" => all(&placement.host_ips),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("fieldRef {path:?} is not a field that the downward API has")
}

/// `metadata.labels['app']` as its map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key
        .strip_prefix('\'')
        .and_then(|key| key.strip_suffix('\''))
        .or_else(|| key.strip_prefix('"').and_then(|key| key.strip_suffix('"')))?;
    Some((map, key))
}

/// A map as a downward-API file: one `key="value"` a line, sorted, with escapes.
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef`; `container` is the one it stands in, when it stands in one.
///
/// # Errors
/// A message that names the resource or container that does not exist.
pub(super) fn resource(
    pod: &Pod,
    placement: &Placement,
    selector: &ResourceFieldSelector,
    container: Option<&str>,
) -> Result<String, String> {
    let wanted = selector.container_name.as_deref().filter(|name| !name.is_empty()).or(container);
    let found = pod.spec.as_ref().and_then(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .find(|candidate| Some(candidate.name.as_str()) == wanted)
    });
    let found =
        found.ok_or_else(|| format!("resourceFieldRef names container {wanted:?}, which the pod does not have"))?;
    let unknown = || format!("resourceFieldRef {:?} is not limits.* or requests.*", selector.resource);
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = found.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let limit = limits.and_then(|limits| limits.get(name)).map(|quantity| quantity.0.as_str());
    let of_node = match name {
        "cpu" => placement.node_cpu.as_str(),
        "memory" => placement.node_memory.as_str(),
        _ => "0",
    };
    let value = match list {
        "limits" => limit.unwrap_or(of_node),
        "requests" => requests
            .and_then(|requests| requests.get(name))
            .map(|quantity| quantity.0.as_str())
            .or(limit)
            .unwrap_or("0"),
        _ => return Err(unknown()),
    };
    let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str());
    quantity::divided(value, divisor).ok_or_else(|| format!("{value:?} divided by {divisor:?} is not a quantity"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "demo", "uid": "u1",
                "labels": {"app": "web", "b": "say \"hi\""}, "annotations": {"note/x": "y"}},
            "spec": {"nodeName": "node-1", "serviceAccountName": "web", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]},
        }))
        .unwrap()
    }

    fn placement() -> Placement {
        Placement {
            pod_ips: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            host_ips: vec!["172.30.0.11".parse().unwrap()],
            node_cpu: "2".into(),
            node_memory: "1Gi".into(),
        }
    }

    #[test]
    fn every_field_and_a_message_for_the_rest() {
        let table = [
            ("metadata.name", "web-1"),
            ("metadata.namespace", "demo"),
            ("metadata.uid", "u1"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['note/x']", "y"),
            ("metadata.labels", "app=\"web\"\nb=\"say \\\"hi\\\"\""),
            ("spec.nodeName", "node-1"),
            ("spec.serviceAccountName", "web"),
            ("status.podIP", "10.244.1.2"),
            ("status.podIPs", "10.244.1.2,fd00::2"),
            ("status.hostIP", "172.30.0.11"),
        ];
        for (path, expected) in table {
            assert_eq!(field(&pod(), &placement(), path).as_deref(), Ok(expected), "{path}");
        }
        assert!(field(&pod(), &placement(), "spec.hostname").unwrap_err().contains("spec.hostname"));
    }

    #[test]
    fn resources_fall_back_from_request_to_limit_to_node() {
        let ask = |name: &str, divisor: &str| {
            let selector = serde_json::from_value(json!({"resource": name, "divisor": divisor}));
            resource(&pod(), &placement(), &selector.unwrap(), Some("c"))
        };
        assert_eq!(ask("limits.cpu", "1m").as_deref(), Ok("1500"));
        assert_eq!(ask("requests.cpu", "0").as_deref(), Ok("2"));
        assert_eq!(ask("limits.memory", "1Mi").as_deref(), Ok("1024"));
        assert_eq!(ask("requests.memory", "1Mi").as_deref(), Ok("64"));
        assert!(ask("cpu", "0").is_err());
        let absent = serde_json::from_value(json!({"resource": "limits.cpu", "containerName": "x"}));
        assert!(resource(&pod(), &placement(), &absent.unwrap(), None).is_err());
    }
}
