//! Why a table cannot be used.

use std::borrow::Cow;
use std::fmt;

/// A field of a resource that has no meaning. The whole resource is refused and the last good one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {expected}")]
pub struct CompileError {
    /// Where it is, such as `rules[3].retry.conditions`.
    pub field: String,
    /// What it says, shortened.
    pub value: String,
    /// What it could have said.
    pub expected: Cow<'static, str>,
}

impl CompileError {
    /// Names the field and what was wanted instead of `value`.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, expected: impl Into<Cow<'static, str>>) -> Self {
        let mut value = value.to_string();
        if let Some((cut, _)) = value.char_indices().nth(VALUE_CHARS_MAX) {
            value.truncate(cut);
        }
        Self { field: field.into(), value, expected: expected.into() }
    }

    /// The same, seen from the object that holds the one whose field it is.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = if self.field.is_empty() { outer.to_string() } else { format!("{outer}.{}", self.field) };
        self
    }
}

/// How much of a wrong value is kept: enough to find it, too little to fill a log.
const VALUE_CHARS_MAX: usize = 128;
