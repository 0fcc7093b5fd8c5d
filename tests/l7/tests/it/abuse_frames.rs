//! HTTP/2 requests that are malformed: their stream ends, and nothing of them gets anywhere.

use futures::future::join_all;

use crate::frames::{self, Client, DATA, END_STREAM, End, HEADERS, block, frame, headers, request};
use crate::isolate::isolated_test;
use crate::recorder::Recorder;
use crate::resources::Service;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);
const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/bad")];

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    request(1, &[&GOOD, more].concat())
}

/// Each is ended by a reset, the end of the connection, or 400.
async fn refused(cases: Vec<(&str, Vec<u8>)>) {
    let app = Recorder::start(APP.target).await;
    let _world = World::one(APP).await;
    let tries = cases.iter().map(async |(name, bytes)| {
        let mut client = Client::open(PORT).await;
        client.send(bytes).await;
        (*name, client.end(1).await)
    });
    let mut faults = Vec::new();
    for (name, end) in join_all(tries).await {
        if !matches!(end, End::Status(400 | 431) | End::Reset(1..) | End::GoAway(1..) | End::Closed) {
            faults.push(format!("{name}: {end:?}"));
        }
    }
    faults.extend(app.heads().into_iter().map(|head| format!("the upstream got {head:?}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let mut client = Client::open(PORT).await;
    client.send(&request(1, &[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/fine")])).await;
    assert_eq!(client.end(1).await, End::Status(200));
    assert_eq!(app.targets(), ["/fine"]);
}

isolated_test! {
    async fn pseudo_headers_that_are_wrong_go_nowhere() {
        let without = |name: &str| {
            let fields: Vec<_> = GOOD.iter().filter(|field| field.0 != name).copied().collect();
            request(1, &fields)
        };
        let as_path = |path| request(1, &[GOOD[0], GOOD[1], GOOD[2], (":path", path)]);
        let as_authority = |value| request(1, &[GOOD[0], GOOD[1], (":authority", value), GOOD[3]]);
        let as_method = |value| request(1, &[(":method", value), GOOD[1], GOOD[2], GOOD[3]]);
        refused(vec![
            ("no method", without(":method")),
            ("no scheme", without(":scheme")),
            ("no path", without(":path")),
            ("empty path", as_path("")),
            ("two methods", with(&[(":method", "POST")])),
            ("two paths", request(1, &[GOOD[0], GOOD[1], GOOD[2], GOOD[3], (":path", "/other")])),
            ("two authorities", request(1, &[GOOD[0], GOOD[1], GOOD[2], (":authority", "y"), GOOD[3]])),
            ("after a header", request(1, &[GOOD[0], GOOD[1], GOOD[2], ("a", "b"), GOOD[3]])),
            ("unknown", with(&[(":other", "x")])),
            ("of a response", with(&[(":status", "200")])),
            ("relative path", as_path("bad")),
            ("star", as_path("*")),
            ("space in the path", as_path("/bad /bad")),
            ("version in the path", as_path("/bad HTTP/1.1\r\nhost: y\r\n\r\n")),
            ("NUL, encoded", as_path("/b%00d")),
            ("user", as_authority("me@x")),
            ("list", as_authority("x, y")),
            ("line end in the authority", as_authority("x\r\na: b")),
            ("lower-case method", as_method("get")),
            ("method with a space", as_method("GET /smuggled HTTP/1.1\r\n")),
            ("method that is no token", as_method("G@T(")),
            ("scheme with a line end", request(1, &[GOOD[0], (":scheme", "http\r\n"), GOOD[2], GOOD[3]])),
            ("another host", with(&[("host", "y")])),
        ])
        .await;
    }
}

isolated_test! {
    async fn headers_that_split_messages_or_belong_to_connections_go_nowhere() {
        refused(vec![
            ("upper case", with(&[("X-Upper", "a")])),
            ("connection", with(&[("connection", "close")])),
            ("keep-alive", with(&[("keep-alive", "timeout=5")])),
            ("proxy-connection", with(&[("proxy-connection", "close")])),
            ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
            ("upgrade", with(&[("upgrade", "websocket")])),
            ("CR in a value", with(&[("a", "b\rc")])),
            ("LF in a value", with(&[("a", "b\nc")])),
            ("CRLF in a value", with(&[("a", "b\r\nhost: y")])),
            ("NUL in a value", with(&[("a", "b\0c")])),
            ("space in a name", with(&[("a b", "c")])),
            ("colon in a name", with(&[("a:b", "c")])),
            ("CRLF in a name", with(&[("a\r\nb", "c")])),
            ("no name", with(&[("", "c")])),
            ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
            ("length that is no number", with(&[("content-length", "x")])),
            ("length without a body", with(&[("content-length", "5")])),
        ])
        .await;
    }
}

isolated_test! {
    async fn header_sections_that_are_too_large_go_nowhere() {
        let many: Vec<_> = (0..120).map(|number| (format!("x-{number}"), "a")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let large = "a".repeat(70 << 10);
        // An entry of the table that is named again and again: a few bytes that stand for many.
        let mut bomb = block(&GOOD);
        bomb.extend([0x40, 1, b'a', 0x7f]);
        bomb.extend([0x81, 0x1e]);
        bomb.extend("b".repeat(127 + 0x81 % 128 + 0x1e * 128).as_bytes());
        bomb.extend(std::iter::repeat_n(0xbe, 15_000));
        refused(vec![
            ("many fields", with(&many)),
            ("one large value", with(&[("a", &large)])),
            ("bomb", headers(1, END_STREAM, &bomb)),
        ])
        .await;
    }
}

isolated_test! {
    async fn frames_out_of_order_end_the_connection() {
        refused(vec![
            ("data on no stream", frame(DATA, END_STREAM, 1, b"hello")),
            ("data on stream 0", frame(DATA, 0, 0, b"hello")),
            ("headers on stream 0", headers(0, END_STREAM, &block(&GOOD))),
            ("headers on an even stream", headers(2, END_STREAM, &block(&GOOD))),
            ("continuation of nothing", frame(frames::CONTINUATION, 4, 1, &block(&GOOD))),
            ("frame among continuations", [
                frame(HEADERS, END_STREAM, 1, &block(&GOOD)),
                frame(frames::PING, 0, 0, &[0; 8]),
            ]
            .concat()),
            ("more padding than bytes", frame(HEADERS, 1 | 4 | 8, 1, &[200, 0x82])),
            ("reset of no stream", frame(frames::RESET, 0, 1, &[0, 0, 0, 8])),
            ("settings of seven bytes", frame(frames::SETTINGS, 0, 0, &[0; 7])),
            ("settings on a stream", frame(frames::SETTINGS, 0, 1, &[])),
            ("window beyond any", frame(frames::SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
            ("ping of seven bytes", frame(frames::PING, 0, 0, &[0; 7])),
            ("window of nothing", frame(frames::WINDOW_UPDATE, 0, 0, &[0; 4])),
            ("window too large", frame(frames::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
            ("frame too large", frame(DATA, 0, 1, &vec![0; 20 << 10])),
            ("push", frame(5, 4, 1, &[0, 0, 0, 2])),
            ("index of no entry", headers(1, END_STREAM, &[0xff, 0xff, 0x7f])),
            ("number without end", headers(1, END_STREAM, &[0xff; 64])),
            ("larger table than allowed", headers(1, END_STREAM, &[&[0x3f, 0xe1, 0xff, 0x7f][..], &block(&GOOD)].concat())),
            ("larger table in between", headers(1, END_STREAM, &[&block(&GOOD)[..], &[0x3f, 0xe1, 0x01]].concat())),
            ("packed text with a wrong end", headers(1, END_STREAM, &[0, 1, b'a', 0x81, 0x00])),
            ("text that is cut off", headers(1, END_STREAM, &[0, 10, b'a'])),
            ("HTTP/1 in place of frames", b"GET /bad HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ])
        .await;
    }
}

isolated_test! {
    async fn a_body_of_another_length_than_said_is_never_complete() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let post = [(":method", "POST"), GOOD[1], GOOD[2], GOOD[3], ("content-length", "5")];
        for (name, body) in [("shorter", "abc"), ("longer", "abcdefgh")] {
            let mut client = Client::open(PORT).await;
            client.send(&[headers(1, 0, &block(&post)), frame(DATA, END_STREAM, 1, body.as_bytes())].concat()).await;
            let end = client.end(1).await;
            assert!(matches!(end, End::Reset(1..) | End::GoAway(1..) | End::Closed | End::Status(400)), "{name}: {end:?}");
        }
        assert!(!app.all().contains("abcde"), "{}", app.all());
        let mut client = Client::open(PORT).await;
        client.send(&[headers(1, 0, &block(&post)), frame(DATA, END_STREAM, 1, b"right")].concat()).await;
        assert_eq!(client.end(1).await, End::Status(200));
    }
}

isolated_test! {
    async fn connect_over_http_2_leads_nowhere() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        for target in ["127.0.0.1:9000", "x:80"] {
            let mut client = Client::open(PORT).await;
            let fields = [(":method", "CONNECT"), (":authority", target)];
            client.send(&[headers(1, 0, &block(&fields)), frame(DATA, 0, 1, b"GET /smuggled HTTP/1.1\r\n\r\n")].concat()).await;
            let end = client.end(1).await;
            assert!(matches!(end, End::Status(400 | 404) | End::Reset(_)), "{target}: {end:?}");
        }
        assert!(app.all().is_empty(), "{}", app.all());
    }
}
