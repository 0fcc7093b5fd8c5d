//! The guard before the HTTP/1 parser of a waypoint: whatever it lets through, another parser cuts into the same requests.

use httparse::{EMPTY_HEADER, Error, Request, Status, parse_chunk_size, parse_headers};
use waypoint::http::strict::{Strict, Verdict};

/// The verdict is the same however the bytes come, and what passes begins and ends where it does for another parser.
pub fn run(bytes: &[u8]) {
    let (heads, verdict) = byte_by_byte(bytes);
    let step = bytes.len() / CUTS_MAX + 1;
    for cut in (0..=bytes.len()).step_by(step) {
        agree(in_two(bytes, cut), verdict, cut);
    }
    let passed = match verdict {
        Verdict::Fine => bytes.len(),
        Verdict::HoldAfter(passed) | Verdict::Bad(passed, _) => passed,
    };
    let held = matches!(verdict, Verdict::HoldAfter(_));
    Reader { rest: bytes.get(..passed).unwrap_or_default(), passed: 0 }.follow(&heads, held);
}

/// Where a head begins and where it ends, if it does.
type Head = (usize, Option<usize>);

fn byte_by_byte(bytes: &[u8]) -> (Vec<Head>, Verdict) {
    let (mut strict, mut heads) = (Strict::new(), Vec::<Head>::new());
    for (at, byte) in bytes.iter().enumerate() {
        let was_in_head = strict.in_head();
        match strict.feed(std::slice::from_ref(byte)) {
            Verdict::Fine | Verdict::HoldAfter(1) => {}
            Verdict::HoldAfter(_) => return (heads, Verdict::HoldAfter(at)),
            Verdict::Bad(passed, fault) => {
                assert_eq!(passed, 0, "the bad byte passed");
                return (heads, Verdict::Bad(at, fault));
            }
        }
        match (was_in_head, strict.in_head()) {
            (false, true) => heads.push((at, None)),
            (true, false) => heads.last_mut().expect("a head has begun").1 = Some(at + 1),
            _ => {}
        }
    }
    // Nothing follows what would have to wait.
    let held = strict.feed(b"G") == Verdict::HoldAfter(0);
    (heads, if held { Verdict::HoldAfter(bytes.len()) } else { Verdict::Fine })
}

/// The verdict on bytes that come in two pieces.
fn in_two(bytes: &[u8], cut: usize) -> Verdict {
    let (one, two) = bytes.split_at(cut);
    let mut strict = Strict::new();
    match strict.feed(one) {
        Verdict::Fine => match strict.feed(two) {
            Verdict::Fine => Verdict::Fine,
            Verdict::HoldAfter(passed) => Verdict::HoldAfter(cut + passed),
            Verdict::Bad(passed, fault) => Verdict::Bad(cut + passed, fault),
        },
        ended => ended,
    }
}

/// The same verdict; only, of bytes that come together fewer may pass before the bad one.
fn agree(found: Verdict, wanted: Verdict, cut: usize) {
    match (found, wanted) {
        (Verdict::Bad(fewer, found), Verdict::Bad(passed, wanted)) => {
            assert_eq!(found, wanted, "cut at {cut}");
            assert!(fewer <= passed, "{fewer} pass at once, {passed} byte by byte, cut at {cut}");
        }
        _ => assert_eq!(found, wanted, "cut at {cut}"),
    }
}

/// Reads what passed, as somebody behind us would.
struct Reader<'a> {
    rest: &'a [u8],
    passed: usize,
}

impl Reader<'_> {
    fn follow(mut self, heads: &[Head], held: bool) {
        for (n, (begin, end)) in heads.iter().enumerate() {
            assert_eq!(self.passed, *begin, "where head {n} begins");
            let Some((length, body)) = self.head() else { return };
            assert_eq!(*end, length.map(|length| begin + length), "where head {n} ends");
            let Some(length) = length else { return };
            self.take(length);
            let is_last = n + 1 == heads.len();
            match body {
                Body::Waits => assert!(held && is_last, "head {n} must wait for its answer"),
                Body::MayWait => {}
                _ => assert!(!held || !is_last, "head {n} need not wait for its answer"),
            }
            match body {
                Body::Sized(length) => self.take(usize::try_from(length).unwrap_or(usize::MAX)),
                Body::Chunked => self.chunks(),
                Body::None | Body::Waits | Body::MayWait => {}
            }
        }
        assert!(self.rest.is_empty(), "another request: {}", self.rest.escape_ascii());
    }

    /// The length of the head at hand, if it is all there, and what follows it; nothing if no parser would take it.
    fn head(&self) -> Option<(Option<usize>, Body)> {
        let mut headers = [EMPTY_HEADER; FIELDS_MAX];
        let mut request = Request::new(&mut headers);
        match request.parse(self.rest) {
            Ok(Status::Complete(length)) => Some((Some(length), body(&request))),
            Ok(Status::Partial) => Some((None, Body::None)),
            // The first line is the parser's to judge, and so is how many fields there may be.
            Err(Error::Token | Error::Version | Error::NewLine | Error::TooManyHeaders) => None,
            Err(error) => panic!("{error} in {}", self.rest.escape_ascii()),
        }
    }

    fn take(&mut self, bytes: usize) {
        let taken = bytes.min(self.rest.len());
        self.rest = self.rest.split_at(taken).1;
        self.passed += taken;
    }

    fn chunks(&mut self) {
        loop {
            let Ok(read) = parse_chunk_size(self.rest) else { panic!("size in {}", self.rest.escape_ascii()) };
            let Status::Complete((line, size)) = read else { return self.take(usize::MAX) };
            self.take(line);
            if size == 0 {
                return self.trailers();
            }
            self.take(usize::try_from(size).unwrap_or(usize::MAX));
            let end = self.rest.get(..2).unwrap_or(self.rest);
            assert!(b"\r\n".starts_with(end), "a chunk ends in {}", end.escape_ascii());
            self.take(2);
        }
    }

    fn trailers(&mut self) {
        let mut headers = [EMPTY_HEADER; FIELDS_MAX];
        match parse_headers(self.rest, &mut headers) {
            Ok(Status::Complete((length, _))) => self.take(length),
            Ok(Status::Partial) => self.take(usize::MAX),
            // The end is where it is, however many there are.
            Err(Error::TooManyHeaders) => self.skip_trailers(),
            Err(error) => panic!("{error} in {}", self.rest.escape_ascii()),
        }
    }

    fn skip_trailers(&mut self) {
        let end = self.rest.windows(4).position(|end| end == b"\r\n\r\n");
        self.take(end.map_or(usize::MAX, |end| end + 4));
    }
}

/// What follows a head.
enum Body {
    None,
    Sized(u64),
    Chunked,
    /// What the client says next is for whoever takes the connection over.
    Waits,
    /// It asks to become something else.
    MayWait,
}

/// As the head says, which must leave no choice.
fn body(request: &Request<'_, '_>) -> Body {
    let values = |name: &'static str| {
        let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.trim_ascii())
    };
    let lengths: Vec<u64> = values("content-length").map(number).collect();
    let codings: Vec<&[u8]> = values("transfer-encoding").collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"), "{}", coding.escape_ascii());
            return Body::Chunked;
        }
        (lengths, []) => {
            let length = lengths.first().copied().unwrap_or_default();
            assert!(lengths.iter().all(|one| *one == length), "{lengths:?}");
            if length > 0 {
                return Body::Sized(length);
            }
        }
        _ => panic!("{} lengths and {} codings", lengths.len(), codings.len()),
    }
    let waits = values("upgrade").any(|value| value.eq_ignore_ascii_case(b"websocket"))
        || request.method.is_some_and(|method| method.eq_ignore_ascii_case("connect"));
    match values("upgrade").next() {
        _ if waits => Body::Waits,
        Some(_) => Body::MayWait,
        None => Body::None,
    }
}

fn number(digits: &[u8]) -> u64 {
    assert!(digits.iter().all(u8::is_ascii_digit), "{}", digits.escape_ascii());
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).expect("a length is a number")
}

/// More than these the parser refuses.
const FIELDS_MAX: usize = 128;
const CUTS_MAX: usize = 128;
