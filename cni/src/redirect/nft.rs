//! Writes a pod's rules for nftables: three tables of family `inet`, replaced in one transaction.

use std::fmt::Write;

use super::established::Flow;
use super::rules::{Action, Hook, Match, PodRules, Rule, Table, rules};
use super::{CONNECTION_MARK, MARK_MASK, PROXY_MARK};

/// The transaction that puts the rules in force, whatever was there before. The connections in `flows`, and those that
/// an earlier transaction named, stay as they are.
pub(super) fn pod(pod: &PodRules, flows: &[Flow]) -> String {
    let all = rules(pod);
    let mut text = String::new();
    for table in [Table::Nat, Table::Mangle, Table::Raw] {
        let own: Vec<&Rule> = all.iter().filter(|rule| rule.table == table).collect();
        let name = name(table);
        if own.is_empty() {
            // Adding first makes the deletion of a missing table no error.
            let _ = writeln!(text, "add table inet {name}\ndelete table inet {name}");
            continue;
        }
        // Emptied, not deleted: the sets of connections must outlive a second application.
        let _ = writeln!(text, "add table inet {name}\nflush table inet {name}\ntable inet {name} {{");
        if table == Table::Nat {
            for (set, kind) in [(FLOWS_V4, "ipv4_addr"), (FLOWS_V6, "ipv6_addr")] {
                let _ = writeln!(text, "\tset {set} {{\n\t\ttype {kind} . inet_service . {kind} . inet_service\n\t}}");
            }
        }
        for hook in [Hook::Prerouting, Hook::Output] {
            let (base, kind, priority) = base(table, hook);
            let _ = writeln!(text, "\tchain istio-{base} {{");
            for rule in own.iter().filter(|rule| rule.hook == hook) {
                for line in lines(rule, pod) {
                    let _ = writeln!(text, "\t\t{line}");
                }
            }
            let _ = writeln!(text, "\t}}\n\tchain {base} {{");
            let _ = writeln!(text, "\t\ttype {kind} hook {base} priority {priority}; policy accept;");
            let _ = writeln!(text, "\t\tjump istio-{base}\n\t}}");
        }
        text.push_str("}\n");
    }
    write_flows(&mut text, flows);
    text
}

/// A transaction that makes the kernel track connections and changes nothing else: what is opened from now on is known
/// to be older than the rules that follow.
pub(super) fn tracking() -> String {
    let table = name(Table::Mangle);
    let chain = "type filter hook output priority -160; policy accept; ct mark 0 counter;";
    format!("table inet {table} {{\n\tchain istio-tracking {{ {chain} }}\n}}\n")
}

/// The table that only a captured pod has, as `family name`.
pub(super) fn capture_table() -> String {
    format!("inet {}", name(Table::Nat))
}

fn write_flows(text: &mut String, flows: &[Flow]) {
    let table = name(Table::Nat);
    for (set, v6) in [(FLOWS_V4, false), (FLOWS_V6, true)] {
        let own = flows.iter().filter(|flow| flow.local.is_ipv6() == v6);
        let elements: Vec<String> = own
            .map(|Flow { local, remote }| {
                format!("{} . {} . {} . {}", local.ip(), local.port(), remote.ip(), remote.port())
            })
            .collect();
        for part in elements.chunks(ELEMENTS_PER_COMMAND) {
            let _ = writeln!(text, "add element inet {table} {set} {{ {} }}", part.join(", "));
        }
    }
}

/// The transaction that takes everything away.
pub(super) fn remove() -> String {
    [Table::Nat, Table::Mangle, Table::Raw]
        .map(|table| format!("add table inet {0}\ndelete table inet {0}\n", name(table)))
        .concat()
}

fn name(table: Table) -> &'static str {
    match table {
        Table::Nat => "istio-ambient-nat",
        Table::Mangle => "istio-ambient-mangle",
        Table::Raw => "istio-ambient-raw",
    }
}

fn base(table: Table, hook: Hook) -> (&'static str, &'static str, i32) {
    let base = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    };
    match (table, hook) {
        (Table::Nat, _) => (base, "nat", -100),
        (Table::Mangle, Hook::Prerouting) => (base, "filter", -150),
        // A changed mark must lead to a new routing decision.
        (Table::Mangle, Hook::Output) => (base, "route", -150),
        (Table::Raw, _) => (base, "filter", -300),
    }
}

/// One line, or one per family when an address is compared.
fn lines(rule: &Rule, pod: &PodRules) -> Vec<String> {
    let by_address =
        |one: &Match| matches!(one, Match::FromProbe | Match::ToProbe | Match::NotToLocalhost | Match::Established);
    let families: &[bool] = match (rule.matches.iter().any(by_address), pod.ipv6) {
        (false, _) | (true, false) => &[false],
        (true, true) => &[false, true],
    };
    families
        .iter()
        .map(|v6| {
            let mut words: Vec<String> = Vec::new();
            let udp = rule.matches.contains(&Match::Udp);
            words.extend(rule.matches.iter().map(|one| condition(one, rule.hook, *v6, udp, pod)));
            words.push("counter".to_owned());
            words.push(action(rule.action));
            words.join(" ")
        })
        .collect()
}

fn condition(one: &Match, hook: Hook, v6: bool, udp: bool, pod: &PodRules) -> String {
    let family = if v6 { "ip6" } else { "ip" };
    let probe = if v6 { pod.probes.v6.to_string() } else { pod.probes.v4.to_string() };
    let protocol = if udp { "udp" } else { "tcp" };
    match one {
        Match::In(interface) => format!("iifname \"{interface}\""),
        Match::OutLoopback(true) => "oifname \"lo\"".to_owned(),
        Match::OutLoopback(false) => "oifname != \"lo\"".to_owned(),
        Match::Tcp => "meta l4proto tcp".to_owned(),
        Match::Udp => "meta l4proto udp".to_owned(),
        Match::DestinationPort(port) => format!("{protocol} dport {port}"),
        Match::NotDestinationPort(port) => format!("{protocol} dport != {port}"),
        Match::SourcePort(port) => format!("{protocol} sport {port}"),
        Match::ProxyMark(true) => format!("meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x}"),
        Match::ProxyMark(false) => format!("meta mark & {MARK_MASK:#x} != {PROXY_MARK:#x}"),
        Match::ReturnMark => format!("meta mark & {MARK_MASK:#x} == {CONNECTION_MARK:#x}"),
        Match::ConnectionMark => format!("ct mark & {MARK_MASK:#x} == {CONNECTION_MARK:#x}"),
        Match::Invalid => "ct state invalid".to_owned(),
        Match::FromProbe => format!("{family} saddr {probe}"),
        Match::ToProbe => format!("{family} daddr {probe}"),
        Match::NotToLocalhost => format!("{family} daddr != {}", if v6 { "::1" } else { "127.0.0.1" }),
        Match::Established => {
            let (near, far) = match hook {
                Hook::Prerouting => ("d", "s"),
                Hook::Output => ("s", "d"),
            };
            let set = if v6 { FLOWS_V6 } else { FLOWS_V4 };
            format!("{family} {near}addr . tcp {near}port . {family} {far}addr . tcp {far}port @{set}")
        }
    }
}

fn action(action: Action) -> String {
    match action {
        Action::Redirect(port) => format!("redirect to :{port}"),
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Return => "return".to_owned(),
        Action::MarkConnection => format!("ct mark set ct mark & {:#x} | {CONNECTION_MARK:#x}", !MARK_MASK),
        Action::RestoreMark => "meta mark set ct mark".to_owned(),
        Action::OwnZone => "ct zone set 1".to_owned(),
    }
}

/// Connections that are older than the rules: near address and port, far address and port.
const FLOWS_V4: &str = "istio-established-v4";
const FLOWS_V6: &str = "istio-established-v6";
/// Keeps single commands within what the tool's parser takes.
const ELEMENTS_PER_COMMAND: usize = 500;

#[cfg(test)]
mod tests {
    use super::super::ProbeAddresses;
    use super::*;

    fn plain() -> PodRules {
        PodRules {
            bypass_inbound: false,
            dns: false,
            interfaces: Vec::new(),
            ipv6: false,
            probes: ProbeAddresses::default(),
        }
    }

    #[test]
    fn the_rules_of_an_ordinary_pod() {
        let want = "\
add table inet istio-ambient-nat
flush table inet istio-ambient-nat
table inet istio-ambient-nat {
\tset istio-established-v4 {
\t\ttype ipv4_addr . inet_service . ipv4_addr . inet_service
\t}
\tset istio-established-v6 {
\t\ttype ipv6_addr . inet_service . ipv6_addr . inet_service
\t}
\tchain istio-prerouting {
\t\tip daddr . tcp dport . ip saddr . tcp sport @istio-established-v4 counter accept
\t\tip saddr 169.254.7.127 meta l4proto tcp counter accept
\t\tip daddr != 127.0.0.1 meta l4proto tcp tcp dport != 15008 meta mark & 0xfff != 0x539 counter redirect to :15006
\t}
\tchain prerouting {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tjump istio-prerouting
\t}
\tchain istio-output {
\t\tip saddr . tcp sport . ip daddr . tcp dport @istio-established-v4 counter accept
\t\tip daddr 169.254.7.127 meta l4proto tcp counter accept
\t\tmeta l4proto tcp meta mark & 0xfff == 0x111 counter accept
\t\toifname \"lo\" ip daddr != 127.0.0.1 counter accept
\t\tip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 counter redirect to :15001
\t}
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tjump istio-output
\t}
}
add table inet istio-ambient-mangle
flush table inet istio-ambient-mangle
table inet istio-ambient-mangle {
\tchain istio-prerouting {
\t\tmeta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111
\t}
\tchain prerouting {
\t\ttype filter hook prerouting priority -150; policy accept;
\t\tjump istio-prerouting
\t}
\tchain istio-output {
\t\tct mark & 0xfff == 0x111 counter meta mark set ct mark
\t\toifname != \"lo\" meta l4proto tcp ct state invalid meta mark & 0xfff != 0x539 counter drop
\t}
\tchain output {
\t\ttype route hook output priority -150; policy accept;
\t\tjump istio-output
\t}
}
add table inet istio-ambient-raw
delete table inet istio-ambient-raw
";
        assert_eq!(pod(&plain(), &[]), want);
    }

    #[test]
    fn dns_adds_redirects_and_zones() {
        let text = pod(&PodRules { dns: true, ..plain() }, &[]);
        for line in [
            "oifname != \"lo\" meta l4proto udp udp dport 53 meta mark & 0xfff != 0x539 counter redirect to :15053",
            "ip daddr != 127.0.0.1 meta l4proto tcp tcp dport 53 meta mark & 0xfff != 0x539 counter redirect to :15053",
            "meta l4proto udp meta mark & 0xfff == 0x539 udp dport 53 counter ct zone set 1",
            "meta l4proto udp meta mark & 0xfff != 0x539 udp sport 53 counter ct zone set 1",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line}\nin\n{text}");
        }
    }

    #[test]
    fn ipv6_doubles_exactly_the_rules_that_compare_addresses() {
        let count = |text: &str| text.matches("counter").count();
        let (four, both) = (pod(&plain(), &[]), pod(&PodRules { ipv6: true, ..plain() }, &[]));
        assert_eq!(count(&both) - count(&four), 7);
        assert!(both.contains("ip6 daddr != ::1"));
        assert!(both.contains("ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff"));
    }

    #[test]
    fn interfaces_count_as_outbound_before_anything_else() {
        let text = pod(&PodRules { interfaces: vec!["tap+".parse().unwrap()], ..plain() }, &[]);
        let redirect = text.find("iifname \"tap*\" meta l4proto tcp counter redirect to :15001").unwrap();
        let probe = text.find("ip saddr 169.254.7.127").unwrap();
        assert!(redirect < probe);
        assert!(text.contains("iifname \"tap*\" meta l4proto tcp counter return"));
    }

    #[test]
    fn old_connections_are_listed_per_family_in_bounded_commands() {
        let flow = |port| Flow { local: ([10, 0, 0, 1], port).into(), remote: ([10, 0, 0, 2], 80).into() };
        let mut flows: Vec<Flow> = (1..=501).map(flow).collect();
        flows.push(Flow { local: "[fd00::1]:1".parse().unwrap(), remote: "[fd00::2]:80".parse().unwrap() });
        let text = pod(&plain(), &flows);
        let commands: Vec<&str> = text.lines().filter(|line| line.starts_with("add element")).collect();
        assert_eq!(commands.len(), 3);
        assert!(commands[1].ends_with("istio-established-v4 { 10.0.0.1 . 501 . 10.0.0.2 . 80 }"), "{}", commands[1]);
        assert!(commands[2].ends_with("istio-established-v6 { fd00::1 . 1 . fd00::2 . 80 }"), "{}", commands[2]);
    }
}
