//! Events on pods: what users see in `kubectl describe pod` when a pod is not captured as it should be.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::enrol::{SCOPE, full_name};

/// Writes events. Failures are logged: an event is advice, never a condition of anything.
#[derive(Clone)]
pub struct Notices {
    client: Client,
    node: String,
}

impl Notices {
    /// For the agent of `node`.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node }
    }

    /// Warns about a pod. `reason` is one word in camel case.
    pub async fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        let namespace = pod.namespace().unwrap_or_default();
        let event = event(pod, reason, message, &self.node, Timestamp::now());
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let parameters = PostParams::default();
        let written = tokio::time::timeout(WRITE_TIMEOUT, api.create(&parameters, &event)).await;
        let problem = match written {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {WRITE_TIMEOUT:?}"),
        };
        tracing::warn!(target: SCOPE, pod = %full_name(pod), reason, problem, "event could not be written");
    }
}

fn event(pod: &Pod, reason: &str, message: &str, node: &str, now: Timestamp) -> Event {
    let time = Time(now);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", pod.name_any(), now.as_nanosecond())),
            namespace: pod.namespace(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectReference::default()
        },
        reason: Some(reason.to_owned()),
        message: Some(message.chars().take(MESSAGE_CHARS_MAX).collect()),
        source: Some(EventSource { component: Some("istio-cni".to_owned()), host: Some(node.to_owned()) }),
        first_timestamp: Some(time.clone()),
        last_timestamp: Some(time),
        count: Some(1),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// An event must not hold up the work it is about.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The API server's limit for messages.
const MESSAGE_CHARS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_pod_and_fits() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "demo", "uid": "u-1"}}))
        .unwrap();
        let event = event(&pod, "Reason", &"x".repeat(5000), "node-1", Timestamp::UNIX_EPOCH);
        assert_eq!(event.involved_object.uid.as_deref(), Some("u-1"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("demo"));
        assert_eq!(event.message.unwrap().len(), 1024);
    }
}
