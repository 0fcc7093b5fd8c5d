//! Which packets go where. Order within a chain counts.

use std::fmt;
use std::str::FromStr;

use super::ProbeAddresses;

/// What a pod's rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRules {
    /// Leave inbound traffic alone (ingress gateways).
    pub bypass_inbound: bool,
    /// Send DNS queries to the node proxy.
    pub dns: bool,
    /// Interfaces whose ingress counts as outbound.
    pub interfaces: Vec<InterfaceName>,
    /// Rules for IPv6 too.
    pub ipv6: bool,
    /// Where kubelet probes come from.
    pub probes: ProbeAddresses,
}

/// The name of a network interface, possibly with a trailing `+` that stands for any ending.
///
/// Checked, because it comes from a pod's annotation and goes into rules that root applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceName(String);

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.strip_suffix('+').unwrap_or(text);
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
        let fits = (1..=15).contains(&text.len()) && !plain.is_empty() && !matches!(plain, "." | "..");
        if !fits || !plain.chars().all(legal) {
            return Err(format!(
                "{text:?} is not an interface name: 1 to 15 letters, digits, '_', '-' or '.', optional final '+'"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    /// With `*` for any ending, as nftables writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_suffix('+') {
            Some(start) => write!(f, "{start}*"),
            None => f.write_str(&self.0),
        }
    }
}

/// A table of the packet filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Marks.
    Mangle,
    /// Redirects.
    Nat,
    /// Connection-tracking zones.
    Raw,
}

/// Where in a packet's way a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On arrival.
    Prerouting,
    /// On sending by a local process.
    Output,
}

/// One condition. All conditions of a rule must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Arrived on this interface.
    In(InterfaceName),
    /// Leaves through the loopback interface, or not.
    OutLoopback(bool),
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Destination port, of the protocol named before.
    DestinationPort(u16),
    /// Any other destination port.
    NotDestinationPort(u16),
    /// Source port.
    SourcePort(u16),
    /// Sent by the node proxy's sockets, or not.
    ProxyMark(bool),
    /// Routed back to the node proxy.
    ReturnMark,
    /// Belongs to a connection from the node proxy to the application.
    ConnectionMark,
    /// From the probe address of the packet's family.
    FromProbe,
    /// To the probe address of the packet's family.
    ToProbe,
    /// Not to 127.0.0.1 or ::1.
    NotToLocalhost,
    /// Of a connection that is older than the capture of the pod.
    Established,
    /// Of no connection that the kernel knows or could begin.
    Invalid,
}

/// What happens to a packet that fulfils every condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Goes to a listener on this port of the pod.
    Redirect(u16),
    /// Passes; no later rule of the chain is asked.
    Accept,
    /// Goes nowhere.
    Drop,
    /// Leaves our chain.
    Return,
    /// Its connection gets the connection mark.
    MarkConnection,
    /// It gets the mark of its connection.
    RestoreMark,
    /// Its connection is kept apart from the application's.
    OwnZone,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Table.
    pub table: Table,
    /// Hook.
    pub hook: Hook,
    /// Conditions.
    pub matches: Vec<Match>,
    /// Effect.
    pub action: Action,
}

/// The rules of a pod, in order.
#[must_use]
pub fn rules(pod: &PodRules) -> Vec<Rule> {
    use Action::{Accept, Drop, MarkConnection, OwnZone, Redirect, RestoreMark, Return};
    use Hook::{Output, Prerouting};
    use Match::{
        ConnectionMark, DestinationPort, Established, FromProbe, In, Invalid, NotDestinationPort, NotToLocalhost,
        OutLoopback, ProxyMark, ReturnMark, SourcePort, Tcp, ToProbe, Udp,
    };
    use Table::{Mangle, Nat, Raw};

    let mut all = Vec::new();
    let mut rule = |table, hook, matches: &[Match], action| {
        all.push(Rule { table, hook, matches: matches.to_vec(), action });
    };
    // The proxy's packets to the application come round through lo: tag their connection, so that the application's
    // replies to a borrowed source address find their way back to the proxy.
    rule(Mangle, Prerouting, &[ProxyMark(true)], MarkConnection);
    rule(Mangle, Output, &[ConnectionMark], RestoreMark);
    // Addresses of such packets are not translated: they would leave for their first destination in the clear. TCP
    // sends again what was lost.
    rule(Mangle, Output, &[OutLoopback(false), Tcp, Invalid, ProxyMark(false)], Drop);
    // The kernel begins to track connections with these rules and takes the next packet of an old connection for the
    // first of a new one; redirecting that would cut the connection.
    rule(Nat, Prerouting, &[Established], Accept);
    rule(Nat, Output, &[Established], Accept);
    for interface in &pod.interfaces {
        rule(Nat, Prerouting, &[In(interface.clone()), Tcp], Redirect(OUTBOUND));
        rule(Nat, Prerouting, &[In(interface.clone()), Tcp], Return);
    }
    if !pod.bypass_inbound {
        rule(Nat, Prerouting, &[FromProbe, Tcp], Accept);
        // 15008 reaches its listener as it is.
        let inbound = [NotToLocalhost, Tcp, NotDestinationPort(HBONE), ProxyMark(false)];
        rule(Nat, Prerouting, &inbound, Redirect(INBOUND_PLAINTEXT));
    }
    rule(Nat, Output, &[ToProbe, Tcp], Accept);
    if pod.dns {
        rule(Nat, Output, &[OutLoopback(false), Udp, DestinationPort(53), ProxyMark(false)], Redirect(DNS));
        rule(Nat, Output, &[NotToLocalhost, Tcp, DestinationPort(53), ProxyMark(false)], Redirect(DNS));
    }
    rule(Nat, Output, &[Tcp, ReturnMark], Accept);
    // The pod's own address stays local.
    rule(Nat, Output, &[OutLoopback(true), NotToLocalhost], Accept);
    rule(Nat, Output, &[NotToLocalhost, Tcp, ProxyMark(false)], Redirect(OUTBOUND));
    if pod.dns {
        rule(Raw, Output, &[Udp, ProxyMark(true), DestinationPort(53)], OwnZone);
        rule(Raw, Prerouting, &[Udp, ProxyMark(false), SourcePort(53)], OwnZone);
    }
    all
}

/// Listener for what the application sends.
const OUTBOUND: u16 = 15001;
/// Listener for what arrives in the clear.
const INBOUND_PLAINTEXT: u16 = 15006;
/// Listener for tunnels.
const HBONE: u16 = 15008;
/// Listener for DNS queries.
const DNS: u16 = 15053;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_change_a_rule_are_refused() {
        for good in ["eth0", "veth-1.2", "br+", "a", "abcdefghijklmno"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in ["", "+", "abcdefghijklmnop", "a b", "a\"", "a;b", "a/b", "a:b", "..", "a\n", "ä", "a*"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ingress_mode_keeps_only_interface_rules_on_the_way_in() {
        let pod = PodRules {
            bypass_inbound: true,
            dns: false,
            interfaces: Vec::new(),
            ipv6: true,
            probes: ProbeAddresses::default(),
        };
        let inbound = |rule: &&Rule| rule.table == Table::Nat && rule.hook == Hook::Prerouting;
        assert!(rules(&pod).iter().filter(inbound).all(|rule| rule.matches == [Match::Established]));
        assert!(rules(&pod).iter().any(|rule| rule.action == Action::Redirect(OUTBOUND)));
    }
}
