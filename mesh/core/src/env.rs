//! Settings by name, from the process environment or from a map in tests.
//!
//! Only `config` modules use this; everything else receives typed configuration.

use std::collections::BTreeMap;

/// A set of named settings. An empty value is a value.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// A copy of the process environment; names or values that are not UTF-8 are left out.
    #[must_use]
    pub fn process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// The value of `name`, if set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every setting whose name starts with `prefix`, with the rest of the name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// A boolean as Go programs write it (`1 t T TRUE true True 0 f F FALSE false False`), or what is wrong with it.
    ///
    /// # Errors
    /// A message that names the setting, its value and what was expected.
    pub fn bool(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => parse_bool(text).ok_or_else(|| format!("{name}={text:?}: expected true or false")),
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(settings: I) -> Self {
        Self(settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// The boolean spellings that Kubernetes annotations and settings use; anything else is `None`.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_or_named() {
        let env: Env = [("A", "True"), ("B", "yes"), ("C", "0")].into_iter().collect();
        assert_eq!(env.bool("A", false), Ok(true));
        assert_eq!(env.bool("C", true), Ok(false));
        assert_eq!(env.bool("MISSING", true), Ok(true));
        assert!(env.bool("B", false).unwrap_err().contains("B=\"yes\""));
    }

    #[test]
    fn prefixed_settings_lose_their_prefix() {
        let env: Env = [("X_a", "1"), ("X_b", "2"), ("Y", "3")].into_iter().collect();
        assert_eq!(env.with_prefix("X_").collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    }
}
