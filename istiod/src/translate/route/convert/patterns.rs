//! Regular expressions of one route: how many there may be, and what they may weigh. They cost time here and memory in
//! every proxy, so nobody has more of both than others can do without.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};

use mesh_route::pattern;
use mesh_wire::l7::{self, path_match, string_match};

use super::Problem;
use crate::translate::conditions::words;

/// What the matches of a route have used of what it may use.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    seen: BTreeSet<String>,
    bytes: usize,
}

impl Patterns {
    /// Whether a route may use this pattern, too. `what` is what it is written for.
    ///
    /// # Errors
    /// It is none, or the route has too many.
    pub(super) fn admit(&mut self, text: &str, what: impl FnOnce() -> String) -> Result<(), Problem> {
        if self.seen.contains(text) {
            return Ok(());
        }
        if self.seen.len() >= PATTERNS_MAX {
            let message = format!("the route has more than {PATTERNS_MAX} different regular expressions");
            return Err(Problem::new(words::UNSUPPORTED_VALUE, message));
        }
        let bytes = weigh(text).map_err(|expected| Problem::value(format!("{} is not {expected}", what())))?;
        if self.bytes + bytes > BYTES_MAX {
            let message = format!("the regular expressions of the route compile to more than {BYTES_MAX} bytes");
            return Err(Problem::new(words::UNSUPPORTED_VALUE, message));
        }
        self.bytes += bytes;
        self.seen.insert(text.to_owned());
        Ok(())
    }
}

/// The same match with patterns that cost nothing.
pub(super) fn simplify(matching: &mut l7::HttpMatch) {
    if let Some(path_match::Kind::Regex(text)) = matching.path.as_mut().and_then(|path| path.kind.as_mut()) {
        text.clear();
    }
    let headers = matching.headers.iter_mut().filter_map(|one| one.value.as_mut());
    let queries = matching.queries.iter_mut().filter_map(|one| one.value.as_mut());
    for value in headers.chain(queries) {
        if let Some(string_match::Kind::Regex(text)) = &mut value.kind {
            text.clear();
        }
    }
}

/// What a pattern weighs, or what was expected instead of it. Most are looked at again and again.
fn weigh(text: &str) -> Result<usize, String> {
    // Two hashes: nobody who does not know the keys makes two texts equal.
    let key = (KEYS.0.hash_one(text), KEYS.1.hash_one(text));
    if let Some(bytes) = known().get(&key) {
        return Ok(*bytes);
    }
    let bytes = pattern::weigh(text).map_err(|error| error.expected.into_owned())?;
    let mut known = known();
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(key, bytes);
    Ok(bytes)
}

fn known() -> std::sync::MutexGuard<'static, HashMap<(u64, u64), usize>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(|| (RandomState::new(), RandomState::new()));
/// Patterns that compile, and what they weigh.
static KNOWN: LazyLock<Mutex<HashMap<(u64, u64), usize>>> = LazyLock::new(Mutex::default);

/// Different patterns of one route.
const PATTERNS_MAX: usize = 256;
/// What they may compile to.
const BYTES_MAX: usize = 2 << 20;
/// Patterns that are remembered: some 2 MB.
const KNOWN_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(patterns: impl Iterator<Item = String>) -> (usize, Option<&'static str>) {
        let mut all = Patterns::default();
        for (number, text) in patterns.enumerate() {
            if let Err(problem) = all.admit(&text, String::new) {
                return (number, Some(problem.reason));
            }
        }
        (all.seen.len(), None)
    }

    #[test]
    fn a_route_has_so_many_patterns_and_no_more() {
        let light = |count: usize| (0..count).map(|number| format!("/v{number}/[a-z]+"));
        assert_eq!(admitted(light(PATTERNS_MAX)), (PATTERNS_MAX, None));
        assert_eq!(admitted(light(PATTERNS_MAX + 1)), (PATTERNS_MAX, Some("UnsupportedValue")));
        let (count, reason) = admitted((0..PATTERNS_MAX).map(|number| format!("{number}(x{{50}}){{50}}")));
        assert!(count < 40 && reason == Some("UnsupportedValue"), "{count} heavy ones");
        assert_eq!(admitted(light(2).chain(light(2))), (2, None), "the same again is no other");
    }

    #[test]
    fn what_is_none_is_named() {
        let problem = Patterns::default().admit("(", || "path value \"(\"".to_owned()).unwrap_err();
        assert!(problem.message.starts_with("path value \"(\" is not a usable regular expression"), "{problem:?}");
    }
}
