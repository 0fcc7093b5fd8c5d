//! The TLS hello of whoever connects to a gateway.

use rustls::pki_types::DnsName;
use rustls::server::Acceptor;
use waypoint::listener::hello::{Hello, read};

use crate::pieces::{Pieces, cuts, now, rest};

/// The server name is the same however the hello comes, and the one that two other readers find.
pub fn run(bytes: &[u8]) {
    let whole = found(bytes, (0, usize::MAX));
    for cut in cuts(bytes) {
        assert_eq!(found(bytes, cut), whole, "in pieces of {cut:?}");
    }
    if let Some(accepted) = accepted(bytes) {
        assert_eq!(whole, Hello::Tls(accepted.map(|name| plain(&name).into())));
    }
    if let Hello::Tls(name) = whole {
        let wanted = server_name(&handshake(bytes)).map(|name| plain(&name));
        // An address is no name, and neither is text that no name server would know.
        let wanted = wanted.filter(|name| DnsName::try_from(name.as_str()).is_ok());
        assert_eq!(name.as_deref(), wanted.as_deref(), "in {}", bytes.escape_ascii());
    }
}

fn found(bytes: &[u8], (first, length): (usize, usize)) -> Hello {
    now(async {
        let (hello, replay) = read(Pieces::new(bytes, first, length)).await.expect("pieces are read without fail");
        assert!(rest(replay).await == bytes, "nothing is taken from the stream");
        hello
    })
}

/// What the TLS server itself would make of these bytes; nothing if it wants more of them, or none.
fn accepted(mut bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    while acceptor.read_tls(&mut bytes).is_ok_and(|read| read > 0) {}
    let accepted = acceptor.accept().ok()??;
    Some(accepted.client_hello().server_name().map(str::to_owned))
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The first handshake message, put together from its records (RFC 8446 section 5.1).
fn handshake(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let Some((header, more)) = bytes.split_at_checked(5) {
        let Some((fragment, more)) = header.get(3..).and_then(|length| more.split_at_checked(number(length))) else {
            break;
        };
        message.extend(fragment);
        bytes = more;
    }
    message
}

/// Looks for the name at the place where it must be (RFC 8446 section 4.1.2, RFC 6066 section 3).
fn server_name(message: &[u8]) -> Option<String> {
    // The type of the message, its length, a version and a random.
    let (_, mut rest) = message.split_at_checked(4 + 2 + 32)?;
    block(&mut rest, 1)?;
    block(&mut rest, 2)?;
    block(&mut rest, 1)?;
    let mut extensions = block(&mut rest, 2)?;
    while let Some((kind, more)) = extensions.split_at_checked(2) {
        extensions = more;
        let mut body = block(&mut extensions, 2)?;
        if number(kind) == 0 {
            let (kind, mut names) = block(&mut body, 2)?.split_at_checked(1)?;
            if number(kind) != 0 {
                return None;
            }
            return block(&mut names, 2).and_then(|name| String::from_utf8(name.to_vec()).ok());
        }
    }
    None
}

/// Takes what is `width` bytes of length and then so many bytes.
fn block<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let (length, more) = rest.split_at_checked(width)?;
    let (block, more) = more.split_at_checked(number(length))?;
    *rest = more;
    Some(block)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
