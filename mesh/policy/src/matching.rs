//! Which rule of a policy matches a connection.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::addr::canonical_ip;

use crate::{Action, Clause, Connection, Match, Policy, Rule, ServiceAccount, StringMatch};

/// A connection with the texts that several matches compare.
pub(crate) struct Subject<'a> {
    pub(crate) connection: &'a Connection,
    /// Identity without its scheme.
    pub(crate) principal: Option<String>,
    source_ip: IpAddr,
    destination_ip: IpAddr,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            principal: connection.identity.as_ref().map(mesh_core::Identity::principal),
            source_ip: canonical_ip(connection.source_ip),
            destination_ip: canonical_ip(connection.destination.ip()),
        }
    }

    fn namespace(&self) -> &str {
        self.connection.identity.as_ref().map_or("", mesh_core::Identity::namespace)
    }
}

/// Attribute kinds of a match, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Source identity.
    Principals,
    /// Namespace of the source identity.
    Namespaces,
    /// Service account of the source identity.
    ServiceAccounts,
    /// TCP source address.
    SourceIps,
    /// Workload address.
    DestinationIps,
    /// Workload port.
    DestinationPorts,
}

impl Attribute {
    pub(crate) const ALL: [Self; 6] = [
        Self::DestinationPorts,
        Self::Namespaces,
        Self::ServiceAccounts,
        Self::Principals,
        Self::SourceIps,
        Self::DestinationIps,
    ];

    /// Whether only a peer with an identity can have it.
    pub(crate) fn needs_identity(self) -> bool {
        matches!(self, Self::Principals | Self::Namespaces | Self::ServiceAccounts)
    }

    /// What the connection has for it, as a policy would write it.
    pub(crate) fn value(self, subject: &Subject<'_>) -> String {
        let identity = subject.connection.identity.as_ref();
        match self {
            Self::Principals => subject.principal.clone().unwrap_or_default(),
            Self::Namespaces => subject.namespace().to_owned(),
            Self::ServiceAccounts => {
                identity.map(|id| format!("{}/{}", id.namespace(), id.service_account())).unwrap_or_default()
            }
            Self::SourceIps => subject.source_ip.to_string(),
            Self::DestinationIps => subject.destination_ip.to_string(),
            Self::DestinationPorts => subject.connection.destination.port().to_string(),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Principals => "principal",
            Self::Namespaces => "namespace",
            Self::ServiceAccounts => "service account",
            Self::SourceIps => "source address",
            Self::DestinationIps => "destination address",
            Self::DestinationPorts => "destination port",
        })
    }
}

/// Why an attribute does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The positive list lacks the connection's value.
    NotListed,
    /// An entry of the negative list matches.
    Excluded {
        /// The entry as the policy writes it.
        entry: String,
    },
}

impl Policy {
    /// Index of the first rule that matches.
    pub(crate) fn matching_rule(&self, subject: &Subject<'_>) -> Option<usize> {
        self.rules.iter().position(|rule| rule.matches(subject, self.action))
    }
}

impl Rule {
    pub(crate) fn matches(&self, subject: &Subject<'_>, action: Action) -> bool {
        self.clauses.iter().all(|clause| clause.matches(subject, action))
    }
}

impl Clause {
    pub(crate) fn matches(&self, subject: &Subject<'_>, action: Action) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| m.matches(subject, action))
    }
}

impl Match {
    pub(crate) fn matches(&self, subject: &Subject<'_>, action: Action) -> bool {
        match (self.lost_attribute, action) {
            (true, Action::Allow) => return false,
            (true, Action::Deny) => {}
            (false, _) if self.is_empty() => return false,
            (false, _) => {}
        }
        Attribute::ALL.into_iter().all(|attribute| self.holds(attribute, subject, None))
    }

    /// Whether no attribute is constrained.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// Entries of all lists together.
    pub(crate) fn entries(&self) -> usize {
        self.namespaces.len()
            + self.not_namespaces.len()
            + self.principals.len()
            + self.not_principals.len()
            + self.service_accounts.len()
            + self.not_service_accounts.len()
            + self.source_ips.len()
            + self.not_source_ips.len()
            + self.destination_ips.len()
            + self.not_destination_ips.len()
            + self.destination_ports.len()
            + self.not_destination_ports.len()
    }

    /// Whether `attribute` holds. With `why`, every reason that it does not is added there.
    fn holds(&self, attribute: Attribute, subject: &Subject<'_>, why: Option<&mut Vec<Mismatch>>) -> bool {
        let port = subject.connection.destination.port();
        match attribute {
            Attribute::Namespaces => {
                check(why, &self.namespaces, &self.not_namespaces, |m| string_matches(m, subject.namespace()))
            }
            Attribute::Principals => check(why, &self.principals, &self.not_principals, |m| {
                subject.principal.as_ref().is_some_and(|principal| string_matches(m, principal))
            }),
            Attribute::ServiceAccounts => {
                check(why, &self.service_accounts, &self.not_service_accounts, |account| is_account(account, subject))
            }
            Attribute::SourceIps => {
                check(why, &self.source_ips, &self.not_source_ips, |net| within(net, subject.source_ip))
            }
            Attribute::DestinationIps => {
                check(why, &self.destination_ips, &self.not_destination_ips, |net| within(net, subject.destination_ip))
            }
            Attribute::DestinationPorts => {
                check(why, &self.destination_ports, &self.not_destination_ports, |entry| *entry == port)
            }
        }
    }

    /// Every reason why `attribute` does not hold.
    pub(crate) fn mismatches(&self, attribute: Attribute, subject: &Subject<'_>) -> Vec<Mismatch> {
        let mut why = Vec::new();
        self.holds(attribute, subject, Some(&mut why));
        why
    }
}

fn check<T: fmt::Display>(
    why: Option<&mut Vec<Mismatch>>,
    positive: &[T],
    negative: &[T],
    holds: impl Fn(&T) -> bool,
) -> bool {
    let listed = positive.is_empty() || positive.iter().any(&holds);
    let excluded = negative.iter().any(&holds);
    if let Some(why) = why {
        let exclusions = negative.iter().filter(|entry| holds(entry));
        why.extend(exclusions.map(|entry| Mismatch::Excluded { entry: entry.to_string() }));
        if !listed {
            why.push(Mismatch::NotListed);
        }
    }
    listed && !excluded
}

pub(crate) fn string_matches(matcher: &StringMatch, value: &str) -> bool {
    match matcher {
        StringMatch::Exact(text) => value == text,
        StringMatch::Prefix(text) => value.starts_with(text.as_str()),
        StringMatch::Suffix(text) => value.ends_with(text.as_str()),
        StringMatch::Presence => !value.is_empty(),
    }
}

fn is_account(account: &ServiceAccount, subject: &Subject<'_>) -> bool {
    subject
        .connection
        .identity
        .as_ref()
        .is_some_and(|id| id.namespace() == account.namespace && id.service_account() == account.service_account)
}

/// Families never mix: a range of one does not hold an address of the other.
fn within(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip)
}
