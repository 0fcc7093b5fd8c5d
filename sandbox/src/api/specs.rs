//! Defaults of pod specifications, in pods and in templates.

use serde_json::{Map, Value, json};

use super::defaults::{each, map, set};

/// Fills in the template of a workload.
pub(crate) fn template(spec: &mut Map<String, Value>) {
    if spec.get("template").is_some_and(Value::is_object) {
        pod(map(map(spec, "template"), "spec"));
    }
}

/// Fills in a pod specification.
pub(crate) fn pod(spec: &mut Map<String, Value>) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "securityContext", json!({}));
    if let Some(account) = spec.get("serviceAccountName").or_else(|| spec.get("serviceAccount")).cloned() {
        set(spec, "serviceAccountName", account.clone());
        spec.insert("serviceAccount".to_owned(), account);
    }
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["initContainers", "containers"] {
        each(spec, list, |item| container(item, host_network));
    }
    each(spec, "volumes", volume);
}

fn container(container: &mut Map<String, Value>, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", json!(policy));
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    requests_from_limits(map(container, "resources"));
    each(container, "ports", |port| {
        set(port, "protocol", json!("TCP"));
        if let Some(number) = port.get("containerPort").filter(|_| host_network).cloned() {
            set(port, "hostPort", number);
        }
    });
    each(container, "env", |variable| {
        if let Some(source) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef"))
            && let Some(source) = source.as_object_mut()
        {
            set(source, "apiVersion", json!("v1"));
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(name).and_then(Value::as_object_mut) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        let handler = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(hook));
        if let Some(handler) = handler.and_then(Value::as_object_mut) {
            http_get(handler);
        }
    }
}

/// Whether an image reference has no tag or digest, or the tag `latest`.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        _ if name.contains('@') => false,
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

fn requests_from_limits(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = map(resources, "requests");
    for (name, limit) in limits {
        set(requests, &name, limit);
    }
}

fn probe(probe: &mut Map<String, Value>) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(name) == Some(&json!(0)) {
            probe.remove(name);
        }
        set(probe, name, json!(value));
    }
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        set(grpc, "service", json!(""));
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        set(get, "path", json!("/"));
        set(get, "scheme", json!("HTTP"));
    }
}

/// Octal 0644.
const FILE_MODE: u32 = 0o644;

fn volume(volume: &mut Map<String, Value>) {
    let has_source = volume.iter().any(|(name, source)| name != "name" && !source.is_null());
    if !has_source {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            set(source, "defaultMode", json!(FILE_MODE));
            downward_items(source);
            each(source, "sources", |part| {
                if let Some(token) = part.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
                    set(token, "expirationSeconds", json!(3_600));
                }
                if let Some(downward) = part.get_mut("downwardAPI").and_then(Value::as_object_mut) {
                    downward_items(downward);
                }
            });
        }
    }
    if let Some(host) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        set(host, "type", json!(""));
    }
}

fn downward_items(source: &mut Map<String, Value>) {
    each(source, "items", |item| {
        if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
            set(field, "apiVersion", json!("v1"));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("web", true),
            ("web:latest", true),
            ("localhost:5000/web", true),
            ("localhost:5000/web:1.2", false),
            ("web@sha256:00", false),
        ];
        for (image, latest) in cases {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn probes_ports_and_volumes() {
        let mut spec = json!({
            "hostNetwork": true,
            "containers": [{
                "name": "a", "image": "x:1", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": "1"}},
            }],
            "volumes": [{"name": "empty"}, {"name": "host", "hostPath": {"path": "/x"}}, {"name": "c", "configMap": {"name": "c"}}],
        });
        pod(spec.as_object_mut().unwrap());
        let container = &spec["containers"][0];
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80}));
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 2, "timeoutSeconds": 1,
                   "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert_eq!(spec["volumes"][0], json!({"name": "empty", "emptyDir": {}}));
        assert_eq!(spec["volumes"][2]["configMap"]["defaultMode"], 420);
    }
}
