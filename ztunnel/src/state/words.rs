//! One copy of each text that many resources share: namespaces, nodes, networks, revisions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_core::{Identity, TrustDomain};

/// Trust domain, namespace, service account.
type Parts = (Arc<str>, Arc<str>, Arc<str>);

/// Interned texts. Owned by the writer; readers only ever see the shared copies.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: HashSet<Arc<str>>,
    identities: HashMap<Parts, Identity>,
    /// Size at which unused texts are looked for next.
    prune_at: usize,
}

impl Words {
    /// The shared copy of `text`.
    pub(crate) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.words.get(text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = text.into();
        self.words.insert(Arc::clone(&word));
        word
    }

    /// The shared copy of an identity; `None` when the trust domain is no name.
    pub(crate) fn identity(&mut self, domain: &str, namespace: &str, account: &str) -> Option<Identity> {
        let key = (self.intern(domain), self.intern(namespace), self.intern(account));
        if let Some(known) = self.identities.get(&key) {
            return Some(known.clone());
        }
        let identity = Identity::new(TrustDomain::new(domain).ok()?, namespace, account);
        self.identities.insert(key, identity.clone());
        Some(identity)
    }

    /// Forgets texts that nothing else uses, once the set has doubled since the last time: the cost
    /// is spread over what was added, and the set stays within twice what is in use.
    pub(crate) fn prune(&mut self) {
        if self.words.len() < self.prune_at.max(PRUNE_MIN) {
            return;
        }
        // An identity's own texts are not shared with the words, so identities are simply rebuilt.
        self.identities = HashMap::new();
        self.words.retain(|word| Arc::strong_count(word) > 1);
        self.words.shrink_to(self.words.len().saturating_mul(2));
        self.prune_at = self.words.len().saturating_mul(2);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}

/// Below this many texts there is nothing worth freeing.
const PRUNE_MIN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy_and_unused_ones_go() {
        let mut words = Words::default();
        let kept = words.intern("kept");
        assert!(Arc::ptr_eq(&kept, &words.intern("kept")));
        for n in 0..PRUNE_MIN {
            words.intern(&n.to_string());
        }
        words.prune();
        assert_eq!(words.len(), 1);
        assert!(Arc::ptr_eq(&kept, &words.intern("kept")));
    }
}
