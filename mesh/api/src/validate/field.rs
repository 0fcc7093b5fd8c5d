//! A place in an object: where it is, what stands there, and where to report.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{MESSAGES_MAX, Verdict};

/// Where messages go.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: RefCell<Messages>,
    warnings: RefCell<Messages>,
}

#[derive(Debug, Default)]
struct Messages {
    kept: Vec<String>,
    more: usize,
}

impl Messages {
    fn push(&mut self, message: impl FnOnce() -> String) {
        if self.kept.len() < MESSAGES_MAX { self.kept.push(message()) } else { self.more += 1 }
    }

    fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.kept.push(format!("and {} more", self.more));
        }
        self.kept
    }
}

impl Report {
    pub(super) fn error(&self, message: impl FnOnce() -> String) {
        self.errors.borrow_mut().push(message);
    }

    pub(super) fn warn(&self, message: impl FnOnce() -> String) {
        self.warnings.borrow_mut().push(message);
    }

    pub(super) fn into_verdict(self) -> Verdict {
        Verdict { errors: self.errors.into_inner().into_lines(), warnings: self.warnings.into_inner().into_lines() }
    }
}

/// One value and its place.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    path: String,
    value: &'a Value,
    report: &'a Report,
}

impl<'a> Field<'a> {
    pub(super) fn new(path: String, value: &'a Value, report: &'a Report) -> Self {
        Self { path, value, report }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// Says what should stand here instead of what does.
    pub(super) fn expected(&self, what: &str) {
        self.report.error(|| format!("{}: {}: expected {what}", self.path, shown(self.value)));
    }

    /// As [`Field::expected`], for a value that may be secret or long.
    pub(super) fn expected_unseen(&self, what: &str) {
        self.report.error(|| format!("{}: expected {what}", self.path));
    }

    /// Tells something that is no mistake.
    pub(super) fn warn(&self, message: &str) {
        self.report.warn(|| format!("{}: {}: {message}", self.path, shown(self.value)));
    }

    /// As [`Field::warn`], without the value.
    pub(super) fn warn_unseen(&self, message: &str) {
        self.report.warn(|| format!("{}: {message}", self.path));
    }

    /// The text; reports anything else.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.expected("a string");
        }
        text
    }

    /// Looks into an object, and tells of fields that `check` never asked for.
    pub(super) fn object(&self, check: impl FnOnce(&Fields<'a>)) {
        let Some(map) = self.value.as_object() else { return self.expected("an object") };
        let fields = Fields { path: self.path.clone(), map, read: RefCell::default(), report: self.report };
        check(&fields);
        let read = fields.read.into_inner();
        for key in map.keys().filter(|key| !read.contains(&key.as_str())) {
            self.report.warn(|| format!("{}.{}: this field is unknown and has no effect", self.path, clipped(key)));
        }
    }

    /// Every item of a list.
    pub(super) fn items(&self) -> Vec<Field<'a>> {
        let Some(items) = self.value.as_array() else {
            self.expected("a list");
            return Vec::new();
        };
        let item = |(index, value)| Field { path: format!("{}[{index}]", self.path), value, report: self.report };
        items.iter().enumerate().map(item).collect()
    }

    /// Every entry of a map with free keys.
    pub(super) fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        let Some(map) = self.value.as_object() else {
            self.expected("an object");
            return Vec::new();
        };
        let entry = |(key, value): (&'a String, &'a Value)| {
            let path = format!("{}[{:?}]", self.path, clipped(key));
            (key.as_str(), Field { path, value, report: self.report })
        };
        map.iter().map(entry).collect()
    }
}

/// The fields of an object with known fields.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    /// What was asked for.
    read: RefCell<Vec<&'static str>>,
    report: &'a Report,
}

impl<'a> Fields<'a> {
    /// The field if it is there; null counts as absent.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.read.borrow_mut().push(key);
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(Field { path: format!("{}.{key}", self.path), value, report: self.report })
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Whether a list, map or string has anything in it; anything else only has to be there.
    pub(super) fn filled(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|field| match field.value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        })
    }

    /// The text of a field; none when absent or not text (which is reported by whoever checks the field).
    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.get(key)?.value.as_str()
    }

    /// The texts of a list; what is not text is left out.
    pub(super) fn texts(&self, key: &'static str) -> Vec<&'a str> {
        let items = self.get(key).and_then(|field| field.value.as_array());
        items.map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    pub(super) fn is_true(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|field| field.value == &Value::Bool(true))
    }

    /// Checks a field if it is there.
    pub(super) fn optional(&self, key: &'static str, check: impl FnOnce(&Field<'a>)) {
        if let Some(field) = self.get(key) {
            check(&field);
        }
    }

    /// Checks a field that has to be there.
    pub(super) fn required(&self, key: &'static str, check: impl FnOnce(&Field<'a>)) {
        match self.get(key) {
            Some(field) => check(&field),
            None => self.report.error(|| format!("{}.{key}: missing: expected a value", self.path)),
        }
    }

    /// Checks an object if it is there.
    pub(super) fn object(&self, key: &'static str, check: impl FnOnce(&Fields<'a>)) {
        self.optional(key, |field| field.object(check));
    }

    /// Checks the length of a list and each item; an absent list has no items.
    pub(super) fn list(&self, key: &'static str, length: RangeInclusive<usize>, check: impl Fn(&Field<'a>)) {
        let Some(field) = self.get(key) else {
            if *length.start() > 0 {
                self.report.error(|| format!("{}.{key}: missing: expected {}", self.path, count(&length)));
            }
            return;
        };
        let items = field.items();
        if field.value.is_array() && !length.contains(&items.len()) {
            self.report.error(|| format!("{}.{key}: {} items: expected {}", self.path, items.len(), count(&length)));
        }
        items.iter().for_each(check);
    }

    /// Items of a list of objects.
    pub(super) fn objects(&self, key: &'static str, length: RangeInclusive<usize>, check: impl Fn(&Fields<'a>)) {
        self.list(key, length, |item| item.object(&check));
    }

    /// Checks every entry of a map with free keys.
    pub(super) fn map(&self, key: &'static str, check: impl Fn(&str, &Field<'a>)) {
        self.optional(key, |field| field.entries().iter().for_each(|(key, value)| check(key, value)));
    }

    /// Notes that a field is known and holds whatever its reader makes of it.
    pub(super) fn opaque(&self, keys: &[&'static str]) {
        self.read.borrow_mut().extend(keys);
    }

    /// Reports a mistake that concerns several fields.
    pub(super) fn error(&self, message: &str) {
        self.report.error(|| format!("{}: {message}", self.path));
    }

    /// Reports something that concerns several fields and is no mistake.
    pub(super) fn warn(&self, message: &str) {
        self.report.warn(|| format!("{}: {message}", self.path));
    }

    /// Reports when more than one of these is there, and with `exactly` when none is.
    pub(super) fn one_of(&self, keys: &[&'static str], exactly: bool) {
        let found: Vec<_> = keys.iter().filter(|key| self.has(key)).copied().collect();
        if found.len() > 1 {
            self.error(&format!("{}: expected at most one of {}", found.join(", "), keys.join(", ")));
        } else if exactly && found.is_empty() {
            self.error(&format!("nothing is set: expected one of {}", keys.join(", ")));
        }
    }

    /// Reports each of these that is there, with the reason it must not be.
    pub(super) fn forbidden(&self, keys: &[&'static str], reason: &str) {
        for key in keys {
            if self.has(key) {
                self.report.error(|| format!("{}.{key}: not allowed {reason}", self.path));
            }
        }
    }
}

fn count(length: &RangeInclusive<usize>) -> String {
    match (*length.start(), *length.end()) {
        (0, most) => format!("at most {most}"),
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) if least == most => format!("exactly {least}"),
        (least, most) => format!("{least} to {most}"),
    }
}

/// A value as a message shows it: scalars in full up to a bound, anything else by its sort.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", clipped(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Characters of a value that a message repeats.
const SHOWN_CHARS_MAX: usize = 80;
