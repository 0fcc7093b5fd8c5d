//! What happens to pods on their way in: service account, token volume, priority; and binding.

use serde_json::{Map, Value, json};

use super::{
    ApiServer,
    clock::stamp,
    defaults::{each, map, set},
    names,
    scale::selector_text,
    selector::Selector,
    status::ApiError,
};
use crate::store::{Object, ObjectKey, ResourceKey};

/// Where pods find their token.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Life of a pod's token: an hour, and a few seconds that mark it as made here.
const TOKEN_SECONDS: u32 = 3_607;
/// When an eviction that was refused may be tried again.
const EVICTION_RETRY_SECONDS: u32 = 10;
/// Seconds a pod stays on a node that is not ready or not reachable.
const TOLERATION_SECONDS: u32 = 300;

impl ApiServer {
    /// Completes a new pod.
    pub(crate) fn admit_pod(&self, namespace: &str, pod: &mut Value) -> Result<(), ApiError> {
        let Some(fields) = pod.as_object_mut() else { return Ok(()) };
        let spec = map(fields, "spec");
        set(spec, "serviceAccountName", json!("default"));
        let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
        spec.insert("serviceAccount".to_owned(), account.clone());
        self.admit_service_account(namespace, account.as_str().unwrap_or_default(), spec)?;
        self.admit_priority(spec)?;
        tolerations(spec);
        let qos = qos_class(spec);
        fields.insert("status".to_owned(), json!({"phase": "Pending", "qosClass": qos}));
        Ok(())
    }

    fn admit_service_account(
        &self,
        namespace: &str,
        name: &str,
        spec: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        let key = ObjectKey::namespaced(namespace, name);
        let account = self.store.get(&ResourceKey::new("", "serviceaccounts"), &key);
        // A new namespace gets its `default` account a moment later; its pods need not wait for it.
        if account.is_none() && name != "default" {
            let message = format!(
                "pods is forbidden: error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            );
            return Err(ApiError::forbidden(message).about("", "pods", ""));
        }
        let account = account.as_deref().map(|account| account.value());
        let secrets = account.and_then(|account| account.get("imagePullSecrets")).cloned();
        if let Some(secrets) = secrets {
            set(spec, "imagePullSecrets", secrets);
        }
        let of_account = account.and_then(|account| account.get("automountServiceAccountToken"));
        let mounted = spec.get("automountServiceAccountToken").or(of_account).and_then(Value::as_bool).unwrap_or(true);
        if mounted {
            mount_token(spec);
        }
        Ok(())
    }

    fn admit_priority(&self, spec: &mut Map<String, Value>) -> Result<(), ApiError> {
        let Some(name) = spec.get("priorityClassName").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            set(spec, "priority", json!(0));
            set(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
            return Ok(());
        };
        let key = ResourceKey::new("scheduling.k8s.io", "priorityclasses");
        let Some(class) = self.store.get(&key, &ObjectKey::cluster(name)) else {
            let message = format!("pods is forbidden: no PriorityClass with name {name} was found");
            return Err(ApiError::forbidden(message).about("", "pods", ""));
        };
        let value = |field: &str| class.value().get(field).cloned();
        let priority = value("value").unwrap_or(json!(0));
        let policy = value("preemptionPolicy").unwrap_or(json!("PreemptLowerPriority"));
        set(spec, "priority", priority);
        set(spec, "preemptionPolicy", policy);
        Ok(())
    }
}

impl ApiServer {
    /// Refuses an eviction that a disruption budget does not allow. Nobody computes budgets here yet,
    /// so a budget without a status allows nothing.
    pub(crate) fn check_disruption(&self, pod: &Object) -> Result<(), ApiError> {
        let budgets = ResourceKey::new("policy", "poddisruptionbudgets");
        for budget in self.store.list(&budgets, pod.namespace()).items {
            let selector = budget.value().pointer("/spec/selector").map(selector_text).unwrap_or_default();
            let covers = Selector::parse(Some(&selector), None, &[])?.matches(pod.value());
            let allowed =
                budget.value().pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or_default();
            if covers && allowed < 1 {
                let message = format!(
                    "Cannot evict pod as it would violate the pod's disruption budget {}: it allows no disruption now",
                    budget.name()
                );
                return Err(ApiError::too_many_requests(message, EVICTION_RETRY_SECONDS));
            }
        }
        Ok(())
    }
}

/// Adds the projected token volume and mounts it into every container that has nothing there.
fn mount_token(spec: &mut Map<String, Value>) {
    let mut needed = false;
    let name = format!("kube-api-access-{}", names::suffix());
    for list in ["initContainers", "containers"] {
        each(spec, list, |container| {
            let mounts = container.get("volumeMounts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let occupied = |mount: &Value| mount.get("mountPath").and_then(Value::as_str) == Some(TOKEN_DIRECTORY);
            if mounts.iter().any(occupied) {
                return;
            }
            needed = true;
            let mount = json!({"name": name, "mountPath": TOKEN_DIRECTORY, "readOnly": true});
            push(container, "volumeMounts", mount);
        });
    }
    if needed {
        push(
            spec,
            "volumes",
            json!({"name": name, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ]}}),
        );
    }
}

fn push(fields: &mut Map<String, Value>, name: &str, item: Value) {
    set(fields, name, json!([]));
    if let Some(list) = fields.get_mut(name).and_then(Value::as_array_mut) {
        list.push(item);
    }
}

fn tolerations(spec: &mut Map<String, Value>) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let list = spec.get("tolerations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let text = |toleration: &Value, field: &str| {
            toleration.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let tolerated = list.iter().any(|toleration| {
            let named = text(toleration, "key");
            let effect = text(toleration, "effect");
            (named == key || (named.is_empty() && text(toleration, "operator") == "Exists"))
                && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            push(
                spec,
                "tolerations",
                json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
                }),
            );
        }
    }
}

fn qos_class(spec: &Map<String, Value>) -> &'static str {
    let lists = ["initContainers", "containers"];
    let containers = lists.iter().filter_map(|list| spec.get(*list)?.as_array()).flatten();
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let amount = |group: &str, name: &str| container.pointer(&format!("/resources/{group}/{name}"));
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Writes the node of a `Binding` into a pod.
pub(crate) fn bind(pod: &mut Value, binding: &Value) -> Result<(), ApiError> {
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, node) = (text(pod, "/metadata/name"), text(binding, "/target/name"));
    if node.is_empty() {
        let error = crate::schema::FieldError { path: "target.name".to_owned(), reason: "Required value".to_owned() };
        return Err(ApiError::invalid("", "Binding", &name, vec![error]));
    }
    let uid = text(binding, "/metadata/uid");
    if !uid.is_empty() && uid != text(pod, "/metadata/uid") {
        return Err(ApiError::conflict("", "pods/binding", &name, "the pod has another uid than the binding"));
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(ApiError::conflict("", "pods/binding", &name, &why));
    }
    let bound = text(pod, "/spec/nodeName");
    if !bound.is_empty() {
        let why = format!("pod {name} is already assigned to node {bound:?}");
        return Err(ApiError::conflict("", "pods/binding", &name, &why));
    }
    let Some(fields) = pod.as_object_mut() else { return Ok(()) };
    map(fields, "spec").insert("nodeName".to_owned(), json!(node));
    let status = map(fields, "status");
    set(status, "conditions", json!([]));
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition.get("type") != Some(&json!("PodScheduled")));
        conditions.push(json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": stamp(),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mounted_once_and_not_over_another_volume() {
        let mut spec = json!({"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": TOKEN_DIRECTORY}]},
        ]});
        mount_token(spec.as_object_mut().unwrap());
        assert_eq!(spec["containers"][0]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(spec["volumes"][0]["name"], spec["containers"][0]["volumeMounts"][0]["name"]);
    }

    #[test]
    fn quality_of_service() {
        let class =
            |resources: Value| qos_class(json!({"containers": [{"resources": resources}]}).as_object().unwrap());
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!({"requests": both, "limits": both})), "Guaranteed");
    }

    #[test]
    fn binding_happens_once() {
        let mut pod = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {}});
        let binding = json!({"target": {"kind": "Node", "name": "node-1"}});
        bind(&mut pod, &binding).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "node-1");
        assert!(bind(&mut pod, &binding).unwrap_err().message.contains("already assigned"));
        assert!(bind(&mut json!({"metadata": {"name": "a"}}), &json!({})).is_err());
    }
}
