//! Connections that a pod has when its capture begins: they stay as they are until they reconnect.
//!
//! A pod without rules has no connection tracking. When the rules arrive, the kernel takes the next packet of an old
//! connection for the first packet of a new one and would redirect it into nowhere. So the old connections are named
//! explicitly. Naming them, and not just any packet in mid-connection, matters: a packet of a captured connection that
//! the kernel has forgotten must never slip out to the network in the clear.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_core::addr::canonical;

/// One connection as the pod sees it. Both ends are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Flow {
    /// The pod's end.
    pub(super) local: SocketAddr,
    /// The other end.
    pub(super) remote: SocketAddr,
}

/// The connections of the calling thread's network namespace that would be affected by redirection. Bounded by
/// [`FLOWS_MAX`].
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn current() -> std::io::Result<Vec<Flow>> {
    let mut flows = parse(&std::fs::read_to_string("/proc/thread-self/net/tcp")?);
    match std::fs::read_to_string("/proc/thread-self/net/tcp6") {
        Ok(text) => flows.extend(parse(&text)),
        // A kernel without IPv6 has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    flows.sort_unstable();
    flows.dedup();
    flows.truncate(FLOWS_MAX);
    Ok(flows)
}

/// Reads the kernel's socket table (`/proc/net/tcp` or `tcp6`). Lines that make no sense are left out.
#[must_use]
pub(super) fn parse(table: &str) -> Vec<Flow> {
    table.lines().skip(1).filter_map(flow).collect()
}

fn flow(line: &str) -> Option<Flow> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if matches!(state, TIME_WAIT | CLOSE | LISTEN) {
        return None;
    }
    let flow = Flow { local: canonical(address(local)?), remote: canonical(address(remote)?) };
    let usable = !flow.remote.ip().is_loopback() && flow.local.is_ipv4() == flow.remote.is_ipv4();
    usable.then_some(flow)
}

/// `0100007F:1F90`: words of the address in the machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match octets.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Connection states of the kernel in which no more packets matter to us.
const TIME_WAIT: &str = "06";
const CLOSE: &str = "07";
const LISTEN: &str = "0A";
/// More than any pod that is enrolled while running keeps open; the program stays below a few megabytes.
const FLOWS_MAX: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn open_connections_are_found_and_the_rest_is_left_out() {
        let text = format!(
            "{HEAD}   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n   \
             1: 0200090A:C350 0100090A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n   \
             2: 0200090A:C351 0100090A:1F90 06 00000000:00000000 00:00000000 00000000     0        0 3 1\n   \
             3: 0200090A:C352 0100090A:1F90 08 00000000:00000000 00:00000000 00000000     0        0 4 1\n   \
             4: 0100007F:C353 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4 1\n garbage\n"
        );
        let flows = parse(&text);
        assert_eq!(
            flows,
            [
                Flow { local: "10.9.0.2:50000".parse().unwrap(), remote: "10.9.0.1:8080".parse().unwrap() },
                Flow { local: "10.9.0.2:50002".parse().unwrap(), remote: "10.9.0.1:8080".parse().unwrap() },
            ]
        );
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let text = format!(
            "{HEAD}   0: 0000000000000000FFFF00000200090A:1F90 0000000000000000FFFF00000100090A:C350 01 0:0 0 0 0 0 1\n   \
             1: 000000FD000000000000000002000000:1F90 000000FD000000000000000001000000:C350 01 0:0 0 0 0 0 1\n"
        );
        let flows = parse(&text);
        assert_eq!(flows[0].local, "10.9.0.2:8080".parse().unwrap());
        assert_eq!(flows[1].local, "[fd00::2]:8080".parse().unwrap());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
