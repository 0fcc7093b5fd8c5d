//! Finds the first entry that matches without looking at all of them.
//!
//! Every entry stands on exactly one list: by its exact path, its segment prefix, its plain prefix (patterns under the
//! characters they begin with), or on the list of those that any path may match. The lists that a path leads to are
//! few; each is in written order, and reading one stops at the position of the best found so far. So the result is that
//! of reading all entries in order.

use std::collections::HashMap;

use super::entry::{Entry, PathCondition};
use super::prefix::{PrefixTree, PrefixTreeBuilder};
use crate::RequestView;
use crate::limits::{HEADER_INDEX_FROM, HEADER_INDEX_NAMES_MAX};
use crate::request::Field;

/// Where entries stand.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, List>,
    /// By the path in lower case.
    exact_any_case: HashMap<Box<str>, List>,
    segments: HashMap<Box<str>, List>,
    /// Bit n: some segment prefix has n segments; the last bit stands for all numbers from there on.
    depths: u64,
    prefixes: PrefixTree<List>,
    /// By the prefix in lower case.
    prefixes_any_case: PrefixTree<List>,
    any: List,
}

impl Index {
    pub(super) fn new(entries: &[Entry]) -> Self {
        let mut sorted = Sorted::default();
        for (position, entry) in entries.iter().enumerate() {
            sorted.add(position, &entry.path);
        }
        sorted.finish(entries)
    }

    /// Position of the first entry that matches.
    pub(super) fn find(&self, request: &RequestView<'_>, entries: &[Entry]) -> Option<usize> {
        let mut search = Search { request, entries, best: None };
        if let Some(list) = self.exact.get(request.path) {
            search.read(list);
        }
        self.find_any_case(&mut search);
        self.find_segments(&mut search);
        self.prefixes.visit(request.path, |list| search.read(list));
        search.read(&self.any);
        search.best
    }

    fn find_any_case(&self, search: &mut Search<'_>) {
        if self.exact_any_case.is_empty() && self.prefixes_any_case.is_empty() {
            return;
        }
        let lower = search.request.path.to_ascii_lowercase();
        if let Some(list) = self.exact_any_case.get(lower.as_str()) {
            search.read(list);
        }
        self.prefixes_any_case.visit(&lower, |list| search.read(list));
    }

    /// `/a/b/c` is below `/a/b/c`, `/a/b` and `/a`.
    fn find_segments(&self, search: &mut Search<'_>) {
        if self.depths == 0 {
            return;
        }
        let path = search.request.path;
        let whole = std::iter::once(path.len());
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain(whole);
        for (depth, end) in (1_u32..).zip(ends) {
            let bit = depth_bit(depth);
            if self.depths & bit == 0 {
                if self.depths < bit {
                    return;
                }
                continue;
            }
            if let Some(list) = path.get(..end).and_then(|prefix| self.segments.get(prefix)) {
                search.read(list);
            }
        }
    }
}

fn depth_bit(depth: u32) -> u64 {
    1 << depth.min(u64::BITS - 1)
}

/// The best position so far.
struct Search<'a> {
    request: &'a RequestView<'a>,
    entries: &'a [Entry],
    best: Option<usize>,
}

impl Search<'_> {
    fn read(&mut self, list: &List) {
        self.read_positions(&list.positions);
        for (field, values) in &list.by_header {
            let value = self.request.header(field);
            if let Some(positions) = value.and_then(|value| values.get(&*value)) {
                self.read_positions(positions);
            }
        }
    }

    fn read_positions(&mut self, positions: &[usize]) {
        for position in positions {
            if self.best.is_some_and(|best| best <= *position) {
                return;
            }
            if self.entries.get(*position).is_some_and(|entry| entry.holds_beyond_index(self.request)) {
                self.best = Some(*position);
                return;
            }
        }
    }
}

/// Positions by the value that a header must have.
type ByValue = HashMap<Box<str>, Vec<usize>>;

/// Positions in rising order. Long lists are told apart by headers that must have one value.
#[derive(Debug, Default)]
pub(super) struct List {
    positions: Vec<usize>,
    by_header: Vec<(Field, ByValue)>,
}

impl List {
    fn new(positions: Vec<usize>, entries: &[Entry]) -> Self {
        if positions.len() < HEADER_INDEX_FROM {
            return Self { positions, by_header: Vec::new() };
        }
        let mut list = Self::default();
        for position in positions {
            let wanted = entries.get(position).and_then(|entry| entry.conditions.only_header().next());
            match wanted.and_then(|(field, value)| Some((list.values(field)?, value))) {
                Some((values, value)) => values.entry(value.into()).or_default().push(position),
                None => list.positions.push(position),
            }
        }
        list
    }

    /// The positions by the values of a header, unless there are too many different headers.
    fn values(&mut self, field: &Field) -> Option<&mut ByValue> {
        let known = self.by_header.iter().position(|(known, _)| known == field);
        let at = match known {
            Some(at) => at,
            None if self.by_header.len() >= HEADER_INDEX_NAMES_MAX => return None,
            None => {
                self.by_header.push((field.clone(), HashMap::new()));
                self.by_header.len() - 1
            }
        };
        self.by_header.get_mut(at).map(|(_, values)| values)
    }
}

/// An index that is being made.
#[derive(Default)]
struct Sorted {
    exact: HashMap<Box<str>, Vec<usize>>,
    exact_any_case: HashMap<Box<str>, Vec<usize>>,
    segments: HashMap<Box<str>, Vec<usize>>,
    depths: u64,
    prefixes: PrefixTreeBuilder<Vec<usize>>,
    prefixes_any_case: PrefixTreeBuilder<Vec<usize>>,
    any: Vec<usize>,
}

impl Sorted {
    fn add(&mut self, position: usize, path: &PathCondition) {
        let positions = match path {
            PathCondition::Any => &mut self.any,
            PathCondition::Exact { path, ignore_case: false } => self.exact.entry(path.as_str().into()).or_default(),
            PathCondition::Exact { path, ignore_case: true } => {
                self.exact_any_case.entry(path.to_ascii_lowercase().into()).or_default()
            }
            PathCondition::SegmentPrefix(prefix) if prefix.is_empty() => &mut self.any,
            PathCondition::SegmentPrefix(prefix) => {
                let depth = prefix.matches('/').count();
                self.depths |= depth_bit(u32::try_from(depth).unwrap_or(u32::MAX));
                self.segments.entry(prefix.as_str().into()).or_default()
            }
            PathCondition::Prefix { prefix, .. } if prefix.is_empty() => &mut self.any,
            PathCondition::Prefix { prefix, ignore_case: false } => self.prefixes.entry(prefix),
            PathCondition::Prefix { prefix, ignore_case: true } => {
                self.prefixes_any_case.entry(&prefix.to_ascii_lowercase())
            }
            PathCondition::Pattern(pattern) => match pattern.literal_prefix() {
                prefix if prefix.is_empty() => &mut self.any,
                prefix => self.prefixes.entry(&prefix),
            },
        };
        positions.push(position);
    }

    fn finish(self, entries: &[Entry]) -> Index {
        let list = |positions| List::new(positions, entries);
        let lists = |map: HashMap<Box<str>, Vec<usize>>| {
            map.into_iter().map(|(key, positions)| (key, list(positions))).collect()
        };
        Index {
            exact: lists(self.exact),
            exact_any_case: lists(self.exact_any_case),
            segments: lists(self.segments),
            depths: self.depths,
            prefixes: self.prefixes.finish(list),
            prefixes_any_case: self.prefixes_any_case.finish(list),
            any: list(self.any),
        }
    }
}
