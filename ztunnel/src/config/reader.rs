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
    /// Names that were asked for, for the documentation's test.
    #[cfg(test)]
    asked: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self {
            env,
            errors: Vec::new(),
            #[cfg(test)]
            asked: std::cell::RefCell::default(),
        }
    }

    /// Everything is asked for here.
    fn get(&self, name: &str) -> Option<&'a str> {
        #[cfg(test)]
        self.asked.borrow_mut().insert(name.to_owned());
        self.env.get(name)
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> std::collections::BTreeSet<String> {
        self.asked.borrow().clone()
    }

    pub(super) fn errors(self) -> Vec<String> {
        self.errors
    }

    pub(super) fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    /// The value, which may be empty when it was set so.
    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.get(name).unwrap_or(default).to_owned()
    }

    /// The value of the first that is set and not empty.
    pub(super) fn first(&self, names: &[&str], default: &str) -> String {
        names.iter().find_map(|name| self.optional(name)).unwrap_or_else(|| default.to_owned())
    }

    /// The value, unless empty.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    pub(super) fn bool(&mut self, name: &str, default: bool) -> bool {
        // For the list of names only; the value is read next.
        let _ = self.get(name);
        self.env.bool(name, default).unwrap_or_else(|error| {
            self.errors.push(error);
            default
        })
    }

    /// All settings whose name starts with `prefix`, with the rest of the name.
    pub(super) fn prefixed(&self, prefix: &str) -> Vec<(String, String)> {
        #[cfg(test)]
        self.asked.borrow_mut().insert(format!("{prefix}*"));
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

    pub(super) fn number<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> T {
        match self.optional(name).map(|value| (value.parse(), value)) {
            None => default,
            Some((Ok(parsed), _)) => parsed,
            Some((Err(_), value)) => {
                self.errors.push(format!("{name}={value:?}: expected a whole number"));
                default
            }
        }
    }

    pub(super) fn at_least(&mut self, name: &str, default: usize, min: usize) -> usize {
        let value = self.number(name, default);
        if value < min {
            self.errors.push(format!("{name}={value}: expected at least {min}"));
        }
        value.max(min)
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
