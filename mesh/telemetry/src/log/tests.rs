//! What ends up in the log, and that nothing is lost.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{debug, error, info, info_span, warn};

use super::*;

#[derive(Clone, Default)]
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    delay: Duration,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        std::thread::sleep(self.delay);
        self.bytes.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: Format, filter: &str, body: impl FnOnce(&LogHandle)) -> Vec<String> {
    let sink = Sink::default();
    let options = Options { component: "test", format, default_filter: filter.to_owned() };
    let (subscriber, handle) = build(options, Box::new(sink.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, || body(&handle));
    handle.flush();
    let bytes = sink.bytes.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn plain_lines_are_tab_separated_and_quote_what_has_spaces() {
    let lines = logged(Format::Plain, "info", |_| {
        info!(target: "access", { src.addr = %"10.1.0.5:40000", error = "no healthy upstream", bytes_sent = 12_u64 }, "connection complete");
    });
    let (time, rest) = lines[0].split_once('\t').unwrap();
    assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000Z".len(), "{time}");
    assert_eq!(
        rest,
        "info\taccess\tconnection complete\tsrc.addr=10.1.0.5:40000 error=\"no healthy upstream\" bytes_sent=12"
    );
}

#[test]
fn a_value_cannot_forge_a_second_line() {
    for format in [Format::Plain, Format::Json] {
        let lines = logged(format, "info", |_| info!(name = %"a\nb\tc", "peer\nsaid"));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[test]
fn json_lines_start_with_level_time_scope_message() {
    let lines = logged(Format::Json, "info", |_| {
        let _span = info_span!("xds", node = "n1").entered();
        error!(target: "access", { src.addr = %"10.1.0.5:1", n = 3_u64, ok = true }, "connection complete");
    });
    let line = &lines[0];
    assert!(line.starts_with(r#"{"level":"error","time":""#), "{line}");
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(value["scope"], "access");
    assert_eq!(value["message"], "connection complete");
    assert_eq!(value["src.addr"], "10.1.0.5:1");
    assert_eq!(value["n"], 3);
    assert_eq!(value["ok"], true);
    assert_eq!(value["node"], "n1");
}

#[test]
fn the_filter_changes_and_resets_while_running() {
    let lines = logged(Format::Plain, "info", |handle| {
        debug!("one");
        handle.set("debug").unwrap();
        debug!("two");
        handle.set("access:off").unwrap();
        info!(target: "access", "three");
        info!("four");
        assert_eq!(handle.current(), "info,debug,access=off");
        handle.reset().unwrap();
        debug!("five");
        info!(target: "access", "six");
    });
    let messages: Vec<_> = lines.iter().map(|line| line.split('\t').nth(3).unwrap()).collect();
    assert_eq!(messages, ["two", "four", "six"]);
}

#[test]
fn a_bad_directive_is_refused_and_changes_nothing() {
    logged(Format::Plain, "info", |handle| {
        for bad in ["loud", "access:loud", "", ",", "=info"] {
            assert!(handle.set(bad).is_err(), "{bad}");
        }
        assert_eq!(handle.current(), "info");
    });
}

#[test]
fn a_slow_sink_slows_callers_down_but_loses_nothing() {
    let sink = Sink { delay: Duration::from_millis(5), ..Sink::default() };
    let options = Options { component: "test", format: Format::Plain, default_filter: "warn".to_owned() };
    let (subscriber, handle) = build(options, Box::new(sink.clone())).unwrap();
    let lines = writer::LINES_MAX * 2 + 17;
    tracing::subscriber::with_default(subscriber, || {
        for n in 0..lines {
            warn!(n, "line");
        }
    });
    handle.flush();
    let bytes = sink.bytes.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    let numbers: Vec<usize> = text.lines().map(|line| line.rsplit_once("n=").unwrap().1.parse().unwrap()).collect();
    assert_eq!(numbers, (0..lines).collect::<Vec<_>>());
}
