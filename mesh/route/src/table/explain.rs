//! Why a request takes the rule that it takes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Table;
use crate::{Origin, RequestView};

/// Why a request takes the rule that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The request's host as it was looked up, and the pattern of the table that it took; no pattern: none matches.
    pub host: String,
    /// The host names of the virtual host that keeps the request, empty when none does.
    pub hostnames: Vec<String>,
    /// Every entry of that virtual host, in the order in which they count.
    pub candidates: Vec<Candidate>,
    /// Which candidate the request takes.
    pub chosen: Option<usize>,
}

/// An entry that the request could have taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Where its rule was written.
    pub origin: Origin,
    /// Position among the table's rules.
    pub rule: usize,
    /// The match's own name, or empty.
    pub name: String,
    /// What it wants, in words.
    pub wants: String,
    /// What of it does not hold; none: the request matches it.
    pub misses: Vec<Miss>,
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// The condition, in words.
    pub wanted: String,
    /// What the request has instead; `None`: nothing of that name.
    pub found: Option<String>,
}

impl Miss {
    pub(crate) fn new(wanted: String, found: Option<&str>) -> Self {
        Self { wanted, found: found.map(shortened) }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{}, but it is {found:?}", self.wanted),
            None => write!(f, "{}, but it is not there", self.wanted),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.wants)?;
        for (n, miss) in self.misses.iter().enumerate() {
            write!(f, "{} {miss}", if n == 0 { ": no:" } else { "; and" })?;
        }
        Ok(())
    }
}

impl Explanation {
    /// The candidate that the request takes.
    #[must_use]
    pub fn choice(&self) -> Option<&Candidate> {
        self.chosen.and_then(|chosen| self.candidates.get(chosen))
    }
}

pub(super) fn explain(table: &Table, request: &RequestView<'_>) -> Explanation {
    let host = table.names.find(request.authority).and_then(|at| table.hosts.get(*at));
    let entries = host.map(|host| host.entries.as_slice()).unwrap_or_default();
    let candidates: Vec<Candidate> = entries
        .iter()
        .map(|entry| Candidate {
            origin: table.rules.get(entry.rule).map(|rule| rule.origin.clone()).unwrap_or_default(),
            rule: entry.rule,
            name: entry.name().to_owned(),
            wants: entry.to_string(),
            misses: entry.misses(request),
        })
        .collect();
    Explanation {
        host: crate::host::name(request.authority).into_owned(),
        hostnames: host.map(|host| host.hostnames.clone()).unwrap_or_default(),
        chosen: candidates.iter().position(|candidate| candidate.misses.is_empty()),
        candidates,
    }
}

/// Long values are cut: an explanation is read by people.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// How much of a request's value an explanation repeats.
const FOUND_CHARS_MAX: usize = 200;
