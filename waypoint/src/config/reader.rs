//! Reads single settings and collects what is wrong with them.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use mesh_core::duration;
use mesh_core::env::Env;

/// Settings being read. A bad one yields its default and an error for the end.
pub(super) struct Reader<'a> {
    env: &'a Env,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self { env, errors: Vec::new() }
    }

    pub(super) fn errors(self) -> Vec<String> {
        self.errors
    }

    pub(super) fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    /// The value, which may be empty when it was set so.
    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.env.get(name).unwrap_or(default).to_owned()
    }

    /// The value, unless empty.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.env.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// The value of the first that is set and not empty.
    pub(super) fn first(&self, names: &[&str], default: &str) -> String {
        names.iter().find_map(|name| self.optional(name)).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn bool(&mut self, name: &str, default: bool) -> bool {
        self.env.bool(name, default).unwrap_or_else(|error| {
            self.errors.push(error);
            default
        })
    }

    /// All settings whose name starts with `prefix`, with the rest of the name.
    pub(super) fn prefixed(&self, prefix: &str) -> Vec<(String, String)> {
        self.env.with_prefix(prefix).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> T {
        match self.optional(name).map(|value| (value.parse(), value)) {
            None => default,
            Some((Ok(parsed), _)) => parsed,
            Some((Err(error), value)) => {
                self.errors.push(format!("{name}={value:?}: {error}"));
                default
            }
        }
    }

    pub(super) fn duration(&mut self, name: &str, default: Duration) -> Duration {
        match self.optional(name).as_deref().map(duration::parse) {
            None => default,
            Some(Ok(parsed)) => parsed,
            Some(Err(error)) => {
                self.errors.push(format!("{name}: {error}"));
                default
            }
        }
    }
}
