//! What the name servers said, for as long as they said it is true.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Known;
use crate::dns::message::RecordType;
use crate::limits::RESOLVER_CACHE_MAX;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) host: Arc<str>,
    pub(super) kind: RecordType,
}

/// Answers, and who is asking. Bounded.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: HashMap<Key, (Known, Instant)>,
    /// Questions that are being asked.
    turns: HashMap<Key, Turn>,
}

/// Whoever holds it asks.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

impl Cache {
    /// What is known, or the turn to wait for before asking.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Result<Known, Turn> {
        match self.known.get(key) {
            Some((known, until)) if *until > now => Ok(known.clone()),
            _ => Err(self.turn(key)),
        }
    }

    fn turn(&mut self, key: &Key) -> Turn {
        if self.turns.len() >= RESOLVER_CACHE_MAX {
            // Those who gave up have left theirs behind.
            self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        self.turns.entry(key.clone()).or_default().clone()
    }

    pub(super) fn put(&mut self, key: Key, known: Known, until: Instant) {
        self.turns.remove(&key);
        if self.known.len() >= RESOLVER_CACHE_MAX && !self.known.contains_key(&key) {
            self.make_room();
        }
        self.known.insert(key, (known, until));
    }

    /// Forgets what is no longer true; if all is, what will not be for longest.
    fn make_room(&mut self) {
        let now = Instant::now();
        self.known.retain(|_, (_, until)| *until > now);
        if self.known.len() >= RESOLVER_CACHE_MAX {
            let next = self.known.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            next.and_then(|key| self.known.remove(&key));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }
}
