//! Where DNS queries of pods are answered.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::reader::Reader;

/// On unless said otherwise; once said, only `true` is on.
pub(super) fn capture(read: &Reader<'_>) -> bool {
    read.text("ISTIO_META_DNS_CAPTURE", "true").eq_ignore_ascii_case("true")
}

/// `localhost` stands for both loopback addresses. Never a wildcard: from one, answers would leave with the pod's
/// address as their source.
pub(super) fn addresses(read: &mut Reader<'_>, ipv6: bool) -> Vec<SocketAddr> {
    let name = "ISTIO_META_DNS_PROXY_ADDR";
    let text = read.text(name, "localhost:15053");
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        return if ipv6 { vec![v4, v6] } else { vec![v4] };
    }
    match text.parse::<SocketAddr>() {
        Ok(addr) if !addr.ip().is_unspecified() => vec![addr],
        _ => {
            read.error(format!("{name}={text:?}: expected localhost:<port> or <address>:<port>, and no wildcard"));
            Vec::new()
        }
    }
}
