//! From the wire to [`Policy`], with the leniency that interoperability needs: an entry that cannot
//! be read is left out and noted; a list that lost all its entries never makes a policy weaker.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_core::{NamespacedName, names::ParseNameError};
use mesh_wire::security::{self as wire, string_match::MatchType};

use crate::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch};

/// Why a policy cannot be used at all. The earlier copy, if any, stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The resource name is not `namespace/name`.
    #[error("resource name: {0}")]
    Name(#[from] ParseNameError),
    /// The message names another policy than the resource it came in.
    #[error("the message is for {found}, expected {expected}")]
    OtherName {
        /// As in the message.
        found: String,
        /// As the resource is named.
        expected: String,
    },
    /// Scope is none of GLOBAL, NAMESPACE, WORKLOAD_SELECTOR.
    #[error("scope {found} is unknown, expected 0, 1 or 2")]
    Scope {
        /// Number on the wire.
        found: i32,
    },
    /// Action is neither ALLOW nor DENY.
    #[error("action {found} is unknown, expected 0 or 1")]
    Action {
        /// Number on the wire.
        found: i32,
    },
}

impl Policy {
    /// Decodes the resource `name`.
    ///
    /// # Errors
    /// The policy as a whole is unusable; see [`DecodeError`].
    pub fn decode(name: &str, message: wire::Authorization) -> Result<Self, DecodeError> {
        let key: NamespacedName = name.parse()?;
        if *key.namespace != *message.namespace || *key.name != *message.name {
            let found = format!("{}/{}", message.namespace, message.name);
            return Err(DecodeError::OtherName { found, expected: name.to_owned() });
        }
        let scope = match wire::Scope::try_from(message.scope) {
            Ok(wire::Scope::Global) => Scope::Global,
            Ok(wire::Scope::Namespace) => Scope::Namespace,
            Ok(wire::Scope::WorkloadSelector) => Scope::WorkloadSelector,
            Err(_) => return Err(DecodeError::Scope { found: message.scope }),
        };
        let action = match wire::Action::try_from(message.action) {
            Ok(wire::Action::Allow) => Action::Allow,
            Ok(wire::Action::Deny) => Action::Deny,
            Err(_) => return Err(DecodeError::Action { found: message.action }),
        };
        let mut notes = Notes { policy: name, texts: Vec::new() };
        let rules = message.rules.into_iter().map(|rule| decode_rule(rule, &mut notes)).collect();
        Ok(Self { key, scope, action, dry_run: message.dry_run, rules, notes: notes.texts })
    }
}

/// Collects what was left out.
struct Notes<'a> {
    policy: &'a str,
    texts: Vec<String>,
}

impl Notes<'_> {
    /// Keeps what `decode` can read of a list; sets `lost` when there were entries and none is left.
    fn list<W, T>(&mut self, field: &str, list: Vec<W>, lost: &mut bool, decode: impl Fn(&W) -> Option<T>) -> Vec<T>
    where
        W: std::fmt::Debug,
    {
        let had_entries = !list.is_empty();
        let mut kept = Vec::with_capacity(list.len());
        for entry in list {
            match decode(&entry) {
                Some(value) => kept.push(value),
                None => self.texts.push(format!("policy {}: entry of {field} left out: {entry:?}", self.policy)),
            }
        }
        *lost |= had_entries && kept.is_empty();
        kept
    }
}

fn decode_rule(rule: wire::Rule, notes: &mut Notes<'_>) -> Rule {
    let clauses = rule.clauses.into_iter();
    Rule {
        clauses: clauses
            .map(|clause| Clause { matches: clause.matches.into_iter().map(|m| decode_match(m, notes)).collect() })
            .collect(),
    }
}

fn decode_match(wire: wire::Match, notes: &mut Notes<'_>) -> Match {
    let mut lost = false;
    let account = |account: &wire::ServiceAccountMatch| {
        Some(ServiceAccount { namespace: account.namespace.clone(), service_account: account.service_account.clone() })
    };
    // The reference truncates; so do we, so that both enforce the same thing.
    #[allow(clippy::cast_possible_truncation)] // reason: see above
    let port = |port: &u32| Some(*port as u16);
    let decoded = Match {
        namespaces: notes.list("namespaces", wire.namespaces, &mut lost, string),
        not_namespaces: notes.list("not_namespaces", wire.not_namespaces, &mut lost, string),
        principals: notes.list("principals", wire.principals, &mut lost, string),
        not_principals: notes.list("not_principals", wire.not_principals, &mut lost, string),
        service_accounts: notes.list("service_accounts", wire.service_accounts, &mut lost, account),
        not_service_accounts: notes.list("not_service_accounts", wire.not_service_accounts, &mut lost, account),
        source_ips: notes.list("source_ips", wire.source_ips, &mut lost, cidr),
        not_source_ips: notes.list("not_source_ips", wire.not_source_ips, &mut lost, cidr),
        destination_ips: notes.list("destination_ips", wire.destination_ips, &mut lost, cidr),
        not_destination_ips: notes.list("not_destination_ips", wire.not_destination_ips, &mut lost, cidr),
        destination_ports: notes.list("destination_ports", wire.destination_ports, &mut lost, port),
        not_destination_ports: notes.list("not_destination_ports", wire.not_destination_ports, &mut lost, port),
        lost_attribute: false,
    };
    Match { lost_attribute: lost, ..decoded }
}

fn string(wire: &wire::StringMatch) -> Option<StringMatch> {
    Some(match wire.match_type.as_ref()? {
        MatchType::Exact(text) => StringMatch::Exact(text.clone()),
        MatchType::Prefix(text) => StringMatch::Prefix(text.clone()),
        MatchType::Suffix(text) => StringMatch::Suffix(text.clone()),
        MatchType::Presence(_) => StringMatch::Presence,
    })
}

/// A CIDR; IPv4-mapped IPv6 ranges become the IPv4 ranges that they stand for.
fn cidr(wire: &wire::Address) -> Option<IpNet> {
    let length = u8::try_from(wire.length).ok()?;
    if let Ok(four) = <[u8; 4]>::try_from(wire.address.as_slice()) {
        return Some(Ipv4Net::new(four.into(), length).ok()?.trunc().into());
    }
    let six = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(wire.address.as_slice()).ok()?);
    match (six.to_ipv4_mapped(), length.checked_sub(MAPPED_PREFIX_BITS)) {
        (Some(four), Some(length)) => Some(Ipv4Net::new(four, length).ok()?.trunc().into()),
        _ => Some(Ipv6Net::new(six, length).ok()?.trunc().into()),
    }
}

/// Bits of `::ffff:0:0/96` before the embedded IPv4 address.
const MAPPED_PREFIX_BITS: u8 = 96;
