//! What of a route cannot be honoured.

use mesh_wire::l7;

use crate::translate::conditions::words;

/// Something that cannot be honoured, as the status names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One word.
    pub(super) reason: &'static str,
    /// For humans: where, what, and what was expected.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// A filter that cannot be honoured.
    pub(super) fn filter(message: impl Into<String>) -> Self {
        Self::new(words::INVALID_FILTER, message)
    }

    /// Another value that cannot be honoured.
    pub(super) fn value(message: impl Into<String>) -> Self {
        Self::new(words::INVALID_CONFIGURATION, message)
    }

    /// The same, seen from what holds it.
    pub(super) fn within(mut self, outer: &str) -> Self {
        self.message = format!("{outer}: {}", self.message);
        self
    }

    /// What is answered instead.
    pub(super) fn answer(&self) -> l7::Unusable {
        l7::Unusable { status: 500, flag: String::new(), reason: self.message.clone() }
    }
}

/// Problems of a route, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, problem: Problem) {
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// The reason of the last one, and what all of them say.
    pub(super) fn summary(&self) -> Option<(&'static str, String)> {
        let last = self.0.last()?;
        let mut messages: Vec<_> = self.0.iter().take(SHOWN_MAX).map(|one| one.message.as_str()).collect();
        let more;
        if self.0.len() > SHOWN_MAX {
            more = format!("and {} more", self.0.len() - SHOWN_MAX);
            messages.push(&more);
        }
        Some((last.reason, messages.join("; ")))
    }
}

/// Problems that a message tells; a status is no log.
const SHOWN_MAX: usize = 8;
