//! Answers about the world that cost much and are asked for again and again: each is found once between two changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::names::NamespacedName;

use super::{HostKey, Kind, ParentKind};

/// A route at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Kind of the route.
    pub kind: Kind,
    /// Its name.
    pub key: NamespacedName,
    /// Hosts that it is for there: exact, `*.suffix` or `*`.
    pub hosts: Vec<Arc<str>>,
}

/// The routes that may be attached to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    /// Those that are, the oldest first.
    pub kept: Vec<Seat>,
    /// Those that an older one of another kind keeps out.
    pub displaced: BTreeSet<(Kind, NamespacedName)>,
    /// Those that the listener has no room for: the youngest.
    pub surplus: BTreeSet<(Kind, NamespacedName)>,
}

/// A listener: what it belongs to, and its name.
pub type SeatKey = (ParentKind, NamespacedName, Arc<str>);
/// What was found out about a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Reason and message of what is wrong with it; none where nothing is.
    pub wrong: Option<(&'static str, String)>,
    /// Services that it leads to.
    pub leads_to: Arc<BTreeSet<HostKey>>,
}

/// See the module. A copy of the world starts without.
#[derive(Debug, Default)]
pub struct Memo(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    seats: HashMap<SeatKey, Arc<Seats>>,
    findings: HashMap<(Kind, NamespacedName, bool), Findings>,
    hosts: HashMap<NamespacedName, Arc<[ListenerHost]>>,
}

/// Port, protocol and hostname of a listener.
pub type ListenerHost = (u16, String, String);

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Memo {
    /// The routes of a listener.
    pub fn seats(&self, key: SeatKey, find: impl FnOnce() -> Seats) -> Arc<Seats> {
        if let Some(known) = self.with(|known| known.seats.get(&key).cloned()) {
            return known;
        }
        let found = Arc::new(find());
        self.with(|known| known.seats.insert(key, found.clone()));
        found
    }

    /// What is found out about a route, whose references need grants or not.
    pub fn findings(&self, key: (Kind, NamespacedName, bool), find: impl FnOnce() -> Findings) -> Findings {
        if let Some(known) = self.with(|known| known.findings.get(&key).cloned()) {
            return known;
        }
        let found = find();
        self.with(|known| known.findings.insert(key, found.clone()));
        found
    }

    /// What the listeners of a gateway are for.
    pub fn hosts(&self, gateway: &NamespacedName, find: impl FnOnce() -> Vec<ListenerHost>) -> Arc<[ListenerHost]> {
        if let Some(known) = self.with(|known| known.hosts.get(gateway).cloned()) {
            return known;
        }
        let found: Arc<[_]> = find().into();
        self.with(|known| known.hosts.insert(gateway.clone(), found.clone()));
        found
    }

    /// Something has changed, or nobody asks any more for now.
    pub fn forget(&self) {
        self.with(|known| *known = Known::default());
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
