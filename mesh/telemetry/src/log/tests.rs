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

/// As [`Record`], what a connection's line is made from.
struct Seen(u64);

impl Record for Seen {
    fn fields(&self, line: &mut Line<'_>) {
        assert_ne!(self.0, u64::MAX, "on purpose");
        line.addr("src.addr", "10.1.0.5:40000".parse().unwrap());
        line.known("src.workload", Some("web"));
        line.known("src.cluster", None);
        line.number("bytes_sent", self.0);
        line.millis("duration", 3);
        line.text("error", "no healthy upstream");
    }
}

fn seen(n: u64) -> Arc<dyn Record> {
    Arc::new(Seen(n))
}

#[test]
fn a_record_reads_as_an_event_would() {
    let body = |_: &LogHandle| record(Level::INFO, ACCESS, "connection complete", seen(7));
    let plain = logged(Format::Plain, "info", body);
    let (_, rest) = plain[0].split_once('\t').unwrap();
    assert_eq!(
        rest,
        "info\taccess\tconnection complete\tsrc.addr=10.1.0.5:40000 src.workload=web bytes_sent=7 duration=3ms \
         error=\"no healthy upstream\""
    );
    let json = logged(Format::Json, "info", body);
    assert!(json[0].starts_with(r#"{"level":"info","time":""#), "{}", json[0]);
    let tail = r#""scope":"access","message":"connection complete","src.addr":"10.1.0.5:40000","src.workload":"web","bytes_sent":7,"duration":"3ms","error":"no healthy upstream"}"#;
    assert!(json[0].ends_with(tail), "{}", json[0]);
}

#[test]
fn a_line_without_fields_ends_after_its_message() {
    struct Nothing;
    impl Record for Nothing {
        fn fields(&self, _: &mut Line<'_>) {}
    }
    let body = |_: &LogHandle| {
        info!("one");
        record(Level::INFO, "test", "two", Arc::new(Nothing));
    };
    let plain = logged(Format::Plain, "info", body);
    assert!(plain[0].ends_with("\tone\t") && plain[1].ends_with("\ttwo\t"), "{plain:?}");
    for line in logged(Format::Json, "info", body) {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }
}

#[test]
fn a_record_that_panics_costs_its_own_line_only() {
    let lines = logged(Format::Plain, "info", |_| {
        record(Level::INFO, "test", "one", seen(u64::MAX));
        record(Level::INFO, "test", "two", seen(1));
    });
    assert!(lines[0].contains("this line could not be written"), "{}", lines[0]);
    assert!(lines[1].contains("\ttwo\t"), "{}", lines[1]);
}

#[test]
fn lines_of_many_threads_are_all_written_each_threads_in_its_order() {
    const THREADS: usize = 4;
    const LINES: usize = 3 * writer::LINES_MAX / 2;
    let sink = Sink { delay: Duration::from_millis(1), ..Sink::default() };
    let options = Options { component: "test", format: Format::Plain, default_filter: "info".to_owned() };
    let (subscriber, handle) = build(options, Box::new(sink.clone())).unwrap();
    let dispatch = tracing::Dispatch::new(subscriber);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let dispatch = dispatch.clone();
            std::thread::spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || {
                    for line in 0..LINES {
                        record(Level::INFO, "test", "line", seen((thread * LINES + line) as u64));
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    handle.flush();
    let text = String::from_utf8(sink.bytes.lock().unwrap().clone()).unwrap();
    let mut next = [0; THREADS];
    for line in text.lines() {
        let n = line.split_once("bytes_sent=").unwrap().1.split_once(' ').unwrap().0.parse::<usize>().unwrap();
        let (thread, line) = (n / LINES, n % LINES);
        assert_eq!(line, next[thread]);
        next[thread] += 1;
    }
    assert_eq!(next, [LINES; THREADS]);
}

#[test]
fn what_is_logged_is_written_without_a_flush() {
    let sink = Sink::default();
    let options = Options { component: "test", format: Format::Plain, default_filter: "info".to_owned() };
    let (subscriber, handle) = build(options, Box::new(sink.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, || info!("soon"));
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while sink.bytes.lock().unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    drop(handle);
}
