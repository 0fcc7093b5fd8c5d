//! Turns an event into one line of text.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use super::line::{self, Head};
use super::writer::Writer;

/// Formats events on the calling thread into a buffer that is reused, and hands the text over.
/// What is logged per connection does not come this way, see [`super::record`].
pub(super) struct LineLayer {
    format: Format,
    pub(super) writer: Writer,
}

/// The fields of a span, already in the layout's form, so that an event only copies them.
struct SpanFields(String);

impl LineLayer {
    pub(super) fn new(format: Format, writer: Writer) -> Self {
        Self { format, writer }
    }

    fn fields(&self) -> Fields {
        Fields { format: self.format, ..Fields::default() }
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
        let time = SystemTime::now();
        // Taken out rather than borrowed: a field's Debug implementation may itself log.
        let (mut fields, mut text) = LINE.try_with(RefCell::take).unwrap_or_default();
        fields.clear(self.format);
        event.record(&mut fields);
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(known) = span.extensions().get::<SpanFields>() {
                    fields.text.push_str(&known.0);
                }
            }
        }
        text.clear();
        let (level, scope) = (*event.metadata().level(), event.metadata().target());
        line::push_head(&mut text, self.format, Head { time, level, scope, message: &fields.message });
        line::push_fields(&mut text, self.format, &fields.text);
        self.writer.line(time, text.as_str().into());
        // One enormous event must not pin its size in every worker thread.
        text.shrink_to(LINE_KEEP_BYTES);
        fields.text.shrink_to(LINE_KEEP_BYTES);
        // Fails only while the thread ends, when nothing needs keeping.
        let _ = LINE.try_with(|kept| kept.replace((fields, text)));
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

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value}");
            return;
        }
        line::push_key(&mut self.text, self.format, field.name());
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
        line::push_key(&mut self.text, self.format, field.name());
        match self.format {
            Format::Plain => line::push_plain(&mut self.text, value),
            Format::Json => line::push_json_string(&mut self.text, value),
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
