//! Which of many prefixes a text begins with.

use std::collections::BTreeMap;

/// Values by prefix, in sorted order; each knows the longest other prefix that it begins with itself.
///
/// The last prefix that sorts before a text, or equals it, begins with every prefix of the text that is here: what sorts
/// between a prefix and the text begins with that prefix as well. So one binary search and a walk along the parents
/// find them all.
#[derive(Debug)]
pub(super) struct PrefixTree<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    prefix: Box<str>,
    parent: Option<usize>,
    value: T,
}

impl<T> Default for PrefixTree<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<T> PrefixTree<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Calls `visit` for every prefix of `text`, the longest first.
    pub(super) fn visit(&self, text: &str, mut visit: impl FnMut(&T)) {
        let after = self.nodes.partition_point(|node| &*node.prefix <= text);
        let mut next = after.checked_sub(1);
        while let Some(node) = next.and_then(|at| self.nodes.get(at)) {
            if text.starts_with(&*node.prefix) {
                visit(&node.value);
            }
            next = node.parent;
        }
    }
}

/// A tree that is being made.
#[derive(Debug)]
pub(super) struct PrefixTreeBuilder<T> {
    values: BTreeMap<Box<str>, T>,
}

impl<T> Default for PrefixTreeBuilder<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new() }
    }
}

impl<T: Default> PrefixTreeBuilder<T> {
    pub(super) fn entry(&mut self, prefix: &str) -> &mut T {
        self.values.entry(prefix.into()).or_default()
    }

    pub(super) fn finish<U>(self, value: impl Fn(T) -> U) -> PrefixTree<U> {
        let mut nodes: Vec<Node<U>> = Vec::with_capacity(self.values.len());
        // Those that the current one may begin with, the longest last.
        let mut open: Vec<usize> = Vec::new();
        for (prefix, inner) in self.values {
            while open.last().and_then(|at| nodes.get(*at)).is_some_and(|node| !prefix.starts_with(&*node.prefix)) {
                open.pop();
            }
            let parent = open.last().copied();
            open.push(nodes.len());
            nodes.push(Node { prefix, parent, value: value(inner) });
        }
        PrefixTree { nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(all: &[&str], text: &str) -> Vec<String> {
        let mut builder = PrefixTreeBuilder::<String>::default();
        for prefix in all {
            *builder.entry(prefix) = (*prefix).to_owned();
        }
        let tree = builder.finish(|value| value);
        let mut found = Vec::new();
        tree.visit(text, |value| found.push(value.clone()));
        found
    }

    #[test]
    fn every_prefix_is_found_the_longest_first() {
        let all = ["/", "/a", "/a-b", "/a/b", "/a/b/c", "/ab", "/b", "/z"];
        assert_eq!(prefixes(&all, "/a/b/x"), ["/a/b", "/a", "/"]);
        assert_eq!(prefixes(&all, "/a"), ["/a", "/"]);
        assert_eq!(prefixes(&all, "/abc"), ["/ab", "/a", "/"]);
        assert_eq!(prefixes(&all, "/zz"), ["/z", "/"]);
        assert_eq!(prefixes(&all, ""), Vec::<String>::new());
        assert_eq!(prefixes(&[], "/a"), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn the_result_is_that_of_asking_each(
            all in proptest::collection::vec("[ab/]{0,5}", 0..40),
            text in "[ab/]{0,8}",
        ) {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut expected: Vec<&str> = all.iter().copied().filter(|prefix| text.starts_with(prefix)).collect();
            expected.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
            expected.dedup();
            proptest::prop_assert_eq!(prefixes(&all, &text), expected);
        }
    }
}
