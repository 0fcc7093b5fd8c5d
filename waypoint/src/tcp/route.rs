//! Which backend takes a connection of bytes. Pure.

use std::sync::Arc;

use crate::connection::Destination;
use crate::report::Flags;
use crate::snapshot::{Chain, Entry, L4Rule, TlsRule, Weighted};

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Index of the backend.
    pub(super) backend: usize,
    /// Which rule says so; empty: none, by default.
    pub(super) rule: Arc<str>,
}

/// Why it goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Miss {
    /// A listener without a rule for it.
    #[error("no rule is for this connection")]
    NoRule,
    /// The rule has no backend with a weight.
    #[error("rule {rule} has no backend")]
    NoBackend {
        /// Which rule.
        rule: Arc<str>,
    },
    /// The backend that was picked cannot be used.
    #[error("the backend of rule {rule} cannot be used: {reason}")]
    Unusable {
        /// Which rule.
        rule: Arc<str>,
        /// Why not.
        reason: Arc<str>,
    },
}

impl Miss {
    pub(super) fn flags(&self) -> Flags {
        match self {
            Self::NoRule => Flags::NR,
            Self::NoBackend { .. } | Self::Unusable { .. } => Flags::NC,
        }
    }

    pub(super) fn details(&self) -> &'static str {
        match self {
            Self::NoRule => "route_not_found",
            Self::NoBackend { .. } | Self::Unusable { .. } => "cluster_not_found",
        }
    }
}

/// Rules for the server name, the most specific first; then the first that takes the destination; then the default.
///
/// # Errors
/// [`Miss`].
pub(super) fn choose(chain: &Chain, sni: Option<&str>, destination: &Destination, random: u64) -> Result<Choice, Miss> {
    let by_name = by_name(&chain.tls_rules, sni, destination);
    let rule = by_name.or_else(|| chain.tcp_rules.iter().find(|rule| takes(rule, destination)));
    if let Some(rule) = rule {
        return weigh(rule, random);
    }
    match (chain.default_backend, &chain.entry) {
        // A service whose TLS has rules, none of which is for the name, still has its endpoints.
        (Some(backend), Entry::Port(_) | Entry::Workload(_)) => Ok(Choice { backend, rule: Arc::default() }),
        _ => Err(Miss::NoRule),
    }
}

fn by_name<'a>(rules: &'a [TlsRule], sni: Option<&str>, destination: &Destination) -> Option<&'a L4Rule> {
    let fitting = rules.iter().filter(|rule| takes(&rule.rule, destination));
    let ranked = fitting.filter_map(|rule| Some((rank(&rule.hostnames, sni)?, &rule.rule)));
    // The first of equals stays.
    ranked.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, rule)| rule)
}

/// How specifically one of the names covers the server name; larger is more. `None`: not at all.
fn rank(hostnames: &[Box<str>], sni: Option<&str>) -> Option<usize> {
    if hostnames.is_empty() {
        return Some(0);
    }
    let of_one = |hostname: &str| match (hostname.strip_prefix('*'), sni) {
        (Some(""), _) => Some(0),
        (Some(suffix), Some(sni)) => (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(suffix.len()),
        (None, Some(sni)) => (sni == hostname).then_some(usize::MAX),
        (_, None) => None,
    };
    hostnames.iter().filter_map(|hostname| of_one(hostname)).max()
}

fn takes(rule: &L4Rule, destination: &Destination) -> bool {
    let port = rule.port.is_none_or(|port| port == destination.port());
    let subnet = rule.subnets.is_empty()
        || destination.ip().is_some_and(|ip| rule.subnets.iter().any(|subnet| subnet.contains(&ip)));
    port && subnet
}

fn weigh(rule: &L4Rule, random: u64) -> Result<Choice, Miss> {
    let total: u64 = rule.backends.iter().map(|one| u64::from(one.weight)).sum();
    let none = || Miss::NoBackend { rule: rule.origin.clone() };
    if total == 0 {
        return Err(none());
    }
    let mut point = random % total;
    for Weighted { weight, target } in &rule.backends {
        if point < u64::from(*weight) {
            return match target {
                Ok(backend) => Ok(Choice { backend: *backend, rule: rule.origin.clone() }),
                Err(reason) => Err(Miss::Unusable { rule: rule.origin.clone(), reason: reason.clone() }),
            };
        }
        point -= u64::from(*weight);
    }
    Err(none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origin: &str, weights: &[u32]) -> L4Rule {
        let weighted = |(n, weight): (usize, &u32)| Weighted { weight: *weight, target: Ok(n) };
        L4Rule {
            origin: origin.into(),
            backends: weights.iter().enumerate().map(weighted).collect(),
            subnets: Box::default(),
            port: None,
        }
    }

    fn tls(hostnames: &[&str], origin: &str) -> TlsRule {
        TlsRule { hostnames: hostnames.iter().map(|name| (*name).into()).collect(), rule: rule(origin, &[1]) }
    }

    #[test]
    fn the_most_specific_server_name_wins_and_the_first_of_equals() {
        let rules = [
            tls(&[], "any"),
            tls(&["*.example.com"], "wide"),
            tls(&["*.shop.example.com"], "narrow"),
            tls(&["a.shop.example.com", "b.example.com"], "exact"),
            tls(&["b.example.com"], "late"),
        ];
        let destination = Destination::Address("10.0.0.1:443".parse().unwrap());
        for (sni, expected) in [
            (Some("a.shop.example.com"), "exact"),
            (Some("b.shop.example.com"), "narrow"),
            (Some("b.example.com"), "exact"),
            (Some("c.example.com"), "wide"),
            (Some("example.com"), "any"),
            (Some("xexample.com"), "any"),
            (None, "any"),
        ] {
            assert_eq!(&*by_name(&rules, sni, &destination).unwrap().origin, expected, "{sni:?}");
        }
        assert!(by_name(&rules[1..], None, &destination).is_none());
    }

    #[test]
    fn connections_are_shared_out_by_weight() {
        let rule = rule("r", &[90, 0, 10]);
        let mut seen = [0; 3];
        for random in 0..1000 {
            seen[weigh(&rule, random).unwrap().backend] += 1;
        }
        assert_eq!(seen, [900, 0, 100]);
        let empty = L4Rule { backends: Box::default(), ..rule.clone() };
        assert_eq!(weigh(&empty, 1), Err(Miss::NoBackend { rule: "r".into() }));
        let unusable = Weighted { weight: 1, target: Err("no such service".into()) };
        let unusable = L4Rule { backends: [unusable].into(), ..rule };
        assert_eq!(weigh(&unusable, 1).unwrap_err().flags(), Flags::NC);
    }

    #[test]
    fn subnets_and_ports_narrow_a_rule() {
        let mut one = rule("r", &[1]);
        one.subnets = ["10.0.0.0/8".parse().unwrap()].into();
        one.port = Some(443);
        let address = |text: &str| Destination::Address(text.parse().unwrap());
        assert!(takes(&one, &address("10.1.2.3:443")));
        assert!(!takes(&one, &address("10.1.2.3:444")) && !takes(&one, &address("11.1.2.3:443")));
        assert!(!takes(&one, &Destination::Name("a".into(), 443)));
    }
}
