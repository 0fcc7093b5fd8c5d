//! Events about what is asked for and not done: they are what users look at first.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use mesh_api::status::Condition as Written;

use super::apply;
use crate::translate::ObjectStatus;

/// Writes the Events.
pub(super) struct Refusals(Recorder);

impl Refusals {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self(Recorder::new(client, Reporter { controller: CONTROLLER.to_owned(), instance: Some(name) }))
    }

    /// Tells of refusals that the object did not show before. An Event that cannot be written is only logged: the status
    /// says the same.
    pub(super) async fn tell(
        &self,
        object: &DynamicObject,
        resource: &ApiResource,
        wanted: &ObjectStatus,
        live: &[Written],
    ) {
        let shown = |condition: &&crate::translate::Condition| {
            live.iter().any(|one| one.type_ == condition.type_ && apply::says(one, condition))
        };
        for condition in wanted.all_conditions().into_iter().filter(|one| one.refuses()).filter(|one| !shown(one)) {
            let event = Event {
                type_: EventType::Warning,
                reason: condition.reason.to_owned(),
                note: Some(cut(&condition.message)),
                action: condition.type_.rsplit('/').next().unwrap_or(condition.type_).to_owned(),
                secondary: None,
            };
            if let Err(error) = self.0.publish(&event, &reference(object, resource)).await {
                tracing::warn!(kind = resource.kind, object = object.metadata.name, %error, "event not written");
            }
        }
    }
}

fn reference(object: &DynamicObject, resource: &ApiResource) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version.clone()),
        kind: Some(resource.kind.clone()),
        name: object.metadata.name.clone(),
        namespace: object.metadata.namespace.clone(),
        uid: object.metadata.uid.clone(),
        resource_version: object.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The API takes 1024 bytes.
fn cut(message: &str) -> String {
    let end =
        message.char_indices().map(|(at, _)| at).take_while(|at| *at <= NOTE_BYTES_MAX).last().unwrap_or_default();
    if message.len() <= NOTE_BYTES_MAX { message.to_owned() } else { message.get(..end).unwrap_or_default().to_owned() }
}

/// Who reports.
const CONTROLLER: &str = "istio.io/istiod";
/// Longest note.
const NOTE_BYTES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(600);
        let cut = cut(&long);
        assert!(cut.len() <= NOTE_BYTES_MAX && long.starts_with(&cut) && cut.len() > 990);
    }
}
