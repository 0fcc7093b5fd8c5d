//! Values by host name, of which the most specific counts: an exact name, else the longest `*.suffix`, else `*`.

use std::collections::HashMap;

use crate::{CompileError, host};

/// Values by host name or pattern.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows the star, its dot included.
    suffixes: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), suffixes: HashMap::new(), any: None }
    }
}

impl<T> HostTable<T> {
    /// Adds a name, `*.suffix` (one label or more in place of the star), or `*` (also written as the empty text).
    ///
    /// # Errors
    /// The pattern is none of these, or is there already.
    pub fn insert(&mut self, pattern: &str, value: T) -> Result<(), CompileError> {
        let name = host::pattern(pattern)?;
        let twice = || CompileError::new("", pattern, "a host that no other entry has");
        if name == "*" {
            if self.any.is_some() {
                return Err(twice());
            }
            self.any = Some(value);
            return Ok(());
        }
        let (names, key) = match name.strip_prefix('*') {
            Some(suffix) => (&mut self.suffixes, suffix),
            None => (&mut self.exact, name.as_str()),
        };
        if names.contains_key(key) {
            return Err(twice());
        }
        names.insert(key.into(), value);
        Ok(())
    }

    /// The value for a host, given with or without a port and trailing dot, in any case.
    #[must_use]
    pub fn find(&self, authority: &str) -> Option<&T> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return self.any.as_ref();
        }
        let name = host::name(authority);
        if let Some(value) = self.exact.get(&*name) {
            return Some(value);
        }
        self.find_suffix(&name).or(self.any.as_ref())
    }

    /// The longest suffix wins; the star stands for at least one character.
    fn find_suffix(&self, name: &str) -> Option<&T> {
        if self.suffixes.is_empty() {
            return None;
        }
        let dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        dots.into_iter().find_map(|at| self.suffixes.get(name.get(at..)?))
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty() && self.any.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&'static str]) -> HostTable<&'static str> {
        let mut table = HostTable::default();
        for pattern in patterns {
            table.insert(pattern, *pattern).unwrap();
        }
        table
    }

    #[test]
    fn the_most_specific_name_wins() {
        let table = table(&["a.b", "*.b", "*.y.b", "*"]);
        for (host, expected) in [
            ("a.b", "a.b"),
            ("A.B:8080", "a.b"),
            ("a.b.", "a.b"),
            ("a.b.:80", "a.b"),
            ("x.b", "*.b"),
            ("x.z.b", "*.b"),
            ("x.y.b", "*.y.b"),
            ("y.b", "*.b"),
            ("b", "*"),
            (".b", "*"),
            ("10.0.0.1:80", "*"),
            ("[::1]:80", "*"),
            ("", "*"),
        ] {
            assert_eq!(table.find(host), Some(&expected), "{host}");
        }
    }

    #[test]
    fn a_wildcard_never_covers_its_apex() {
        let table = table(&["*.b.c"]);
        assert_eq!(table.find("b.c"), None);
        assert_eq!(table.find(".b.c"), None);
        assert_eq!(table.find("xb.c"), None);
        assert_eq!(table.find("x.b.c"), Some(&"*.b.c"));
    }

    #[test]
    fn patterns_are_checked_and_stand_once() {
        let mut table = table(&["a.b", "*.b", ""]);
        for pattern in ["A.b", "*.B", "*", "a.*", "**", "*b", "a b", "a.b:80", "."] {
            assert!(table.insert(pattern, "x").is_err(), "{pattern}");
        }
    }
}
