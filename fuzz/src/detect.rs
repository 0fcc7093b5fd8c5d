//! The first bytes of a connection to a waypoint: HTTP or not.

use httparse::{EMPTY_HEADER, Request, Status};
use waypoint::detect::{Sniffed, detect, sniff};

use crate::pieces::{Pieces, cuts, now, rest};

/// What was once clear stays so, however the bytes come; a request that another parser finds is HTTP.
pub fn run(bytes: &[u8]) {
    let whole = sniff(bytes);
    let mut before = Sniffed::More;
    for end in (0..=bytes.len().min(PREFIX_BYTES_MAX)).chain([bytes.len()]) {
        let found = sniff(bytes.get(..end).unwrap_or_default());
        assert!(before == Sniffed::More || before == found, "{before:?} became {found:?} at {end}");
        before = found;
    }
    let wanted = if whole == Sniffed::More { Sniffed::Other } else { whole };
    for (first, length) in cuts(bytes) {
        now(async {
            let read = detect(Pieces::new(bytes, first, length), None).await;
            let (found, replay) = read.expect("pieces are read without fail");
            assert_eq!(found, wanted, "in pieces of {first} and {length}");
            assert!(rest(replay).await == bytes, "nothing is taken from the stream");
        });
    }
    if let Some(method_bytes) = request(bytes) {
        assert_eq!(whole == Sniffed::Http1, method_bytes <= METHOD_BYTES_MAX, "{whole:?}");
    }
}

/// The length of the method, if the bytes begin with a request as another parser reads it.
fn request(bytes: &[u8]) -> Option<usize> {
    // That parser passes over blank lines; a connection that begins so has no protocol that we would know.
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return None;
    }
    let mut headers = [EMPTY_HEADER; 64];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => request.method.map(str::len),
        _ => None,
    }
}

/// Decisions are looked for at every length up to this.
const PREFIX_BYTES_MAX: usize = 1 << 9;
/// As the waypoint has it.
const METHOD_BYTES_MAX: usize = 32;
