//! Turns an event into one line of text.

use std::cell::RefCell;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use super::writer::Writer;

/// Formats events on the calling thread into a buffer that is reused, and hands the bytes over.
pub(crate) struct LineLayer {
    format: Format,
    writer: Writer,
}

/// The fields of a span, already in the layout's form, so that an event only copies them.
struct SpanFields(String);

impl LineLayer {
    pub(crate) fn new(format: Format, writer: Writer) -> Self {
        Self { format, writer }
    }

    fn fields(&self) -> Fields {
        Fields { format: self.format, ..Fields::default() }
    }

    fn render(&self, line: &mut String, event: &Event<'_>, fields: &Fields) {
        let (level, target) = (level_name(*event.metadata().level()), event.metadata().target());
        match self.format {
            Format::Plain => {
                push_time(line);
                line.push('\t');
                line.push_str(level);
                line.push('\t');
                line.push_str(target);
                line.push('\t');
                push_single_line(line, &fields.message);
                line.push('\t');
                line.push_str(fields.text.trim_start());
            }
            Format::Json => {
                line.push_str("{\"level\":\"");
                line.push_str(level);
                line.push_str("\",\"time\":\"");
                push_time(line);
                line.push_str("\",\"scope\":");
                push_json_string(line, target);
                line.push_str(",\"message\":");
                push_json_string(line, &fields.message);
                line.push_str(&fields.text);
                line.push('}');
            }
        }
        line.push('\n');
    }
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = self.fields();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(SpanFields(fields.text));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = self.fields();
        values.record(&mut fields);
        if let Some(span) = context.span(id)
            && let Some(known) = span.extensions_mut().get_mut::<SpanFields>()
        {
            known.0.push_str(&fields.text);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Taken out rather than borrowed: a field's Debug implementation may itself log.
        let (mut fields, mut line) = LINE.try_with(RefCell::take).unwrap_or_default();
        fields.clear(self.format);
        event.record(&mut fields);
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(known) = span.extensions().get::<SpanFields>() {
                    fields.text.push_str(&known.0);
                }
            }
        }
        line.clear();
        self.render(&mut line, event, &fields);
        self.writer.line(line.as_bytes());
        // One enormous event must not pin its size in every worker thread.
        line.shrink_to(LINE_KEEP_BYTES);
        fields.text.shrink_to(LINE_KEEP_BYTES);
        // Fails only while the thread ends, when nothing needs keeping.
        let _ = LINE.try_with(|kept| kept.replace((fields, line)));
    }
}

/// Collects the fields of an event or span in the layout's form: ` key=value` or `,"key":value`.
#[derive(Default)]
struct Fields {
    format: Format,
    message: String,
    text: String,
    scratch: String,
}

impl Fields {
    fn clear(&mut self, format: Format) {
        self.format = format;
        self.message.clear();
        self.text.clear();
    }

    fn key(&mut self, field: &Field) {
        match self.format {
            Format::Plain => {
                self.text.push(' ');
                self.text.push_str(field.name());
                self.text.push('=');
            }
            Format::Json => {
                self.text.push(',');
                push_json_string(&mut self.text, field.name());
                self.text.push(':');
            }
        }
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value}");
            return;
        }
        self.key(field);
        // Writing to a String does not fail.
        let _ = write!(self.text, "{value}");
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        self.key(field);
        match self.format {
            Format::Plain => push_plain(&mut self.text, value),
            Format::Json => push_json_string(&mut self.text, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // An error prints its own level only, so the causes are added here, once.
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.record_str(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let _ = write!(scratch, "{value:?}");
        self.record_str(field, &scratch);
        self.scratch = scratch;
    }
}

thread_local! {
    /// Buffers for the next line of this thread.
    static LINE: RefCell<(Fields, String)> = RefCell::default();
}

/// Capacity a thread keeps for its next line.
const LINE_KEEP_BYTES: usize = 4 * 1024;

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn push_time(line: &mut String) {
    // Fails only when the writer does, and a String does not.
    let _ = SystemTime.format_time(&mut format::Writer::new(line));
}

/// A plain value: as it is when it is one clean word or already quoted, else quoted.
fn push_plain(out: &mut String, value: &str) {
    let clean = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    let quoted =
        value.len() >= 2 && value.starts_with('"') && value.ends_with('"') && !value.contains(|c: char| c.is_control());
    if quoted || (!value.is_empty() && clean(value)) {
        out.push_str(value);
    } else {
        push_json_string(out, value);
    }
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

/// `text` as a JSON string with its quotes.
fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
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
