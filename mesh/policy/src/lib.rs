//! Authorization: policies as the wire carries them, their evaluation against one connection
//! (layer 4, this module) or request ([`l7`]), and the nearest change that would allow what was
//! denied.
//!
//! Everything is pure: a policy set and a connection in, a [`Verdict`] out. Enforcement happens at
//! the destination proxy, `explain` calls the same functions.

mod decode;
mod evaluate;
pub mod l7;
mod matching;
mod suggest;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use mesh_core::{Identity, NamespacedName};
use serde::Serialize;

pub use decode::DecodeError;
pub use evaluate::{DryRunNote, Reason, RuleRef, Verdict, evaluate};
pub use matching::Attribute;
pub use suggest::{Change, Suggestion, nearest_allow};

/// One authorization policy, decoded.
///
/// # Source
/// `istio.security.Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Resource name, `namespace/name`.
    pub key: NamespacedName,
    /// Which workloads it applies to.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// Only noted in the log, never enforced.
    pub dry_run: bool,
    /// Any one may match; none: the policy never matches.
    pub rules: Vec<Rule>,
    /// What was left out while decoding, for the log.
    pub notes: Vec<String>,
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Scope {
    /// All workloads of the mesh.
    Global,
    /// All workloads of the policy's namespace.
    Namespace,
    /// Workloads that name it.
    WorkloadSelector,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// A connection that some allow policy applies to must match one.
    Allow,
    /// A connection that matches is refused.
    Deny,
}

/// All clauses must match; none: matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rule {
    /// Joined by AND.
    pub clauses: Vec<Clause>,
}

/// Any match suffices; none: matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Clause {
    /// Joined by OR.
    pub matches: Vec<Match>,
}

/// Attributes of a connection. All lists that are set must hold: a positive list when any entry
/// matches, a negative one when none does. A match without any attribute is skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Namespace of the source identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<StringMatch>,
    /// Excluded namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<StringMatch>,
    /// Source identity without `spiffe://`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<StringMatch>,
    /// Excluded identities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<StringMatch>,
    /// Source service account, whatever the trust domain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccount>,
    /// Excluded service accounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<ServiceAccount>,
    /// Source address of the TCP connection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<IpNet>,
    /// Excluded source addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_source_ips: Vec<IpNet>,
    /// Address of the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ips: Vec<IpNet>,
    /// Excluded workload addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ips: Vec<IpNet>,
    /// Port of the workload, not of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    /// Excluded ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
    /// Some list was sent with entries of which none could be read. The match then never matches
    /// in an allow policy; in a deny policy the attribute holds for every connection.
    #[serde(skip)]
    pub lost_attribute: bool,
}

/// How a text is compared; case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum StringMatch {
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Any text that is not empty.
    Presence,
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Presence => f.write_str("*"),
        }
    }
}

/// A service account of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

/// What policies see of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// TCP source address; for traffic through a waypoint that is the waypoint's.
    pub source_ip: IpAddr,
    /// Who the peer proved to be; `None` for plaintext.
    pub identity: Option<Identity>,
    /// Where the workload will be reached: its address and its own port.
    pub destination: SocketAddr,
}

#[cfg(test)]
mod tests;
