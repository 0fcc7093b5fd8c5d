//! A policy of a local file.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::addr::ip_to_bytes;
use mesh_wire::security as wire;
use serde::{Deserialize, Serialize};

/// Names and values as in `config_dump`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    name: String,
    namespace: String,
    scope: Scope,
    action: Action,
    #[serde(default)]
    dry_run: bool,
    /// Any rule, all its clauses, any match of each.
    #[serde(default)]
    rules: Vec<Vec<Vec<Match>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum Scope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum Action {
    Allow,
    Deny,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Match {
    namespaces: Vec<StringMatch>,
    not_namespaces: Vec<StringMatch>,
    principals: Vec<StringMatch>,
    not_principals: Vec<StringMatch>,
    service_accounts: Vec<ServiceAccount>,
    not_service_accounts: Vec<ServiceAccount>,
    source_ips: Vec<Range>,
    not_source_ips: Vec<Range>,
    destination_ips: Vec<Range>,
    not_destination_ips: Vec<Range>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum StringMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Presence,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceAccount {
    namespace: String,
    service_account: String,
}

/// `ip/length`, or an address alone.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
struct Range(IpNet);

impl Policy {
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What a control plane would send.
    pub(super) fn message(&self) -> wire::Authorization {
        let clause = |matches: &Vec<Match>| wire::Clause { matches: matches.iter().map(Match::message).collect() };
        let rule = |clauses: &Vec<Vec<Match>>| wire::Rule { clauses: clauses.iter().map(clause).collect() };
        wire::Authorization {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            scope: match self.scope {
                Scope::Global => wire::Scope::Global.into(),
                Scope::Namespace => wire::Scope::Namespace.into(),
                Scope::WorkloadSelector => wire::Scope::WorkloadSelector.into(),
            },
            action: match self.action {
                Action::Allow => wire::Action::Allow.into(),
                Action::Deny => wire::Action::Deny.into(),
            },
            rules: self.rules.iter().map(rule).collect(),
            dry_run: self.dry_run,
            ..wire::Authorization::default()
        }
    }
}

impl Match {
    fn message(&self) -> wire::Match {
        let texts = |list: &[StringMatch]| list.iter().map(StringMatch::message).collect();
        let accounts = |list: &[ServiceAccount]| list.iter().map(ServiceAccount::message).collect();
        let ranges = |list: &[Range]| list.iter().map(Range::message).collect();
        let ports = |list: &[u16]| list.iter().map(|port| u32::from(*port)).collect();
        wire::Match {
            namespaces: texts(&self.namespaces),
            not_namespaces: texts(&self.not_namespaces),
            principals: texts(&self.principals),
            not_principals: texts(&self.not_principals),
            source_ips: ranges(&self.source_ips),
            not_source_ips: ranges(&self.not_source_ips),
            destination_ips: ranges(&self.destination_ips),
            not_destination_ips: ranges(&self.not_destination_ips),
            destination_ports: ports(&self.destination_ports),
            not_destination_ports: ports(&self.not_destination_ports),
            service_accounts: accounts(&self.service_accounts),
            not_service_accounts: accounts(&self.not_service_accounts),
            ..wire::Match::default()
        }
    }
}

impl StringMatch {
    fn message(&self) -> wire::StringMatch {
        use wire::string_match::MatchType;
        let kind = match self {
            Self::Exact(text) => MatchType::Exact(text.clone()),
            Self::Prefix(text) => MatchType::Prefix(text.clone()),
            Self::Suffix(text) => MatchType::Suffix(text.clone()),
            Self::Presence => MatchType::Presence(()),
        };
        wire::StringMatch { match_type: Some(kind) }
    }
}

impl ServiceAccount {
    fn message(&self) -> wire::ServiceAccountMatch {
        wire::ServiceAccountMatch { namespace: self.namespace.clone(), service_account: self.service_account.clone() }
    }
}

impl Range {
    fn message(&self) -> wire::Address {
        wire::Address { address: ip_to_bytes(self.0.addr()), length: self.0.prefix_len().into() }
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let alone = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| alone()).map(Self).map_err(|_| format!("{text:?} is neither an address nor a range"))
    }
}

impl From<Range> for String {
    fn from(Range(net): Range) -> Self {
        net.to_string()
    }
}
