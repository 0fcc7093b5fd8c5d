//! Listeners that want the same place: the first of a port keeps it. Pure.

use super::ListenerProtocol;

/// Why a listener gives way to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The port speaks something else.
    Protocol,
    /// The port has that hostname already.
    Hostname,
}

impl Conflict {
    /// As statuses name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Protocol => "ProtocolConflict",
            Self::Hostname => "HostnameConflict",
        }
    }
}

/// What decides whether two listeners can share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot<'a> {
    pub(super) port: u16,
    pub(super) protocol: ListenerProtocol,
    pub(super) hostname: &'a str,
}

/// Verdicts in the order of the places, which is that of precedence. Only who keeps its place blocks others.
///
/// # Source
/// spec of the gateway controller, section 8.
pub(super) fn judge(places: &[Spot<'_>]) -> Vec<Option<Conflict>> {
    let mut winners: Vec<Spot<'_>> = Vec::new();
    let mut verdicts = Vec::with_capacity(places.len());
    for place in places {
        let verdict = winners.iter().find_map(|winner| between(winner, place));
        if verdict.is_none() {
            winners.push(*place);
        }
        verdicts.push(verdict);
    }
    verdicts
}

fn between(winner: &Spot<'_>, other: &Spot<'_>) -> Option<Conflict> {
    let shared = matches!(winner.protocol, ListenerProtocol::Http | ListenerProtocol::Https | ListenerProtocol::Tls);
    if winner.port != other.port {
        None
    } else if winner.protocol != other.protocol || !shared {
        Some(Conflict::Protocol)
    } else {
        winner.hostname.eq_ignore_ascii_case(other.hostname).then_some(Conflict::Hostname)
    }
}

#[cfg(test)]
mod tests {
    use super::ListenerProtocol::{Http, Https, Tcp, Tls, Udp};
    use super::*;

    #[test]
    fn the_first_of_a_port_keeps_it_and_losers_block_nobody() {
        let judged = |places: &[(u16, ListenerProtocol, &'static str)]| {
            let places: Vec<_> = places
                .iter()
                .map(|(port, protocol, hostname)| Spot { port: *port, protocol: *protocol, hostname })
                .collect();
            judge(&places)
        };
        let (protocol, hostname) = (Some(Conflict::Protocol), Some(Conflict::Hostname));
        assert_eq!(
            judged(&[(80, Http, "a"), (80, Http, "b"), (80, Http, "A"), (81, Http, "a")]),
            [None, None, hostname, None]
        );
        assert_eq!(judged(&[(80, Http, ""), (80, Http, "*.x"), (80, Http, "")]), [None, None, hostname]);
        assert_eq!(judged(&[(443, Https, "a"), (443, Tls, "b"), (443, Https, "c")]), [None, protocol, None]);
        assert_eq!(judged(&[(9000, Tcp, ""), (9000, Tcp, ""), (9000, Udp, "")]), [None, protocol, protocol]);
        // The TLS listener lost its place; so it does not take that of another.
        assert_eq!(
            judged(&[(443, Https, "a"), (443, Tls, "a"), (443, Https, "b"), (443, Https, "a")]),
            [None, protocol, None, hostname]
        );
    }
}
