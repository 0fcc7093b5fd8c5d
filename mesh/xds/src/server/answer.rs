//! What a client has to be told, as responses in the order in which they must be sent.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use super::connection::{Before, Connection};
use super::hub::{Hub, Inner};
use super::resource::Resource;
use super::session::{Ask, Peer, Session, WILDCARD, Watch};
use super::store::{Backing, Collection, TypeSpec};
use super::wire::{Push, resources_len};

impl Hub {
    /// Everything pending for a client.
    pub(super) fn pending(&self, connection: &Connection, session: &mut Session, peer: &Peer) -> Vec<Push> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        self.pending_within(&inner, connection, session, peer)
    }

    /// The answer to a request, preceded by everything pending, so that the answer refers to nothing unsent.
    pub(super) fn answer(
        &self,
        connection: &Connection,
        session: &mut Session,
        peer: &Peer,
        type_index: usize,
        ask: Ask,
    ) -> Vec<Push> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut pushes = self.pending_within(&inner, connection, session, peer);
        let Some(spec) = self.spec(type_index) else { return pushes };
        let Some(collection) = self.collection(&inner, spec, type_index) else { return pushes };
        let referred_first = self.is_referred_to(type_index) && !self.referrers_answered(session, type_index);
        let Some(watch) = session.watch_mut(type_index) else { return pushes };
        let mut push = Push::empty(spec, type_index, inner.version.clone());
        match ask {
            Ask::Initial { versions, names } if watch.wildcard => {
                watch.explicit.extend(names.iter().map(|name| Arc::from(name.as_str())));
                everything(collection, spec, peer, &versions, &mut push);
                if referred_first && !versions.is_empty() {
                    watch.deferring = true;
                    let narrow = |one: &Arc<Resource>| one.referenced && versions.contains_key(&*one.name);
                    let (later, at_once) =
                        std::mem::take(&mut push.resources).into_iter().partition::<Vec<_>, _>(narrow);
                    push.resources = at_once;
                    let removed = std::mem::take(&mut push.removed).into_iter().map(Arc::from);
                    connection
                        .defer(self.base(spec, type_index), later.iter().map(|one| one.name.clone()).chain(removed));
                }
            }
            Ask::Initial { versions, names } => subscribed(collection, spec, watch, peer, (versions, names), &mut push),
            Ask::Names(names) => {
                look_up(collection, spec, peer, &names, &mut push);
                watch.explicit.extend(names.iter().map(|name| Arc::from(name.as_str())));
                dedup(&mut push.resources);
                if !watch.wildcard {
                    watch.sent.extend(push.resources.iter().map(|one| one.name.clone()));
                }
            }
        }
        push.resources.sort_by(|a, b| order(a).cmp(&order(b)));
        push.removed.sort();
        watch.answered = true;
        pushes.push(push);
        pushes
    }

    /// A client gives up names. What it was sent because of them is no longer followed, unless something else that it
    /// asked for stands for it too.
    pub(super) fn forget(&self, session: &mut Session, peer: &Peer, type_index: usize, names: &[String]) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let Some(spec) = self.spec(type_index) else { return };
        let Some(collection) = self.collection(&inner, spec, type_index) else { return };
        let Some(watch) = session.watch_mut(type_index) else { return };
        if watch.wildcard && names.iter().any(|name| name == WILDCARD) {
            watch.wildcard = false;
            let asked: Vec<_> = watch.explicit.iter().map(ToString::to_string).collect();
            let mut push = Push::empty(spec, type_index, inner.version.clone());
            look_up(collection, spec, peer, &asked, &mut push);
            let local = peer.node_name.iter().flat_map(|node| collection.on_node(node));
            push.resources.extend(local.filter(|one| accepts(spec, one, peer)).cloned());
            watch.sent.extend(push.resources.iter().map(|one| one.name.clone()));
        }
        let mut given_up = Push::empty(spec, type_index, inner.version.clone());
        look_up(collection, spec, peer, names, &mut given_up);
        dedup(&mut given_up.resources);
        // Groups first: their members may stay because of them.
        given_up.resources.sort_by_key(|one| !one.is_group);
        for name in names {
            watch.explicit.remove(name.as_str());
            watch.sent.remove(name.as_str());
        }
        for one in &given_up.resources {
            watch.sent.remove(&one.name);
        }
        for one in &given_up.resources {
            if !watch.wildcard && concerns(watch, one, peer) {
                watch.sent.insert(one.name.clone());
            }
        }
    }

    /// Keeps nothing back of types whose referrers were answered. Tells whether nothing at all is kept back any longer.
    pub(super) fn undefer(&self, session: &mut Session) -> bool {
        for index in 0..self.types.len() {
            if self.referrers_answered(session, index)
                && let Some(watch) = session.watch_mut(index)
            {
                watch.deferring = false;
            }
        }
        !session.is_deferring()
    }

    fn pending_within(&self, inner: &Inner, connection: &Connection, session: &mut Session, peer: &Peer) -> Vec<Push> {
        let changed = connection.take();
        if let Some(queued) = changed.queued {
            self.observer.queued(queued.elapsed());
        }
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for (index, spec) in self.types.iter().enumerate() {
            let base = self.base(*spec, index);
            let Some(names) = changed.names.get(&base) else { continue };
            let Some(collection) = inner.collections.get(&base) else { continue };
            let Some(watch) = session.watch_mut(index).filter(|watch| watch.answered) else { continue };
            let mut push = Push::empty(*spec, index, inner.version.clone());
            let mut gone = Push::empty(*spec, index, inner.version.clone());
            for (name, before) in names {
                match collection.get(name).filter(|one| accepts(*spec, one, peer)) {
                    Some(resource) if watch.wildcard || concerns(watch, resource, peer) => {
                        if !watch.wildcard {
                            watch.sent.insert(name.clone());
                        }
                        // What narrows leaves its wide effect only after others name it; it goes with the removals.
                        let narrows = *before == Before::Effective && resource.referenced;
                        let when = if narrows { &mut gone } else { &mut push };
                        when.resources.push(resource.clone());
                    }
                    Some(_) => {}
                    // It is not for this client, which need not know that it exists, unless it had it before.
                    None if watch.wildcard && collection.get(name).is_some_and(|one| one.audience.is_some()) => {}
                    // Views cannot tell what a removed name was; removing an unknown name is no error.
                    None if watch.wildcard || watch.explicit.contains(name) | watch.sent.remove(name) => {
                        gone.removed.push(name.to_string());
                    }
                    None => {}
                }
            }
            if watch.deferring {
                let resources = gone.resources.drain(..).map(|one| one.name.clone());
                connection.defer(base, resources.chain(gone.removed.drain(..).map(Arc::from)));
            }
            push.resources.sort_by(|a, b| order(a).cmp(&order(b)));
            upserts.push(push);
            removals.push(gone);
        }
        removals.reverse();
        let mut pushes = join(upserts, removals);
        if let Some(last) = pushes.last_mut() {
            last.since = changed.since;
        }
        pushes
    }

    /// Whether resources of other types refer to those of this one.
    fn is_referred_to(&self, index: usize) -> bool {
        let url = self.url(index);
        self.types.iter().any(|spec| spec.after == Some(url))
    }

    /// Whether the client was told what refers to resources of this type.
    fn referrers_answered(&self, session: &Session, index: usize) -> bool {
        let url = self.url(index);
        let mut referrers = self.types.iter().enumerate().filter(|(_, spec)| spec.after == Some(url));
        referrers.any(|(index, _)| session.watch(index).is_some_and(|watch| watch.answered))
    }

    fn base(&self, spec: TypeSpec, index: usize) -> usize {
        match spec.backing {
            Backing::Own => index,
            Backing::View { of, .. } => self.index(of).unwrap_or(index),
        }
    }

    pub(super) fn collection<'a>(&self, inner: &'a Inner, spec: TypeSpec, index: usize) -> Option<&'a Collection> {
        inner.collections.get(&self.base(spec, index))
    }
}

/// For a client that wants all: what it does not have, and what is gone of what it has.
fn everything(
    collection: &Collection,
    spec: TypeSpec,
    peer: &Peer,
    versions: &HashMap<String, String>,
    push: &mut Push,
) {
    if versions.is_empty() && matches!(spec.backing, Backing::Own) {
        push.whole = collection.whole(|all| resources_len(all, spec));
        if push.whole.is_some() {
            return;
        }
    }
    let fresh = |one: &&Arc<Resource>| {
        accepts(spec, one, peer)
            && (one.version.is_empty() || versions.get(&*one.name).is_none_or(|have| **have != *one.version))
    };
    push.resources = collection.all().filter(fresh).cloned().collect();
    push.removed = versions.keys().filter(|name| !has(collection, spec, peer, name)).cloned().collect();
}

/// For an on-demand client: what it names and what is local to its node, as far as it does not have it.
fn subscribed(
    collection: &Collection,
    spec: TypeSpec,
    watch: &mut Watch,
    peer: &Peer,
    (versions, mut names): (HashMap<String, String>, Vec<String>),
    push: &mut Push,
) {
    names.extend(versions.keys().cloned());
    names.sort_unstable();
    names.dedup();
    look_up(collection, spec, peer, &names, push);
    let local = peer.node_name.iter().flat_map(|node| collection.on_node(node));
    push.resources.extend(local.filter(|one| accepts(spec, one, peer)).cloned());
    dedup(&mut push.resources);
    let known = |one: &Arc<Resource>| {
        !one.version.is_empty() && versions.get(&*one.name).is_some_and(|have| **have == *one.version)
    };
    watch.sent.extend(push.resources.iter().map(|one| one.name.clone()));
    push.resources.retain(|one| !known(one));
    watch.explicit.extend(names.into_iter().map(Arc::from));
}

/// Endpoints come before services: a service that is known has endpoints. Names make the order the same everywhere.
fn order(one: &Resource) -> (bool, &str) {
    (one.is_group, &one.name)
}

/// Upserts in order, then removals; the last upsert and the first removal become one response when of one type.
fn join(mut upserts: Vec<Push>, removals: Vec<Push>) -> Vec<Push> {
    upserts.retain(|push| !push.is_empty());
    for gone in removals {
        match upserts.last_mut() {
            Some(last) if last.type_index == gone.type_index => {
                last.resources.extend(gone.resources);
                last.removed.extend(gone.removed);
            }
            _ => upserts.push(gone),
        }
    }
    upserts.retain(|push| !push.is_empty());
    upserts
}

/// Whether a client can be sent a resource as one of this type.
fn accepts(spec: TypeSpec, resource: &Resource, peer: &Peer) -> bool {
    let shown = match spec.backing {
        Backing::Own => true,
        Backing::View { project, .. } => project(resource).is_some(),
    };
    shown && resource.is_for(peer.principal.as_ref())
}

fn has(collection: &Collection, spec: TypeSpec, peer: &Peer, name: &str) -> bool {
    collection.get(name).is_some_and(|one| accepts(spec, one, peer))
}

/// Finds what names stand for; names that stand for nothing are told as removed.
fn look_up(collection: &Collection, spec: TypeSpec, peer: &Peer, names: &[String], push: &mut Push) {
    for name in names {
        let mut found = collection.lookup(name);
        found.retain(|one| accepts(spec, one, peer));
        if found.is_empty() {
            push.removed.push(name.clone());
        }
        push.resources.extend(found);
    }
}

fn dedup(resources: &mut Vec<Arc<Resource>>) {
    let mut seen = BTreeSet::new();
    resources.retain(|one| seen.insert(one.name.clone()));
}

/// Whether an on-demand client has to be told of a changed resource.
fn concerns(watch: &Watch, resource: &Resource, peer: &Peer) -> bool {
    let asked = |name: &Arc<str>| watch.explicit.contains(name) || watch.sent.contains(name);
    asked(&resource.name)
        || resource.aliases.iter().any(asked)
        || resource.groups.iter().any(asked)
        || (resource.node.is_some() && resource.node == peer.node_name)
}
