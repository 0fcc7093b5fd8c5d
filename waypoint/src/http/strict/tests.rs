use proptest::prelude::*;

use super::*;

fn head(fields: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// The verdict on the whole at once, checked to be the same byte by byte.
fn verdict(bytes: &[u8]) -> Verdict {
    let whole = Strict::new().feed(bytes);
    let mut strict = Strict::new();
    let mut passed = 0;
    let mut single = Verdict::Fine;
    for byte in bytes {
        match strict.feed(std::slice::from_ref(byte)) {
            Verdict::Fine => passed += 1,
            Verdict::HoldAfter(more) => {
                passed += more;
                single = Verdict::HoldAfter(passed);
                break;
            }
            Verdict::Bad(_, fault) => {
                single = Verdict::Bad(passed, fault);
                break;
            }
        }
    }
    match (whole, single) {
        (Verdict::Bad(_, all), Verdict::Bad(_, one)) => assert_eq!(all, one, "{}", bytes.escape_ascii()),
        (all, one) => assert_eq!(all, one, "{}", bytes.escape_ascii()),
    }
    whole
}

fn fault(bytes: &[u8]) -> Option<Fault> {
    match verdict(bytes) {
        Verdict::Bad(_, fault) => Some(fault),
        Verdict::Fine | Verdict::HoldAfter(_) => None,
    }
}

#[test]
fn what_clients_send_passes() {
    let requests: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET /a?b=c HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nX-Empty:\r\nX-Tab:\ta\tb \r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA;name=value\r\n0123456789\r\n0\r\nx-t: v\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n\nGET / HTTP/1.1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nPUT / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ];
    for request in requests {
        assert_eq!(verdict(request), Verdict::Fine, "{}", request.escape_ascii());
    }
}

#[test]
fn waypoint_row_11_two_lengths_of_one_body_are_refused_before_the_head_ends() {
    for fields in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 0\r\n"]
    {
        let bytes = head(fields);
        let Verdict::Bad(passed, Fault::BothLengths) = verdict(&bytes) else { panic!("{fields}") };
        assert!(!bytes[..passed].ends_with(b"\r\n\r\n"), "the head got through");
    }
}

#[test]
fn lengths_are_one_decimal_number() {
    for value in ["+1", "-1", "0x10", "1, 1", "1 1", "", "1_0", "99999999999999999999", "18446744073709551615", "1\t2"]
    {
        assert_eq!(fault(&head(&format!("Content-Length: {value}\r\n"))), Some(Fault::Length), "{value:?}");
    }
    assert_eq!(fault(&head("Content-Length: 1\r\nContent-Length: 2\r\n")), Some(Fault::Length));
    assert_eq!(fault(&head("Content-Length: \t 0 \r\n")), None);
}

#[test]
fn transfer_encoding_is_chunked_or_nothing() {
    for value in ["gzip, chunked", "xchunked", "chunked, chunked", "chunked;q=1", "identity", "\"chunked\"", ""] {
        assert_eq!(fault(&head(&format!("Transfer-Encoding: {value}\r\n"))), Some(Fault::Encoding), "{value:?}");
    }
    assert_eq!(fault(&head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")), Some(Fault::Encoding));
    assert_eq!(fault(&head("Transfer-Encoding : chunked\r\n")), Some(Fault::Name));
    assert_eq!(fault(&head("Transfer-Encoding:\r\n chunked\r\n")), Some(Fault::Encoding));
}

#[test]
fn lines_end_in_crlf_and_begin_with_a_name() {
    let bad: &[(&[u8], Fault)] = &[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::BareLineFeed),
        (b"\nGET / HTTP/1.1\r\n\r\n", Fault::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Fault::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Fault::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Fault::Folded),
        (b"GET / HTTP/1.1\r\n\tfolded: a\r\n\r\n", Fault::Folded),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Fault::Name),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", Fault::Name),
        (b"GET / HTTP/1.1\r\nHo\xc3st: a\r\n\r\n", Fault::Name),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", Fault::Name),
        (b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", Fault::Control),
        (b"GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n", Fault::Control),
        (b"GET /\0 HTTP/1.1\r\n\r\n", Fault::Control),
        (b"GET /\t HTTP/1.1\r\n\r\n", Fault::Control),
        (b"GET /#f HTTP/1.1\r\n\r\n", Fault::Fragment),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", Fault::BlankLines),
    ];
    for (bytes, expected) in bad {
        assert_eq!(fault(bytes), Some(*expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn chunks_end_where_they_say() {
    let chunked = |body: &str| [head("Transfer-Encoding: chunked\r\n"), body.as_bytes().to_vec()].concat();
    for (body, expected) in [
        ("\r\n", Fault::ChunkSize),
        ("g\r\n", Fault::ChunkSize),
        ("-1\r\n", Fault::ChunkSize),
        ("0x1\r\n", Fault::ChunkSize),
        (" 1\r\n", Fault::ChunkSize),
        ("1 \r\n", Fault::ChunkSize),
        ("1\n", Fault::BareLineFeed),
        ("1\ra", Fault::BareCarriageReturn),
        ("1;a\n", Fault::BareLineFeed),
        ("1;a\0", Fault::Control),
        ("fffffffffffffffff\r\n", Fault::ChunkSize),
        ("1\r\nab", Fault::ChunkEnd),
        ("1\r\na\n", Fault::ChunkEnd),
        ("1\r\na\rx", Fault::ChunkEnd),
        ("0\r\nbad name: v\r\n\r\n", Fault::Name),
        ("0\r\nx: v\n\r\n", Fault::BareLineFeed),
    ] {
        assert_eq!(fault(&chunked(body)), Some(expected), "{body:?}");
    }
    let extension = |bytes: usize| chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes)));
    assert_eq!(fault(&extension(CHUNK_EXTENSION_BYTES_MAX as usize)), None);
    assert_eq!(fault(&extension(CHUNK_EXTENSION_BYTES_MAX as usize + 1)), Some(Fault::ChunkExtension));
    let trailers = |bytes: usize| chunked(&format!("0\r\nx:{}\r\n\r\n", "y".repeat(bytes - 1)));
    assert_eq!(fault(&trailers(TRAILER_BYTES_MAX as usize)), None);
    assert_eq!(fault(&trailers(TRAILER_BYTES_MAX as usize + 1)), Some(Fault::Trailers));
}

#[test]
fn what_follows_an_upgrade_waits_for_its_answer() {
    let upgrade = head("Connection: Upgrade\r\nUpgrade: WebSocket\r\n");
    let bytes = [upgrade.clone(), b"GET /smuggled HTTP/1.1\r\n\r\n".to_vec()].concat();
    assert_eq!(verdict(&bytes), Verdict::HoldAfter(upgrade.len()));
    let mut strict = Strict::new();
    assert_eq!(strict.feed(&upgrade), Verdict::HoldAfter(upgrade.len()));
    assert_eq!(strict.feed(b"x"), Verdict::HoldAfter(0));
    assert_eq!(verdict(b"CONNECT a:1 HTTP/1.1\r\n\r\nx"), Verdict::HoldAfter(24));
    let padded = head(&format!("Connection: Upgrade\r\nUpgrade: websocket{}\r\n", " ".repeat(40)));
    assert_eq!(verdict(&[padded.clone(), b"x".to_vec()].concat()), Verdict::HoldAfter(padded.len()));
}

#[test]
fn an_upgrade_to_something_else_or_with_a_body_does_not_wait() {
    assert_eq!(verdict(&head("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")), Verdict::Fine);
    let bytes = [head("Upgrade: websocket\r\nContent-Length: 1\r\n"), b"a".to_vec(), head("")].concat();
    assert_eq!(verdict(&bytes), Verdict::Fine);
}

#[test]
fn only_within_a_head_is_the_clock_running() {
    let mut strict = Strict::new();
    assert!(!strict.in_head());
    strict.feed(b"GET / HT");
    assert!(strict.in_head());
    strict.feed(b"TP/1.1\r\nTransfer-Encoding: chunked\r\n");
    assert!(strict.in_head());
    strict.feed(b"\r\n");
    assert!(!strict.in_head());
    strict.feed(b"0\r\nx: y");
    assert!(!strict.in_head(), "trailers belong to the body");
}

proptest! {
    /// Whatever the bytes and however they are cut, the verdict is the same.
    #[test]
    fn cuts_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        verdict(&bytes);
    }

    /// Bodies are passed over to the byte, whatever is in them.
    #[test]
    fn the_next_request_begins_where_the_body_ends(body in prop::collection::vec(any::<u8>(), 1..100)) {
        let sized = [head(&format!("Content-Length: {}\r\n", body.len())), body.clone(), head("")].concat();
        prop_assert_eq!(verdict(&sized), Verdict::Fine);
        let size = format!("{:X}\r\n", body.len()).into_bytes();
        let end = b"\r\n0\r\n\r\n".to_vec();
        let chunked = [head("Transfer-Encoding: chunked\r\n"), size, body, end, head("")].concat();
        prop_assert_eq!(verdict(&chunked), Verdict::Fine);
    }
}
