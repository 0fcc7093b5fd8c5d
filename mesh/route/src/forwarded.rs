//! Who the client is, when proxies in front of a gateway are trusted to say so.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::limits::FORWARDED_ENTRIES_MAX;

/// The client's address: with `trusted_proxies` in front, the entry of `x-forwarded-for` that the outermost of them
/// wrote; otherwise, and where that entry is no address, the connection's own.
#[must_use]
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted_proxies: u32) -> IpAddr {
    let Some(skip) = usize::try_from(trusted_proxies).ok().and_then(|trusted| trusted.checked_sub(1)) else {
        return peer;
    };
    if skip >= FORWARDED_ENTRIES_MAX {
        return peer;
    }
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
    let mut entries = values.flat_map(|value| value.rsplit(','));
    entries.nth(skip).and_then(address).unwrap_or(peer)
}

/// An entry: an address, in brackets or not, with or without a port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = || entry.parse().ok();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare().or_else(with_port).or_else(in_brackets).map(|ip: IpAddr| ip.to_canonical())
}

const X_FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_wrote_counts() {
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        for (values, trusted, expected) in [
            (vec!["1.1.1.1, 2.2.2.2"], 0, "10.0.0.9"),
            (vec!["1.1.1.1, 2.2.2.2"], 1, "2.2.2.2"),
            (vec!["1.1.1.1, 2.2.2.2"], 2, "1.1.1.1"),
            (vec!["1.1.1.1, 2.2.2.2"], 3, "10.0.0.9"),
            (vec!["1.1.1.1", "2.2.2.2"], 2, "1.1.1.1"),
            (vec!["evil, [2001:db8::1]:443"], 1, "2001:db8::1"),
            (vec!["[2001:db8::1]"], 1, "2001:db8::1"),
            (vec!["::ffff:1.2.3.4"], 1, "1.2.3.4"),
            (vec!["1.2.3.4:55"], 1, "1.2.3.4"),
            (vec!["evil"], 1, "10.0.0.9"),
            (vec![], 1, "10.0.0.9"),
            (vec!["1.1.1.1"], u32::MAX, "10.0.0.9"),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            let found = client_address(&headers, peer, trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{values:?} {trusted}");
        }
    }

    #[test]
    fn a_long_list_is_read_up_to_a_bound() {
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let most = u32::try_from(FORWARDED_ENTRIES_MAX).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, vec!["1.1.1.1"; FORWARDED_ENTRIES_MAX + 1].join(",").parse().unwrap());
        assert_eq!(client_address(&headers, peer, most).to_string(), "1.1.1.1");
        assert_eq!(client_address(&headers, peer, most + 1), peer);
    }
}
