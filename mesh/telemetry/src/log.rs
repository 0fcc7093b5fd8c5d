//! Log set-up: two layouts, a filter that can change while running, and a writer thread.
//!
//! | form | layout |
//! |---|---|
//! | plain | `<RFC3339 time>\t<level>\t<scope>\t<message>\t<key=value …>` |
//! | json | one object a line: `level`, `time`, `scope`, `message`, then the fields |
//!
//! `scope` is the event's target. Access-log lines use the target [`ACCESS`], so that they can be
//! switched on and off apart from everything else.
//!
//! Ordinary events are formatted where they happen; they are rare. What is logged once per
//! connection goes through [`record`]: only the facts are kept there and then, and the writer thread
//! puts them into words.

mod layout;
mod line;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use layout::LineLayer;
pub use line::Line;
pub use writer::Record;
use writer::{Kind, Writer};

/// Target of access-log events.
pub const ACCESS: &str = "access";

/// Layout of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Tab-separated, for people.
    #[default]
    Plain,
    /// One JSON object a line, for collectors.
    Json,
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat { found: other.to_owned() }),
        }
    }
}

/// A log format that is neither `plain` nor `json`.
#[derive(Debug, thiserror::Error)]
#[error("unknown log format {found:?}: expected plain or json")]
pub struct UnknownFormat {
    found: String,
}

/// How to log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the binary; names the writer thread.
    pub component: &'static str,
    /// Layout of the lines.
    pub format: Format,
    /// Filter directives to start with and to return to on reset, such as `info,ztunnel=debug`.
    pub default_filter: String,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The text is not a list of filter directives.
    #[error("bad log filter {directives:?}: {reason}; expected a level or module=level, separated by commas")]
    BadFilter {
        /// What was given.
        directives: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The writer thread could not be started.
    #[error("starting the log writer thread failed")]
    Thread(#[source] io::Error),
    /// Some other part of the process installed a subscriber first.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sets up logging to standard output for the whole process.
///
/// # Errors
/// A bad default filter, no thread, or a second call.
pub fn init(options: Options) -> Result<LogHandle, LogError> {
    init_to(options, Box::new(io::stdout()))
}

/// Like [`init`], with another destination: standard error for commands whose output is data.
///
/// # Errors
/// As for [`init`].
pub fn init_to(options: Options, sink: Box<dyn io::Write + Send>) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = build(options, sink)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(handle)
}

/// A subscriber and its handle without making it the process's own; for tests.
///
/// # Errors
/// A bad default filter, or no thread.
pub fn build(
    options: Options,
    sink: Box<dyn io::Write + Send>,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), LogError> {
    let filter = parse(&options.default_filter)?;
    let writer = Writer::start(options.component, options.format, sink).map_err(LogError::Thread)?;
    let (filter, reload) = reload::Layer::new(filter);
    let lines = LineLayer::new(options.format, writer.clone());
    let subscriber = Registry::default().with(filter).with(lines);
    let filters = Filters { current: options.default_filter.clone(), default: options.default_filter };
    Ok((subscriber, LogHandle { filters: Arc::new(Mutex::new(filters)), reload, writer }))
}

/// Logs something that the writer thread puts into words. The caller has asked the filter before, with
/// [`tracing::enabled!`], so that what is switched off costs nothing. Blocks while the queue of the
/// calling thread is full: 10,000 lines.
pub fn record(level: Level, scope: &'static str, message: &'static str, record: Arc<dyn Record>) {
    let mut record = Some(record);
    tracing::dispatcher::get_default(|dispatch| {
        // Some other subscriber would not know what to do with a record.
        if let Some(lines) = dispatch.downcast_ref::<LineLayer>()
            && let Some(record) = record.take()
        {
            lines.writer.record(Kind { level, scope, message }, record);
        }
    });
}

/// Changes the filter while running, and flushes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filters: Arc<Mutex<Filters>>,
    reload: reload::Handle<EnvFilter, Registry>,
    writer: Writer,
}

#[derive(Debug)]
struct Filters {
    current: String,
    default: String,
}

impl LogHandle {
    /// Appends directives to the current filter; later ones win. `module:level` and `module=level`
    /// mean the same.
    ///
    /// # Errors
    /// The text is no list of directives; the filter stays as it was.
    pub fn set(&self, directives: &str) -> Result<(), LogError> {
        let added = normalise(directives)?;
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        let all = if filters.current.is_empty() { added } else { format!("{},{added}", filters.current) };
        self.apply(&all)?;
        filters.current = all;
        Ok(())
    }

    /// Returns to the filter of the start.
    ///
    /// # Errors
    /// Only when the process's subscriber is gone.
    pub fn reset(&self) -> Result<(), LogError> {
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply(&filters.default)?;
        filters.current = filters.default.clone();
        Ok(())
    }

    /// The filter in force, as directives.
    #[must_use]
    pub fn current(&self) -> String {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    /// Waits until every line logged before the call is written. Call before the process exits.
    pub fn flush(&self) {
        self.writer.flush();
    }

    fn apply(&self, directives: &str) -> Result<(), LogError> {
        let filter = parse(directives)?;
        self.reload
            .reload(filter)
            .map_err(|error| LogError::BadFilter { directives: directives.to_owned(), reason: error.to_string() })
    }
}

fn parse(directives: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| LogError::BadFilter { directives: directives.to_owned(), reason: error.to_string() })
}

/// Directives with `=` between module and level. Every part must name a level: a bare word would
/// otherwise be taken for a module to trace in full.
fn normalise(directives: &str) -> Result<String, LogError> {
    let bad = |reason: String| LogError::BadFilter { directives: directives.to_owned(), reason };
    let mut parts = Vec::new();
    for part in directives.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (module, level) = match part.rsplit_once(['=', ':']) {
            Some((module, level)) => (Some(module.trim()), level.trim()),
            None => (None, part),
        };
        level.parse::<LevelFilter>().map_err(|_| bad(format!("unknown level {level:?}")))?;
        match module {
            Some("") => return Err(bad("a module name is empty".to_owned())),
            Some(module) => parts.push(format!("{module}={level}")),
            None => parts.push(level.to_owned()),
        }
    }
    if parts.is_empty() {
        return Err(bad("no directive".to_owned()));
    }
    Ok(parts.join(","))
}

#[cfg(test)]
mod tests;
