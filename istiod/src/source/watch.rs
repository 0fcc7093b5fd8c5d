//! One kind, watched for as long as the process runs: list, watch, and list again when the watch is lost.

use std::collections::HashSet;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_core::names::NamespacedName;
use tokio::sync::mpsc;

use super::lean::{Lean, OfNode, OfPod, Parts, Whole};
use super::{Sources, convert};
use crate::world::{Change, Kind};

/// Watches a kind and tells every change, until nobody listens.
pub(super) async fn run(sources: Sources, kind: Kind) {
    match kind {
        Kind::Pod => follow::<OfPod>(sources, kind).await,
        Kind::Node => follow::<OfNode>(sources, kind).await,
        _ => follow::<Whole>(sources, kind).await,
    }
}

async fn follow<P: Parts>(sources: Sources, kind: Kind) {
    let events = watcher(sources.api::<P>(kind), watcher::Config::default().page_size(PAGE)).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut relist = Relist { kind, listed: HashSet::new(), synced: false };
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(event) => {
                let event = plain(event);
                sources.metrics.event(kind.name(), name(&event));
                tell(&sources.changes, relist.changes(event, &sources.revision)).await
            }
            Err(error) => {
                sources.metrics.watch_failed(kind.name());
                tracing::warn!(kind = kind.name(), error = %chain(&error), "watch failed, trying again");
                Ok(())
            }
        };
        if told.is_err() {
            return;
        }
    }
}

fn plain<P>(event: Event<Lean<P>>) -> Event<DynamicObject> {
    match event {
        Event::Apply(object) => Event::Apply(object.into_object()),
        Event::Delete(object) => Event::Delete(object.into_object()),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.into_object()),
        Event::InitDone => Event::InitDone,
    }
}

/// Turns events into changes. A list that was read completely tells what vanished unseen.
struct Relist {
    kind: Kind,
    listed: HashSet<NamespacedName>,
    synced: bool,
}

impl Relist {
    fn changes(&mut self, event: Event<DynamicObject>, revision: &str) -> Vec<Change> {
        match event {
            Event::Apply(object) => vec![convert::change(self.kind, object, revision)],
            Event::Delete(object) => vec![Change::Delete(self.kind, convert::key(&object))],
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(convert::key(&object));
                vec![convert::change(self.kind, object, revision)]
            }
            Event::InitDone => {
                let mut changes = vec![Change::Retain(self.kind, std::mem::take(&mut self.listed))];
                if !std::mem::replace(&mut self.synced, true) {
                    changes.push(Change::Synced(self.kind));
                }
                changes
            }
        }
    }
}

async fn tell(queue: &mpsc::Sender<Change>, changes: Vec<Change>) -> Result<(), mpsc::error::SendError<Change>> {
    for change in changes {
        queue.send(change).await?;
    }
    Ok(())
}

fn name(event: &Event<DynamicObject>) -> &'static str {
    match event {
        Event::Apply(_) => "update",
        Event::Delete(_) => "delete",
        Event::Init | Event::InitDone => "list",
        Event::InitApply(_) => "add",
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Objects a page of a list.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::Object;

    fn namespace(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).unwrap()
    }

    #[test]
    fn a_relist_tells_what_vanished_and_syncs_once() {
        let mut relist = Relist { kind: Kind::Namespace, listed: HashSet::new(), synced: false };
        for round in 0..2 {
            assert!(relist.changes(Event::Init, "default").is_empty());
            let told = relist.changes(Event::InitApply(namespace("a")), "default");
            assert!(matches!(told.as_slice(), [Change::Upsert(Object::Namespace(one))] if &*one.name == "a"));
            let told = relist.changes(Event::InitDone, "default");
            assert!(matches!(told.first(), Some(Change::Retain(Kind::Namespace, keep)) if keep.len() == 1));
            assert_eq!(told.len(), 2 - round);
        }
        let told = relist.changes(Event::Delete(namespace("a")), "default");
        assert!(matches!(told.as_slice(), [Change::Delete(Kind::Namespace, key)] if &*key.name == "a"));
    }
}
