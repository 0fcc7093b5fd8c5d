//! Applications that ask for a proxy by SOCKS, as any process of a pod may.

use std::net::{IpAddr, SocketAddr};

use ztunnel::socks::{Target, negotiate};

use crate::pieces::{Pieces, cuts, now, rest};

/// Whether there is a destination, which one, and what the client is told on the way do not depend on how its bytes come;
/// no byte of the application's own is taken; a second reader finds the same.
pub fn run(bytes: &[u8]) {
    let whole = heard(bytes, (0, usize::MAX));
    for cut in cuts(bytes) {
        assert_eq!(heard(bytes, cut), whole, "in pieces of {cut:?}");
    }
    let (target, told, left) = whole;
    let offered = offered(bytes);
    let answer: &[u8] = match offered {
        Some(methods) if methods.contains(&0) => &[5, 0],
        Some(_) => &[5, 0xff],
        None => &[],
    };
    assert_eq!(told, answer);
    let wanted = offered.filter(|methods| methods.contains(&0)).and_then(|methods| {
        let request = bytes.get(2 + methods.len()..)?;
        wanted(request)
    });
    assert_eq!(target, wanted.as_ref().map(|(target, _)| target.clone()));
    if let Some((_, rest)) = wanted {
        assert_eq!(left, rest, "what follows the request is the application's");
    }
}

/// The destination, what the client was told, and what was not read.
fn heard(bytes: &[u8], (first, length): (usize, usize)) -> (Option<Target>, Vec<u8>, Vec<u8>) {
    now(async {
        let mut stream = tokio::io::join(Pieces::new(bytes, first, length), Vec::new());
        let target = negotiate(&mut stream).await.ok();
        let (pieces, told) = stream.into_inner();
        (target, told, rest(pieces).await)
    })
}

/// The methods of a whole greeting.
fn offered(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [5, count, rest @ ..] => rest.get(..usize::from(*count)),
        _ => None,
    }
}

/// Where a request to connect leads, and what comes behind it (RFC 1928, section 4).
fn wanted(request: &[u8]) -> Option<(Target, &[u8])> {
    let [5, 1, _, kind, rest @ ..] = request else { return None };
    let (host, rest) = match kind {
        1 => rest.split_at_checked(4)?,
        3 => rest.split_first().and_then(|(length, rest)| rest.split_at_checked((*length).into()))?,
        4 => rest.split_at_checked(16)?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    let at = |ip: IpAddr| Target::Address(SocketAddr::new(ip.to_canonical(), port));
    let target = match (kind, host.len()) {
        (3, _) => {
            let name = std::str::from_utf8(host).ok()?;
            name.parse().map_or_else(|_| Target::Name(name.to_owned(), port), at)
        }
        (_, 4) => at(<[u8; 4]>::try_from(host).ok()?.into()),
        _ => at(<[u8; 16]>::try_from(host).ok()?.into()),
    };
    Some((target, rest))
}
