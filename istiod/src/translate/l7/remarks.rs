//! What is found wrong with objects while resources are made of them: their statuses tell it.
//!
//! Whatever is computed says anew what it found each time, so a remark goes when the last result without it is there.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::names::NamespacedName;

use super::uses::Consumer;
use crate::world::Kind;

/// An object of which something is said.
pub type Subject = (Kind, NamespacedName);

/// What the making of one result found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks(BTreeMap<Subject, BTreeSet<String>>);

impl Remarks {
    /// Something is wrong with an object; the same text counts once.
    pub fn add(&mut self, kind: Kind, key: &NamespacedName, text: String) {
        self.0.entry((kind, key.clone())).or_default().insert(text);
    }

    /// An object has an effect, whatever else is said of it.
    pub fn note(&mut self, kind: Kind, key: &NamespacedName) {
        self.0.entry((kind, key.clone())).or_default();
    }

    /// What another result found, too.
    pub fn extend(&mut self, other: Self) {
        for (subject, texts) in other.0 {
            self.0.entry(subject).or_default().extend(texts);
        }
    }
}

/// What all results found.
#[derive(Clone, Debug, Default)]
pub struct Board {
    by_subject: BTreeMap<Subject, BTreeMap<Consumer, BTreeSet<String>>>,
    by_consumer: BTreeMap<Consumer, BTreeSet<Subject>>,
}

impl Board {
    /// Replaces what one result found, and adds the objects of which something else is said now to `touched`.
    pub fn set(&mut self, consumer: &Consumer, remarks: Remarks, touched: &mut BTreeSet<Subject>) {
        if remarks.0.is_empty() && !self.by_consumer.contains_key(consumer) {
            return;
        }
        let subjects: BTreeSet<_> = remarks.0.keys().cloned().collect();
        let old = match subjects.is_empty() {
            true => self.by_consumer.remove(consumer),
            false => self.by_consumer.insert(consumer.clone(), subjects.clone()),
        };
        for gone in old.unwrap_or_default().difference(&subjects) {
            if let Some(all) = self.by_subject.get_mut(gone) {
                all.remove(consumer);
                if all.is_empty() {
                    self.by_subject.remove(gone);
                }
            }
            touched.insert(gone.clone());
        }
        for (subject, texts) in remarks.0 {
            let all = self.by_subject.entry(subject.clone()).or_default();
            if all.get(consumer) != Some(&texts) {
                all.insert(consumer.clone(), texts);
                touched.insert(subject);
            }
        }
    }

    /// What is wrong with an object, each once.
    pub fn texts(&self, kind: Kind, key: &NamespacedName) -> BTreeSet<String> {
        self.of(kind, key).flat_map(|(_, texts)| texts).cloned().collect()
    }

    /// Whether any result was made from an object, or found something wrong with it.
    pub fn mentions(&self, kind: Kind, key: &NamespacedName) -> bool {
        self.by_subject.contains_key(&(kind, key.clone()))
    }

    /// The gateways whose own resource found something wrong with an object.
    pub fn gateways(&self, kind: Kind, key: &NamespacedName) -> Vec<&NamespacedName> {
        let found = self.of(kind, key).map(|(consumer, _)| consumer);
        found.filter_map(|one| if let Consumer::Proxy(gateway) = one { Some(gateway) } else { None }).collect()
    }

    fn of(&self, kind: Kind, key: &NamespacedName) -> impl Iterator<Item = (&Consumer, &BTreeSet<String>)> {
        self.by_subject.get(&(kind, key.clone())).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_told_until_the_last_result_without_it() {
        let key: NamespacedName = "ns/rule".parse().unwrap();
        let (a, b) = (Consumer::Proxy("ns/a".parse().unwrap()), Consumer::Proxy("ns/b".parse().unwrap()));
        let wrong = |text: &str| {
            let mut remarks = Remarks::default();
            remarks.add(Kind::DestinationRule, &key, text.to_owned());
            remarks
        };
        let mut board = Board::default();
        let mut set = |consumer: &Consumer, remarks: Remarks| {
            let mut touched = BTreeSet::new();
            board.set(consumer, remarks, &mut touched);
            (touched.len(), board.texts(Kind::DestinationRule, &key).into_iter().collect::<Vec<_>>())
        };
        assert_eq!(set(&a, wrong("x")), (1, vec!["x".to_owned()]));
        assert_eq!(set(&b, wrong("x")), (1, vec!["x".to_owned()]), "who says it may be told, too");
        assert_eq!(set(&b, wrong("x")).0, 0, "the same again");
        assert_eq!(set(&b, wrong("y")), (1, vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(set(&a, Remarks::default()), (1, vec!["y".to_owned()]));
        assert_eq!(set(&b, Remarks::default()), (1, Vec::new()));
        assert_eq!(set(&b, Remarks::default()).0, 0);
        assert!(board.by_subject.is_empty() && board.by_consumer.is_empty(), "nothing is left over");
    }

    #[test]
    fn what_has_an_effect_is_mentioned_and_nothing_is_said_of_it() {
        let key: NamespacedName = "ns/rule".parse().unwrap();
        let consumer = Consumer::Listeners("ns/a".parse().unwrap());
        let (mut board, mut noted) = (Board::default(), Remarks::default());
        noted.note(Kind::DestinationRule, &key);
        for (remarks, mentioned) in [(noted, true), (Remarks::default(), false)] {
            let mut touched = BTreeSet::new();
            board.set(&consumer, remarks.clone(), &mut touched);
            assert_eq!((touched.len(), board.mentions(Kind::DestinationRule, &key)), (1, mentioned));
            board.set(&consumer, remarks, &mut touched);
            assert_eq!((touched.len(), board.texts(Kind::DestinationRule, &key).len()), (1, 0), "the same again");
        }
    }
}
