//! One copy of each text that many endpoints share.

use std::collections::HashSet;
use std::sync::Arc;

/// Shared texts, owned by the writer.
#[derive(Debug, Default)]
pub(super) struct Words {
    known: HashSet<Arc<str>>,
    prune_at: usize,
}

impl Words {
    /// The shared copy of `text`.
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.prune_at.max(PRUNE_MIN) {
            self.known.retain(|word| Arc::strong_count(word) > 1);
            self.prune_at = self.known.len() * 2;
        }
        let word: Arc<str> = text.into();
        self.known.insert(word.clone());
        word
    }
}

/// Below this many texts there is nothing worth freeing.
const PRUNE_MIN: usize = 1_024;
