//! The values Kubernetes fills in when a field is left out, as far as clients rely on them.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::specs;
use crate::store::ResourceKey;

/// Fills in the defaults of a built-in object. Custom resources have theirs in their schema.
pub(crate) fn apply(resource: &ResourceKey, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    match resource.as_str() {
        "pods" => {
            let spec = map(fields, "spec");
            set(spec, "enableServiceLinks", json!(true));
            specs::pod(spec);
        }
        "services" => service(map(fields, "spec")),
        "namespaces" => namespace(fields),
        "secrets" => secret(fields),
        "endpoints" => endpoints(fields),
        "endpointslices.discovery.k8s.io" => each(fields, "ports", |port| {
            set(port, "name", json!(""));
            set(port, "protocol", json!("TCP"));
        }),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" => {
            workload(resource.as_str(), map(fields, "spec"));
        }
        "jobs.batch" => job(map(fields, "spec")),
        "cronjobs.batch" => cron_job(map(fields, "spec")),
        "networkpolicies.networking.k8s.io" => network_policy(map(fields, "spec")),
        "horizontalpodautoscalers.autoscaling" => set(map(fields, "spec"), "minReplicas", json!(1)),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => binding(fields),
        "validatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(fields, false),
        "mutatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(fields, true),
        "priorityclasses.scheduling.k8s.io" => set(fields, "preemptionPolicy", json!("PreemptLowerPriority")),
        _ => {}
    }
}

/// Sets a field that is absent or null.
pub(crate) fn set(fields: &mut Map<String, Value>, name: &str, value: Value) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), value);
    }
}

/// The object in a field, made if absent. Types have been validated before, so that another type
/// can only be null, which means absent.
pub(crate) fn map<'a>(fields: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = fields.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was made an object above"),
    }
}

/// Calls `edit` for each object of a list field.
pub(crate) fn each(fields: &mut Map<String, Value>, name: &str, mut edit: impl FnMut(&mut Map<String, Value>)) {
    for item in fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            edit(item);
        }
    }
}

fn service(spec: &mut Map<String, Value>) {
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    if spec.get("sessionAffinity") == Some(&json!("ClientIP")) {
        set(map(map(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", json!(10_800));
    }
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default();
    let (external, routed) = (kind == "ExternalName", matches!(kind, "LoadBalancer" | "NodePort"));
    if !external {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if routed {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    each(spec, "ports", |port| {
        set(port, "protocol", json!("TCP"));
        if let Some(number) = port.get("port").cloned() {
            let target = port.get("targetPort");
            if target.is_none_or(|target| target.is_null() || *target == json!(0) || *target == json!("")) {
                port.insert("targetPort".to_owned(), number);
            }
        }
    });
}

fn namespace(fields: &mut Map<String, Value>) {
    let metadata = map(fields, "metadata");
    if let Some(name) = metadata.get("name").cloned() {
        map(metadata, "labels").insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    set(map(fields, "spec"), "finalizers", json!(["kubernetes"]));
    set(map(fields, "status"), "phase", json!("Active"));
}

fn secret(fields: &mut Map<String, Value>) {
    set(fields, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = fields.remove("stringData") else { return };
    let data = map(fields, "data");
    for (key, value) in plain {
        if let Some(text) = value.as_str() {
            data.insert(key, json!(STANDARD.encode(text)));
        }
    }
}

fn endpoints(fields: &mut Map<String, Value>) {
    each(fields, "subsets", |subset| each(subset, "ports", |port| set(port, "protocol", json!("TCP"))));
}

fn workload(resource: &str, spec: &mut Map<String, Value>) {
    let rolling = |limits: Value| json!({"type": "RollingUpdate", "rollingUpdate": limits});
    if resource != "daemonsets.apps" {
        set(spec, "replicas", json!(1));
    }
    if resource != "replicasets.apps" {
        set(spec, "revisionHistoryLimit", json!(10));
    }
    match resource {
        "deployments.apps" => {
            set(spec, "progressDeadlineSeconds", json!(600));
            set(spec, "strategy", json!({}));
            strategy(map(spec, "strategy"), json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
        }
        "daemonsets.apps" => {
            set(spec, "updateStrategy", rolling(json!({})));
            strategy(map(spec, "updateStrategy"), json!({"maxUnavailable": 1, "maxSurge": 0}));
        }
        "statefulsets.apps" => {
            set(spec, "podManagementPolicy", json!("OrderedReady"));
            set(spec, "updateStrategy", rolling(json!({})));
            strategy(map(spec, "updateStrategy"), json!({"partition": 0}));
        }
        _ => {}
    }
    specs::template(spec);
}

fn strategy(fields: &mut Map<String, Value>, limits: Value) {
    set(fields, "type", json!("RollingUpdate"));
    if fields.get("type") != Some(&json!("RollingUpdate")) {
        return;
    }
    let rolling = map(fields, "rollingUpdate");
    if let Value::Object(limits) = limits {
        for (name, limit) in limits {
            set(rolling, &name, limit);
        }
    }
}

fn job(spec: &mut Map<String, Value>) {
    for (name, value) in [("parallelism", json!(1)), ("completions", json!(1)), ("backoffLimit", json!(6))] {
        set(spec, name, value);
    }
    set(spec, "completionMode", json!("NonIndexed"));
    set(spec, "suspend", json!(false));
    specs::template(spec);
}

fn cron_job(spec: &mut Map<String, Value>) {
    set(spec, "concurrencyPolicy", json!("Allow"));
    set(spec, "suspend", json!(false));
    set(spec, "successfulJobsHistoryLimit", json!(3));
    set(spec, "failedJobsHistoryLimit", json!(1));
    specs::template(map(map(spec, "jobTemplate"), "spec"));
}

fn network_policy(spec: &mut Map<String, Value>) {
    let types = if spec.get("egress").is_some_and(|egress| !egress.is_null()) {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    set(spec, "policyTypes", types);
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| each(rule, "ports", |port| set(port, "protocol", json!("TCP"))));
    }
}

fn binding(fields: &mut Map<String, Value>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    set(map(fields, "roleRef"), "apiGroup", json!(GROUP));
    each(fields, "subjects", |subject| {
        if subject.get("kind").and_then(Value::as_str) != Some("ServiceAccount") {
            set(subject, "apiGroup", json!(GROUP));
        }
    });
}

fn webhooks(fields: &mut Map<String, Value>, mutating: bool) {
    each(fields, "webhooks", |webhook| {
        set(webhook, "failurePolicy", json!("Fail"));
        set(webhook, "matchPolicy", json!("Equivalent"));
        set(webhook, "timeoutSeconds", json!(10));
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        if mutating {
            set(webhook, "reinvocationPolicy", json!("Never"));
        }
        each(webhook, "rules", |rule| set(rule, "scope", json!("*")));
        if let Some(service) = webhook.get_mut("clientConfig").and_then(|config| config.get_mut("service"))
            && let Some(service) = service.as_object_mut()
        {
            set(service, "port", json!(443));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(resource: &str, mut object: Value) -> Value {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        apply(&ResourceKey::new(group, plural), &mut object);
        object
    }

    #[test]
    fn services() {
        let object = defaulted(
            "services",
            json!({"spec": {"ports": [{"port": 80}, {"port": 1, "targetPort": "http", "protocol": "UDP"}]}}),
        );
        assert_eq!(object["spec"]["type"], "ClusterIP");
        assert_eq!(object["spec"]["ports"][0], json!({"port": 80, "targetPort": 80, "protocol": "TCP"}));
        assert_eq!(object["spec"]["ports"][1], json!({"port": 1, "targetPort": "http", "protocol": "UDP"}));
    }

    #[test]
    fn deployments() {
        let object = defaulted(
            "deployments.apps",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}}),
        );
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(object["spec"]["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
        let recreate = defaulted("deployments.apps", json!({"spec": {"strategy": {"type": "Recreate"}}}));
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn secrets_and_namespaces() {
        let secret = defaulted("secrets", json!({"stringData": {"key": "value"}}));
        assert_eq!(secret, json!({"type": "Opaque", "data": {"key": "dmFsdWU="}}));
        let namespace = defaulted("namespaces", json!({"metadata": {"name": "demo"}}));
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "demo");
        assert_eq!(namespace["status"]["phase"], "Active");
    }
}
