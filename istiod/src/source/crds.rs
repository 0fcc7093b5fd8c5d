//! Kinds that a cluster may not have: their watches start and stop with their definitions.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_telemetry::ready::Task;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::watch::{self, chain};
use super::{Sources, resource};
use crate::world::{Change, Kind};

/// Follows the definitions of `kinds`, until nobody listens.
pub(super) async fn run(sources: Sources, kinds: &'static [Kind]) {
    let definitions = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions = ApiResource::from_gvk_with_plural(&definitions, "customresourcedefinitions");
    let api: Api<DynamicObject> = Api::all_with(sources.client.clone(), &definitions);
    // Definitions are large: few at a time.
    let events = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut running = Running { sources, tasks: BTreeMap::new(), known: BTreeSet::new(), unusable: BTreeMap::new() };
    let mut definitions = Definitions { kinds, listed: BTreeSet::new() };
    while let Some(event) = events.next().await {
        let steps = match event {
            Ok(event) => definitions.steps(event),
            Err(error) => {
                running.sources.metrics.watch_failed("CustomResourceDefinition");
                tracing::warn!(error = %chain(&error), "watch of definitions failed, trying again");
                Vec::new()
            }
        };
        for step in steps {
            match step {
                Step::Start(kind) => running.start(kind),
                Step::Pause(kind) if running.does_without(kind) => {
                    if running.absent(kind).await.is_err() {
                        return;
                    }
                }
                Step::Pause(kind) => running.pause(kind).await,
                Step::Absent(kind) => {
                    if running.absent(kind).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// What a definition means for the watch of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It can be watched.
    Start(Kind),
    /// It exists but cannot be watched: what is known of it stays.
    Pause(Kind),
    /// It does not exist.
    Absent(Kind),
}

/// Turns events about definitions into steps.
struct Definitions {
    kinds: &'static [Kind],
    /// Kinds whose definitions are in the list that is being read, usable or not.
    listed: BTreeSet<Kind>,
}

impl Definitions {
    fn steps(&mut self, event: Event<DynamicObject>) -> Vec<Step> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.extend(named(&object, self.kinds));
                self.judge(&object).into_iter().collect()
            }
            Event::Apply(object) => self.judge(&object).into_iter().collect(),
            Event::Delete(object) => named(&object, self.kinds).map(Step::Absent).into_iter().collect(),
            Event::InitDone => {
                let absent = self.kinds.iter().filter(|kind| !self.listed.contains(kind));
                absent.copied().map(Step::Absent).collect()
            }
        }
    }

    fn judge(&self, definition: &DynamicObject) -> Option<Step> {
        let kind = named(definition, self.kinds)?;
        Some(if served(definition, self.kinds).is_some() { Step::Start(kind) } else { Step::Pause(kind) })
    }
}

/// Watches that run now.
struct Running {
    sources: Sources,
    tasks: BTreeMap<Kind, JoinHandle<()>>,
    /// Kinds that were watched, or known to be absent, at some time.
    known: BTreeSet<Kind>,
    /// Names, in the readiness, definitions that keep us from starting.
    unusable: BTreeMap<Kind, Task>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

/// Nobody listens any more.
struct Unheard;

impl Running {
    fn start(&mut self, kind: Kind) {
        self.known.insert(kind);
        self.unusable.remove(&kind);
        let sources = self.sources.clone();
        self.tasks.entry(kind).or_insert_with(|| {
            tracing::info!(kind = kind.name(), "definition is there, watching");
            let supervisor = sources.supervisor.clone();
            supervisor.spawn(kind.name(), watch::run(sources, kind))
        });
    }

    /// A cluster that never served our version of an optional kind is one without it.
    fn does_without(&self, kind: Kind) -> bool {
        let without = kind.is_optional() && !self.tasks.contains_key(&kind);
        if without && !self.known.contains(&kind) {
            let resource = resource(kind);
            let (plural, group, version) = (resource.plural, resource.group, resource.version);
            tracing::warn!(
                kind = kind.name(),
                plural,
                group,
                version,
                "definition lacks the version that is read; its objects are not looked at"
            );
        }
        without
    }

    /// The kind exists but is not established, or lacks our version: its objects stay as they are.
    async fn pause(&mut self, kind: Kind) {
        self.stop(kind).await;
        let resource = resource(kind);
        let definition = format!("{}.{}", resource.plural, resource.group);
        let expected = format!("definition {definition} is not established or does not serve {}", resource.version);
        tracing::warn!(kind = kind.name(), "{expected}; what is known of the kind stays in force");
        if !self.known.contains(&kind) {
            let readiness = &self.sources.readiness;
            self.unusable.entry(kind).or_insert_with(|| readiness.register(expected));
        }
    }

    async fn stop(&mut self, kind: Kind) {
        if let Some(task) = self.tasks.remove(&kind) {
            tracing::info!(kind = kind.name(), "no longer watching");
            task.abort();
            // Wait until it has ended: nothing of it may come after what follows.
            let _ = task.await;
        }
    }

    /// The kind does not exist: neither do objects of it.
    async fn absent(&mut self, kind: Kind) -> Result<(), Unheard> {
        self.stop(kind).await;
        self.known.insert(kind);
        self.unusable.remove(&kind);
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
    #![allow(clippy::indexing_slicing)] // a test may

    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_are_awaited_of_every_kind_that_has_one_and_of_no_other() {
        let has_definition = |kind: &Kind| !matches!(&*resource(*kind).group, "" | "discovery.k8s.io");
        assert!(Kind::DEFINED.iter().all(has_definition));
        assert!(!Kind::BUILT_IN.iter().chain(&Kind::REFERENCED).any(has_definition));
        assert_eq!(Kind::DEFINED.len(), Kind::ALL.iter().filter(|kind| has_definition(kind)).count());
    }

    #[test]
    fn a_definition_that_cannot_be_used_is_not_an_absent_one() {
        let definition = |version: &str| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "peerauthentications.security.istio.io"},
                "spec": {"versions": [{"name": version, "served": true}]},
                "status": {"conditions": [{"type": "Established", "status": "True"}]},
            }))
            .unwrap()
        };
        let mut definitions = Definitions { kinds: &[Kind::Authorization, Kind::Peer], listed: BTreeSet::new() };
        for (version, step) in [("v1", Step::Start(Kind::Peer)), ("v1beta1", Step::Pause(Kind::Peer))] {
            assert_eq!(definitions.steps(Event::Init), []);
            assert_eq!(definitions.steps(Event::InitApply(definition(version))), [step]);
            assert_eq!(definitions.steps(Event::InitDone), [Step::Absent(Kind::Authorization)]);
            assert_eq!(definitions.steps(Event::Apply(definition(version))), [step]);
        }
        assert_eq!(definitions.steps(Event::Delete(definition("v1"))), [Step::Absent(Kind::Peer)]);
    }

    #[tokio::test]
    async fn a_definition_that_cannot_be_used_keeps_its_objects_and_is_named_by_readiness() {
        let client = kube::Client::new(
            tower::service_fn(|_: http::Request<kube::client::Body>| {
                std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
            }),
            "default",
        );
        let (changes, mut told) = tokio::sync::mpsc::channel(8);
        let readiness = mesh_telemetry::ready::Readiness::new();
        let metrics = crate::metrics::Metrics::new(&mesh_telemetry::metrics::Registry::new());
        let sources = Sources {
            client,
            changes,
            metrics: std::sync::Arc::new(metrics),
            revision: "default".into(),
            readiness: readiness.clone(),
            supervisor: crate::supervise::Supervisor::new(),
        };
        let mut running =
            Running { sources, tasks: BTreeMap::new(), known: BTreeSet::new(), unusable: BTreeMap::new() };
        running.pause(Kind::Peer).await;
        let pending = readiness.pending();
        assert!(pending[0].contains("peerauthentications.security.istio.io"), "{pending:?}");
        running.start(Kind::Peer);
        assert!(readiness.pending().is_empty());
        running.pause(Kind::Peer).await;
        assert!(readiness.pending().is_empty() && running.tasks.is_empty());
        assert!(told.try_recv().is_err(), "nothing is told as gone");
    }

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
