//! One line of the log, put together field by field in either layout.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::Level;

use super::Format;

/// What comes before the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) scope: &'a str,
    pub(super) message: &'a str,
}

/// The fields of a line, in the order in which they are added.
#[derive(Debug)]
pub struct Line<'a> {
    format: Format,
    text: &'a mut String,
}

impl Line<'_> {
    /// A text, quoted where the layout needs it.
    pub fn text(&mut self, name: &str, value: &str) {
        push_key(self.text, self.format, name);
        match self.format {
            Format::Plain => push_plain(self.text, value),
            Format::Json => push_json_string(self.text, value),
        }
    }

    /// A text, left out when it is not known.
    pub fn known(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// Anything that can be shown, as a text.
    pub fn shown(&mut self, name: &str, value: &impl fmt::Display) {
        self.text(name, &value.to_string());
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u64) {
        push_key(self.text, self.format, name);
        // Writing to a String does not fail, here and below.
        let _ = write!(self.text, "{value}");
    }

    /// An address.
    pub fn addr(&mut self, name: &str, value: std::net::SocketAddr) {
        self.clean(name, format_args!("{value}"));
    }

    /// A time span in whole milliseconds, such as `12ms`.
    pub fn millis(&mut self, name: &str, value: u64) {
        self.clean(name, format_args!("{value}ms"));
    }

    /// A text that needs quotes in no layout but JSON, and no escapes.
    fn clean(&mut self, name: &str, value: fmt::Arguments<'_>) {
        push_key(self.text, self.format, name);
        let _ = match self.format {
            Format::Plain => self.text.write_fmt(value),
            Format::Json => write!(self.text, "\"{value}\""),
        };
    }
}

/// Appends a whole line, its end included.
pub(super) fn push(out: &mut String, format: Format, head: Head<'_>, fields: impl FnOnce(&mut Line<'_>)) {
    push_head(out, format, head);
    let start = out.len();
    fields(&mut Line { format, text: out });
    end(out, format, start);
}

/// Everything up to the first field.
pub(super) fn push_head(out: &mut String, format: Format, head: Head<'_>) {
    let level = level_name(head.level);
    match format {
        Format::Plain => {
            push_time(out, head.time);
            out.push('\t');
            out.push_str(level);
            out.push('\t');
            out.push_str(head.scope);
            out.push('\t');
            push_single_line(out, head.message);
            out.push('\t');
        }
        Format::Json => {
            out.push_str("{\"level\":\"");
            out.push_str(level);
            out.push_str("\",\"time\":\"");
            push_time(out, head.time);
            out.push_str("\",\"scope\":");
            push_json_string(out, head.scope);
            out.push_str(",\"message\":");
            push_json_string(out, head.message);
        }
    }
}

/// Closes the line whose fields start at `fields`.
fn end(out: &mut String, format: Format, fields: usize) {
    match format {
        // Each field begins with a space; the first one's is a tab already.
        Format::Plain if out.len() > fields => drop(out.remove(fields)),
        Format::Plain => {}
        Format::Json => out.push('}'),
    }
    out.push('\n');
}

/// Closes a line whose fields are `fields`, each in the layout's form.
pub(super) fn push_fields(out: &mut String, format: Format, fields: &str) {
    let start = out.len();
    out.push_str(fields);
    end(out, format, start);
}

/// ` name=` or `,"name":`.
pub(super) fn push_key(out: &mut String, format: Format, name: &str) {
    match format {
        Format::Plain => {
            out.push(' ');
            out.push_str(name);
            out.push('=');
        }
        Format::Json => {
            out.push(',');
            push_json_string(out, name);
            out.push(':');
        }
    }
}

/// A plain value: as it is when it is one clean word or already quoted, else quoted.
pub(super) fn push_plain(out: &mut String, value: &str) {
    let clean = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    let quoted =
        value.len() >= 2 && value.starts_with('"') && value.ends_with('"') && !value.contains(|c: char| c.is_control());
    if quoted || (!value.is_empty() && clean(value)) {
        out.push_str(value);
    } else {
        push_json_string(out, value);
    }
}

/// `text` as a JSON string with its quotes.
pub(super) fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\' && byte != 0x7f && byte.is_ascii()) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_single_line(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

fn push_time(out: &mut String, time: SystemTime) {
    // A clock that is off by more than 10,000 years has no better name.
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let _ = write!(out, "{time:.6}");
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}
