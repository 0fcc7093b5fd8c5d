//! Kinds that a cluster may not have: their watches start and stop with their definitions.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::watch::{self, chain};
use super::{Sources, resource};
use crate::world::{Change, Kind};

/// Follows the definitions of `kinds`, until nobody listens.
pub(super) async fn run(sources: Sources, kinds: [Kind; 2]) {
    let definitions = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions = ApiResource::from_gvk_with_plural(&definitions, "customresourcedefinitions");
    let api: Api<DynamicObject> = Api::all_with(sources.client.clone(), &definitions);
    // Definitions are large: few at a time.
    let events = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut running = Running { sources, tasks: BTreeMap::new() };
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(Event::Init) => {
                listed.clear();
                Ok(())
            }
            Ok(Event::InitApply(object)) => {
                let Some(kind) = served(&object, &kinds) else { continue };
                listed.insert(kind);
                running.start(kind);
                Ok(())
            }
            Ok(Event::Apply(object)) => {
                match (served(&object, &kinds), named(&object, &kinds)) {
                    (Some(kind), _) => running.start(kind),
                    (None, Some(kind)) => running.stop(kind).await,
                    (None, None) => continue,
                };
                Ok(())
            }
            Ok(Event::Delete(object)) => match named(&object, &kinds) {
                Some(kind) => running.absent(kind).await,
                None => Ok(()),
            },
            Ok(Event::InitDone) => {
                let mut told = Ok(());
                for kind in kinds.iter().filter(|kind| !listed.contains(kind)) {
                    told = told.and(running.absent(*kind).await);
                }
                told
            }
            Err(error) => {
                running.sources.metrics.watch_failed("CustomResourceDefinition");
                tracing::warn!(error = %chain(&error), "watch of definitions failed, trying again");
                Ok(())
            }
        };
        if told.is_err() {
            return;
        }
    }
}

/// Watches that run now.
struct Running {
    sources: Sources,
    tasks: BTreeMap<Kind, JoinHandle<()>>,
}

/// Nobody listens any more.
struct Unheard;

impl Running {
    fn start(&mut self, kind: Kind) {
        let sources = self.sources.clone();
        self.tasks.entry(kind).or_insert_with(|| {
            tracing::info!(kind = kind.name(), "definition is there, watching");
            tokio::spawn(watch::run(sources, kind))
        });
    }

    async fn stop(&mut self, kind: Kind) {
        if let Some(task) = self.tasks.remove(&kind) {
            tracing::info!(kind = kind.name(), "definition is gone, no longer watching");
            task.abort();
            // Wait until it has ended: nothing of it may come after what follows.
            let _ = task.await;
        }
    }

    /// The kind does not exist: neither do objects of it.
    async fn absent(&mut self, kind: Kind) -> Result<(), Unheard> {
        self.stop(kind).await;
        for change in [Change::Retain(kind, HashSet::new()), Change::Synced(kind)] {
            self.sources.changes.send(change).await.map_err(|_| Unheard)?;
        }
        Ok(())
    }
}

/// The kind that a definition is for, by its name.
fn named(definition: &DynamicObject, kinds: &[Kind]) -> Option<Kind> {
    let name = definition.metadata.name.as_deref()?;
    kinds.iter().copied().find(|kind| {
        let resource = resource(*kind);
        name.split_once('.') == Some((resource.plural.as_str(), resource.group.as_str()))
    })
}

/// The kind that a definition is for, if it is established and has the version that we read.
fn served(definition: &DynamicObject, kinds: &[Kind]) -> Option<Kind> {
    let kind = named(definition, kinds)?;
    let items = |path: &str| definition.data.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    let version = resource(kind).version;
    let has_version = items("/spec/versions").any(|one| {
        text(one, "name").as_deref() == Some(&*version) && one.get("served").and_then(Value::as_bool) == Some(true)
    });
    let established = items("/status/conditions").any(|one| {
        text(one, "type").as_deref() == Some("Established") && text(one, "status").as_deref() == Some("True")
    });
    (has_version && established).then_some(kind)
}

/// Definitions a page of a list.
const PAGE: u32 = 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_counts_when_established_with_our_version() {
        let kinds = [Kind::Authorization, Kind::Peer];
        let definition = |name: &str, version: &str, established: &str| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
                "spec": {"versions": [{"name": version, "served": true}]},
                "status": {"conditions": [{"type": "Established", "status": established}]},
            }))
            .unwrap()
        };
        let name = "peerauthentications.security.istio.io";
        assert_eq!(served(&definition(name, "v1", "True"), &kinds), Some(Kind::Peer));
        assert_eq!(served(&definition(name, "v1", "False"), &kinds), None);
        assert_eq!(served(&definition(name, "v1beta1", "True"), &kinds), None);
        assert_eq!(named(&definition(name, "v1beta1", "True"), &kinds), Some(Kind::Peer));
        assert_eq!(named(&definition("widgets.example.com", "v1", "True"), &kinds), None);
    }
}
