//! Events about pods: repeated ones are counted, not repeated.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

/// Writes events in the background; recording never waits.
#[derive(Clone)]
pub(crate) struct Recorder {
    notes: mpsc::Sender<Note>,
}

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

#[derive(Debug)]
struct Note {
    about: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
    at: jiff::Timestamp,
}

impl Recorder {
    /// Starts the writer of a component (`kubelet`, with its node; `default-scheduler`, without).
    pub(crate) fn start(client: Client, component: &'static str, node: Option<String>) -> Self {
        let (notes, received) = mpsc::channel(NOTES_MAX);
        tokio::spawn(write(client, component, node, received));
        Self { notes }
    }

    /// Records an event about a pod, or about one of its containers.
    pub(crate) fn record(&self, pod: &Pod, container: Option<&str>, kind: Kind, reason: &'static str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
        };
        let note = Note { about, kind, reason, message, at: jiff::Timestamp::now() };
        // A full queue loses events, as a real cluster's rate limit does.
        let _ = self.notes.try_send(note);
    }
}

/// What makes two events the same.
type Sameness = (Option<String>, Option<String>, Kind, &'static str, String);

struct Known {
    name: String,
    count: i32,
}

async fn write(client: Client, component: &'static str, node: Option<String>, mut notes: mpsc::Receiver<Note>) {
    let mut known: BTreeMap<Sameness, Known> = BTreeMap::new();
    let mut order: VecDeque<Sameness> = VecDeque::new();
    while let Some(note) = notes.recv().await {
        let sameness =
            (note.about.uid.clone(), note.about.field_path.clone(), note.kind, note.reason, note.message.clone());
        let namespace = note.about.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Some(seen) = known.get_mut(&sameness) {
            seen.count = seen.count.saturating_add(1);
            let patch = json!({"count": seen.count, "lastTimestamp": Time(note.at)});
            let patched = api.patch(&seen.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            if patched.is_ok() {
                continue;
            }
        }
        let event = event(&note, component, node.as_ref());
        let name = event.name_any();
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, reason = note.reason, "event not written");
            continue;
        }
        if known.insert(sameness.clone(), Known { name, count: 1 }).is_none() {
            order.push_back(sameness);
        }
        if order.len() > KNOWN_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

fn event(note: &Note, component: &str, node: Option<&String>) -> Event {
    let stamp = note.at.as_nanosecond();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{stamp:x}", note.about.name.as_deref().unwrap_or("pod"))),
            namespace: note.about.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: note.about.clone(),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.chars().take(MESSAGE_CHARS_MAX).collect()),
        type_: Some(format!("{:?}", note.kind)),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource { component: Some(component.to_owned()), host: node.cloned() }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(node.cloned().unwrap_or_else(|| component.to_owned())),
        ..Event::default()
    }
}

/// Events waiting to be written; more are dropped.
const NOTES_MAX: usize = 256;
/// Distinct events whose repetitions are counted; older ones start over.
const KNOWN_MAX: usize = 512;
/// Longest message (the API's limit is 1024 bytes).
const MESSAGE_CHARS_MAX: usize = 1000;
