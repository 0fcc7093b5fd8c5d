//! Heads of HTTP/1 requests that must not be understood in two ways, and never get anywhere.

use futures::future::join_all;

use crate::isolate::isolated_test;
use crate::raw::{self, talk};
use crate::recorder::Recorder;
use crate::resources::Service;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);

/// Bytes that are refused with a status (400 stands for 400 or, where the specification leaves the choice, 501), the end
/// of the connection, and nothing for the upstream.
async fn refused(cases: &[(&str, Vec<u8>, u16)]) {
    let app = Recorder::start(APP.target).await;
    let _world = World::one(APP).await;
    let answers = join_all(cases.iter().map(|(_, bytes, _)| talk(PORT, bytes))).await;
    let mut faults = Vec::new();
    for ((name, _, status), answer) in cases.iter().zip(answers) {
        let as_said = answer.status == Some(*status) || (*status == 400 && answer.status == Some(501));
        if !as_said || !answer.closed || answer.responses() > 1 {
            faults.push(format!("{name}: expected {status} and the end, got {answer:?}"));
        }
    }
    faults.extend(app.heads().into_iter().map(|head| format!("the upstream got {head:?}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Whoever keeps to the rules is served as ever.
    assert_eq!(raw::get(PORT, "/fine").await.status, Some(200));
    assert_eq!(app.targets(), ["/fine"]);
}

/// A request with these lines after `host`, and a second request in its body.
fn lines(lines: &str) -> Vec<u8> {
    format!("POST /bad HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")
        .into_bytes()
}

/// A request with this line in place of the first.
fn first(line: &str) -> Vec<u8> {
    format!("{line}\r\nhost: x\r\n\r\n").into_bytes()
}

/// A request with these hosts.
fn hosts(hosts: &str) -> Vec<u8> {
    format!("GET /bad HTTP/1.1\r\n{hosts}\r\n\r\n").into_bytes()
}

fn all<'a>(cases: &[(&'a str, Vec<u8>)]) -> Vec<(&'a str, Vec<u8>, u16)> {
    cases.iter().map(|(name, bytes)| (*name, bytes.clone(), 400)).collect()
}

isolated_test! {
    async fn waypoint_row_11_a_body_with_two_lengths_goes_nowhere() {
        refused(&all(&[
            ("length, then chunks", lines("content-length: 5\r\ntransfer-encoding: chunked")),
            ("chunks, then length", lines("transfer-encoding: chunked\r\ncontent-length: 5")),
            ("length 0 and chunks", lines("content-length: 0\r\ntransfer-encoding: chunked")),
            ("length and chunks, in capitals", lines("CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED")),
            ("two lengths", lines("content-length: 5\r\ncontent-length: 6")),
            ("two lengths, far apart", lines("content-length: 5\r\na: b\r\nContent-Length: 50")),
            ("list of lengths", lines("content-length: 5, 6")),
            ("list of the same length", lines("content-length: 5, 5")),
            ("plus", lines("content-length: +5")),
            ("minus", lines("content-length: -5")),
            ("hexadecimal", lines("content-length: 0x5")),
            ("fraction", lines("content-length: 5.0")),
            ("space within", lines("content-length: 5 5")),
            ("word", lines("content-length: five")),
            ("empty", lines("content-length:")),
            ("more than any number", lines("content-length: 99999999999999999999999")),
        ]))
        .await;
    }
}

isolated_test! {
    async fn codings_other_than_chunked_go_nowhere() {
        refused(&all(&[
            ("gzip, chunked", lines("transfer-encoding: gzip, chunked")),
            ("gzip", lines("transfer-encoding: gzip")),
            ("identity", lines("transfer-encoding: identity")),
            ("chunked twice", lines("transfer-encoding: chunked, chunked")),
            ("chunked on two lines", lines("transfer-encoding: chunked\r\ntransfer-encoding: chunked")),
            ("chunked and identity", lines("transfer-encoding: chunked\r\ntransfer-encoding: identity")),
            ("chunked, identity", lines("transfer-encoding: chunked, identity")),
            ("xchunked", lines("transfer-encoding: xchunked")),
            ("chunkedx", lines("transfer-encoding: chunkedx")),
            ("parameter", lines("transfer-encoding: chunked;x=1")),
            ("quoted", lines("transfer-encoding: \"chunked\"")),
            ("comma before", lines("transfer-encoding: ,chunked")),
            ("comma after", lines("transfer-encoding: chunked,")),
            ("vertical tab before", lines("transfer-encoding: \x0bchunked")),
            ("folded", lines("transfer-encoding:\r\n chunked")),
            ("empty", lines("transfer-encoding:")),
        ]))
        .await;
    }
}

isolated_test! {
    async fn lines_that_are_no_header_lines_go_nowhere() {
        refused(&all(&[
            ("folded", lines("a: b\r\n c")),
            ("folded with tab", lines("a: b\r\n\tc")),
            ("first line folded", b"GET /bad HTTP/1.1\r\n host: x\r\n\r\n".to_vec()),
            ("bare CR in a value", lines("a: b\rc: d")),
            ("bare CR in a name", lines("a\r: b")),
            ("bare CR in the first line", first("GET /bad\r HTTP/1.1")),
            ("bare LF ends the first line", b"GET /bad HTTP/1.1\nhost: x\r\n\r\n".to_vec()),
            ("bare LF ends a header", b"GET /bad HTTP/1.1\r\nhost: x\na: b\r\n\r\n".to_vec()),
            ("bare LF ends the head", b"GET /bad HTTP/1.1\r\nhost: x\r\n\n".to_vec()),
            ("NUL in a value", lines("a: b\0c")),
            ("NUL in a name", lines("a\0: b")),
            ("NUL in the target", first("GET /b\0d HTTP/1.1")),
            ("DEL in a value", lines("a: b\x7fc")),
            ("space before the colon", lines("content-length : 5")),
            ("tab before the colon", lines("transfer-encoding\t: chunked")),
            ("space in the name", lines("a b: c")),
            ("no colon", lines("a")),
            ("no name", lines(": a")),
            ("name that is no token", lines("a(b): c")),
            ("name with bytes beyond ASCII", lines("a\u{e4}: c")),
        ]))
        .await;
    }
}

isolated_test! {
    async fn first_lines_that_mean_nothing_go_nowhere() {
        refused(&all(&[
            ("lower case", first("get /bad HTTP/1.1")),
            ("unknown", first("BREWED /bad HTTP/1.1")),
            ("no token", first("G@T(S) /bad HTTP/1.1")),
            ("space in the target", first("GET /bad /bad HTTP/1.1")),
            ("two spaces", first("GET  /bad HTTP/1.1")),
            ("tab", first("GET\t/bad\tHTTP/1.1")),
            ("no version", first("GET /bad")),
            ("no target", first("GET HTTP/1.1")),
            ("HTTP/2.0", first("GET /bad HTTP/2.0")),
            ("HTTP/1.2", first("GET /bad HTTP/1.2")),
            ("HTTP/1.1x", first("GET /bad HTTP/1.1x")),
            ("http/1.1", first("GET /bad http/1.1")),
            ("HTTP/01.1", first("GET /bad HTTP/01.1")),
            ("fragment", first("GET /bad#part HTTP/1.1")),
            ("relative", first("GET bad HTTP/1.1")),
            ("star", first("GET * HTTP/1.1")),
            ("NUL, encoded", first("GET /b%00d HTTP/1.1")),
            ("foreign scheme", first("GET ftp://x/bad HTTP/1.1")),
            ("file", first("GET file:///bad HTTP/1.1")),
            ("user in the authority", first("GET http://me@x/bad HTTP/1.1")),
        ]))
        .await;
    }
}

isolated_test! {
    async fn requests_for_no_host_or_for_several_go_nowhere() {
        refused(&all(&[
            ("none", hosts("a: b")),
            ("twice the same", hosts("host: x\r\nhost: x")),
            ("two", hosts("host: x\r\nhost: y")),
            ("list", hosts("host: x, y")),
            ("user", hosts("host: me@x")),
            ("space", hosts("host: x y")),
            ("path", hosts("host: x/y")),
            ("port that is none", hosts("host: x:y")),
            ("port too great", hosts("host: x:99999")),
            ("connection names host", hosts("host: x\r\nconnection: host")),
            ("connection names a length", hosts("host: x\r\ncontent-length: 0\r\nconnection: close, content-length")),
            ("connection names credentials", hosts("host: x\r\nconnection: Authorization")),
            ("connection names the client", hosts("host: x\r\nconnection: x-forwarded-for")),
            ("connection names a pseudo header", hosts("host: x\r\nconnection: :authority")),
        ]))
        .await;
    }
}

isolated_test! {
    async fn heads_that_are_too_large_are_answered_with_431() {
        let many: String = (0..120).map(|number| format!("x-{number}: a\r\n")).collect();
        let large = "a".repeat(70 << 10);
        let cases = [
            ("one large value", lines(&format!("a: {large}")), 431),
            ("one large name", lines(&format!("{large}: a")), 431),
            ("many fields", lines(many.trim_end()), 431),
            ("large target", first(&format!("GET /{large} HTTP/1.1")), 431),
        ];
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let answers = join_all(cases.iter().map(|(_, bytes, _)| talk(PORT, bytes))).await;
        for ((name, _, status), answer) in cases.iter().zip(answers) {
            // A target may have a status of its own.
            let as_said = answer.status == Some(*status) || (*name == "large target" && answer.status == Some(414));
            assert!(as_said && !answer.text.contains("/smuggled"), "{name}: {answer:?}");
        }
        assert!(app.heads().is_empty(), "{:?}", app.heads());
        let fits: String = (0..90).map(|number| format!("x-{number}: a\r\n")).collect();
        let fine = format!("GET /fine HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fits}\r\n");
        assert_eq!(talk(PORT, fine.as_bytes()).await.status, Some(200));
    }
}

isolated_test! {
    async fn waypoint_row_19_http_1_0_is_asked_to_upgrade() {
        refused(&[
            ("1.0", first("GET /bad HTTP/1.0"), 426),
            ("1.0 without host", b"GET /bad HTTP/1.0\r\n\r\n".to_vec(), 426),
            ("1.0 that wants to stay", b"GET /bad HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n".to_vec(), 426),
        ])
        .await;
    }
}

isolated_test! {
    async fn the_authority_of_an_absolute_target_replaces_the_host() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let request = "GET http://right.example/a?b=c HTTP/1.1\r\nhost: wrong.example\r\nconnection: close\r\n\r\n";
        assert_eq!(talk(PORT, request.as_bytes()).await.status, Some(200));
        let request = "GET http://right.example HTTP/1.1\r\nhost: wrong.example\r\nconnection: close\r\n\r\n";
        assert_eq!(talk(PORT, request.as_bytes()).await.status, Some(200));
        assert_eq!(app.targets(), ["/a?b=c", "/"]);
        for head in app.heads() {
            assert!(head.contains("host: right.example\r\n") && !head.contains("wrong"), "{head}");
        }
    }
}

isolated_test! {
    async fn waypoint_row_17_what_steers_the_proxy_is_not_taken_from_clients() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let request = "GET /status/503 HTTP/1.1\r\nhost: x\r\nx-envoy-max-retries: 10\r\nx-envoy-retry-on: 5xx\r\n\
             x-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-original-url: /x\r\nx-forwarded-client-cert: By=evil\r\n\
             keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: gzip, trailers\r\nx-mine: 1\r\nx-kept: 1\r\n\
             connection: close, x-mine\r\n\r\n";
        assert_eq!(talk(PORT, request.as_bytes()).await.status, Some(503));
        let heads = app.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        for absent in ["max-retries", "retry-on", "rq-timeout", "original-url", "evil", "keep-alive", "x-mine", "gzip"] {
            assert!(!heads[0].contains(absent), "{absent}: {}", heads[0]);
        }
        assert!(heads[0].contains("x-kept: 1\r\n"), "{}", heads[0]);
    }
}
