//! What happens to the objects that were made for Gateways. Only their metadata is read.

use std::collections::HashMap;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, future};
use kube::Client;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;

use crate::translate::gateway::Kinds;

/// News of objects that were made for Gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owned {
    /// One of this Gateway's was changed, or is gone.
    Changed(NamespacedName),
    /// All of a kind were read anew.
    Listed,
}

/// News of every kind.
pub(super) fn events(client: &Client) -> BoxStream<'static, Owned> {
    stream::select_all(Kinds::ALL.map(|kind| of_kind(client, kind))).boxed()
}

fn of_kind(client: &Client, kind: Kinds) -> BoxStream<'static, Owned> {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &kind.resource());
    let selection = watcher::Config::default().labels(names::GATEWAY_MANAGED);
    let events = watcher(api, selection).default_backoff();
    let mut seen = Seen::default();
    let news = events.filter_map(move |event| {
        let news = match event {
            Ok(event) => seen.news(event, |object| object.metadata),
            Err(error) => {
                tracing::debug!(kind = kind.name(), error = %crate::source::chain(&error), "watch failed, trying again");
                None
            }
        };
        future::ready(news)
    });
    news.boxed()
}

/// What the objects looked like.
#[derive(Default)]
struct Seen {
    /// Of each object, what others may have changed.
    looks: HashMap<NamespacedName, String>,
    listed: bool,
}

impl Seen {
    fn news<K>(&mut self, event: Event<K>, metadata: impl Fn(K) -> ObjectMeta) -> Option<Owned> {
        match event {
            Event::Init => {
                self.looks.clear();
                None
            }
            Event::InitApply(object) => {
                let metadata = metadata(object);
                self.looks.insert(key(&metadata), look(&metadata));
                None
            }
            // At the first list everything is looked at anyway.
            Event::InitDone => std::mem::replace(&mut self.listed, true).then_some(Owned::Listed),
            Event::Apply(object) => {
                let metadata = metadata(object);
                let look = look(&metadata);
                let old = self.looks.insert(key(&metadata), look.clone());
                (old.as_ref() != Some(&look)).then(|| gateway(&metadata)).flatten().map(Owned::Changed)
            }
            Event::Delete(object) => {
                let metadata = metadata(object);
                self.looks.remove(&key(&metadata));
                gateway(&metadata).map(Owned::Changed)
            }
        }
    }
}

fn key(metadata: &ObjectMeta) -> NamespacedName {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    NamespacedName::new(text(&metadata.namespace), text(&metadata.name))
}

/// The Gateway of an object.
fn gateway(metadata: &ObjectMeta) -> Option<NamespacedName> {
    let label = metadata.labels.as_ref()?.get(names::GATEWAY_NAME)?;
    // A long name does not fit into a label.
    let owner = metadata.owner_references.iter().flatten().find(|one| one.kind == "Gateway");
    let name = owner.map_or(label, |one| &one.name);
    Some(NamespacedName::new(metadata.namespace.clone()?, name.as_str()))
}

/// What of an object others may have changed: everything but its status. Kinds that count generations count those of their
/// specification; of the others, who wrote what when tells.
fn look(metadata: &ObjectMeta) -> String {
    let (labels, annotations) = (&metadata.labels, &metadata.annotations);
    match metadata.generation {
        Some(generation) => format!("{generation} {labels:?} {annotations:?}"),
        None => {
            let entries = metadata.managed_fields.iter().flatten().filter(|entry| entry.subresource.is_none());
            let writes: Vec<_> = entries.map(|entry| (&entry.manager, &entry.time, &entry.fields_v1)).collect();
            format!("{labels:?} {annotations:?} {writes:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(generation: Option<i64>, version: &str) -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "wp", "namespace": "ns", "resourceVersion": version, "generation": generation,
            "labels": {"gateway.networking.k8s.io/gateway-name": "wp"},
        }))
        .unwrap()
    }

    #[test]
    fn changes_of_the_status_are_no_news() {
        let mut seen = Seen::default();
        let mut tell = |event| seen.news(event, |one: ObjectMeta| one);
        let changed = Some(Owned::Changed(NamespacedName::new("ns", "wp")));
        assert_eq!(tell(Event::Init), None);
        assert_eq!(tell(Event::InitApply(metadata(Some(1), "1"))), None);
        assert_eq!(tell(Event::InitDone), None);
        assert_eq!(tell(Event::Apply(metadata(Some(1), "2"))), None);
        assert_eq!(tell(Event::Apply(metadata(Some(2), "3"))), changed);
        assert_eq!(tell(Event::Delete(metadata(Some(2), "4"))), changed);
        assert_eq!(tell(Event::Init), None);
        assert_eq!(tell(Event::InitDone), Some(Owned::Listed));
    }
}
