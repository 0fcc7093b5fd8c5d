//! Field errors in the wording of Kubernetes, and the paths in them.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// Longest text of a rejected value in a message, in characters: messages end up in logs and events.
const VALUE_CHARS_MAX: usize = 400;

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// Where, such as `spec.ports[0].port`.
    pub path: String,
    /// What, beginning with the class: `Invalid value: 0: must be between 1 and 65535, inclusive`.
    pub reason: String,
}

impl FieldError {
    /// A field that must be there is not.
    pub fn required(path: impl fmt::Display, detail: &str) -> Self {
        Self::new(path, "Required value".to_owned(), detail)
    }

    /// A value breaks a rule.
    pub fn invalid(path: impl fmt::Display, value: &Value, detail: &str) -> Self {
        Self::new(path, format!("Invalid value: {}", shown(value)), detail)
    }

    /// A value is not among those that are known.
    pub fn not_supported<'a>(path: impl fmt::Display, value: &Value, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<String> = known.into_iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", known.join(", "));
        Self::new(path, format!("Unsupported value: {}", shown(value)), &detail)
    }

    /// A value that must be unique occurs twice.
    pub fn duplicate(path: impl fmt::Display, value: &Value) -> Self {
        Self::new(path, format!("Duplicate value: {}", shown(value)), "")
    }

    /// A field may not be set, or not be changed.
    pub fn forbidden(path: impl fmt::Display, detail: &str) -> Self {
        Self::new(path, "Forbidden".to_owned(), detail)
    }

    /// A text is longer than allowed.
    pub fn too_long(path: impl fmt::Display, bytes_max: usize) -> Self {
        Self::new(path, "Too long".to_owned(), &format!("may not be more than {bytes_max} bytes"))
    }

    /// A list or map has more items than allowed.
    pub fn too_many(path: impl fmt::Display, count: usize, items_max: u64) -> Self {
        Self::new(path, format!("Too many: {count}"), &format!("must have at most {items_max} items"))
    }

    fn new(path: impl fmt::Display, class: String, detail: &str) -> Self {
        let reason = if detail.is_empty() { class } else { format!("{class}: {detail}") };
        Self { path: path.to_string(), reason }
    }

    /// The reason of a `StatusCause`, such as `FieldValueInvalid`.
    pub fn cause(&self) -> &'static str {
        const CAUSES: [(&str, &str); 7] = [
            ("Required value", "FieldValueRequired"),
            ("Unsupported value", "FieldValueNotSupported"),
            ("Duplicate value", "FieldValueDuplicate"),
            ("Forbidden", "FieldValueForbidden"),
            ("Too long", "FieldValueTooLong"),
            ("Too many", "FieldValueTooMany"),
            ("Not found", "FieldValueNotFound"),
        ];
        let found = CAUSES.iter().find(|(class, _)| self.reason.starts_with(class));
        found.map_or("FieldValueInvalid", |(_, cause)| cause)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.reason)
    }
}

/// Several errors in one text: as is when there is one, in brackets when there are more.
pub fn aggregate(errors: &[FieldError]) -> String {
    match errors {
        [only] => only.to_string(),
        many => {
            let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Where a walk through an object stands. Lives on the stack, so that a walk without errors
/// allocates nothing.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field of an object.
    Field(&'a Path<'a>, &'a str),
    /// A key of a map.
    Key(&'a Path<'a>, &'a str),
    /// An item of a list.
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    /// A field of the object here.
    pub fn field(&'a self, name: &'a str) -> Self {
        Path::Field(self, name)
    }

    /// A key of the map here, written in brackets.
    pub fn key(&'a self, name: &'a str) -> Self {
        Path::Key(self, name)
    }

    /// An item of the list here.
    pub fn index(&'a self, index: usize) -> Self {
        Path::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) | Path::Key(Path::Root, name) => formatter.write_str(name),
            Path::Field(parent, name) => write!(formatter, "{parent}.{name}"),
            Path::Key(parent, name) => write!(formatter, "{parent}[{name}]"),
            Path::Index(parent, index) => {
                parent.fmt(formatter)?;
                formatter.write_char('[')?;
                write!(formatter, "{index}]")
            }
        }
    }
}

/// Why a custom resource definition's schema cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct SchemaError {
    /// Where in the definition, such as `openAPIV3Schema.properties[spec].type`.
    pub path: String,
    /// What is wrong, in the wording of a [`FieldError`].
    pub reason: String,
}

impl From<SchemaError> for FieldError {
    fn from(error: SchemaError) -> Self {
        Self { path: error.path, reason: error.reason }
    }
}

impl From<FieldError> for SchemaError {
    fn from(error: FieldError) -> Self {
        Self { path: error.path, reason: error.reason }
    }
}
