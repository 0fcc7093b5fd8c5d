//! One alternative of a rule, split into what L4 can evaluate and what it cannot.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::security::{Operation, Source, WhenCondition};
use mesh_core::addr::ip_to_bytes;
use mesh_wire::security::string_match::MatchType;
use mesh_wire::security::{Address, Match, ServiceAccountMatch, StringMatch};

use super::domains::Domains;

/// An alternative as L4 sees it.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// The part that can be evaluated.
    pub(super) matcher: Match,
    /// What is not in `matcher`.
    pub(super) unsupported: Vec<Unsupported>,
    /// Leaving out what could not be read would make the alternative match more than was written.
    pub(super) unmatchable: bool,
}

/// Something written that a node proxy cannot evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsupported {
    /// Field, with the value when that is what is wrong.
    pub(super) what: String,
    /// An attribute that only L7 can see, as opposed to a value that cannot be read.
    pub(super) l7: bool,
}

impl Attributes {
    /// An entry of `to`.
    pub(super) fn of_operation(operation: &Operation) -> Self {
        let mut attributes = Self::default();
        attributes.matcher.destination_ports = attributes.read("ports", &operation.ports, false, port);
        attributes.matcher.not_destination_ports = attributes.read("notPorts", &operation.not_ports, true, port);
        attributes.l7("hosts", &operation.hosts);
        attributes.l7("notHosts", &operation.not_hosts);
        attributes.l7("methods", &operation.methods);
        attributes.l7("notMethods", &operation.not_methods);
        attributes.l7("paths", &operation.paths);
        attributes.l7("notPaths", &operation.not_paths);
        attributes
    }

    /// An entry of `from`, in a policy of `namespace`.
    pub(super) fn of_source(source: &Source, namespace: &str, domains: &Domains<'_>) -> Self {
        let mut attributes = Self::default();
        let account = |text: &str| service_account(text, namespace);
        attributes.matcher.principals = strings(&domains.expand(&source.principals));
        attributes.matcher.not_principals = strings(&domains.expand(&source.not_principals));
        attributes.matcher.namespaces = strings(&source.namespaces);
        attributes.matcher.not_namespaces = strings(&source.not_namespaces);
        attributes.matcher.service_accounts =
            attributes.read("serviceAccounts", &source.service_accounts, false, account);
        attributes.matcher.not_service_accounts =
            attributes.read("notServiceAccounts", &source.not_service_accounts, true, account);
        attributes.matcher.source_ips = attributes.read("ipBlocks", &source.ip_blocks, false, block);
        attributes.matcher.not_source_ips = attributes.read("notIpBlocks", &source.not_ip_blocks, true, block);
        attributes.l7("remoteIpBlocks", &source.remote_ip_blocks);
        attributes.l7("notRemoteIpBlocks", &source.not_remote_ip_blocks);
        attributes.l7("requestPrincipals", &source.request_principals);
        attributes.l7("notRequestPrincipals", &source.not_request_principals);
        attributes.l7("trustDomains", &source.trust_domains);
        attributes.l7("notTrustDomains", &source.not_trust_domains);
        attributes
    }

    /// An entry of `when`.
    pub(super) fn of_condition(condition: &WhenCondition, domains: &Domains<'_>) -> Self {
        let mut attributes = Self::default();
        let (values, not_values) = (&condition.values, &condition.not_values);
        let key = condition.key.as_str();
        match key {
            "source.principal" => {
                attributes.matcher.principals = strings(&domains.expand(values));
                attributes.matcher.not_principals = strings(&domains.expand(not_values));
            }
            "source.namespace" => {
                attributes.matcher.namespaces = strings(values);
                attributes.matcher.not_namespaces = strings(not_values);
            }
            "source.ip" => {
                attributes.matcher.source_ips = attributes.read(key, values, false, block);
                attributes.matcher.not_source_ips = attributes.read(key, not_values, true, block);
            }
            "destination.ip" => {
                attributes.matcher.destination_ips = attributes.read(key, values, false, block);
                attributes.matcher.not_destination_ips = attributes.read(key, not_values, true, block);
            }
            "destination.port" => {
                attributes.matcher.destination_ports = attributes.read(key, values, false, port);
                attributes.matcher.not_destination_ports = attributes.read(key, not_values, true, port);
            }
            _ => attributes.unsupported.push(Unsupported { what: format!("when[{key}]"), l7: true }),
        }
        attributes
    }

    /// Reads the entries of a list; what cannot be read is left out and noted.
    ///
    /// A positive list loses its meaning when nothing of it is left, a negative one with the first loss.
    fn read<T>(&mut self, field: &str, entries: &[String], negative: bool, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries {
            match read(entry) {
                Some(value) => values.push(value),
                None => self.unsupported.push(Unsupported { what: format!("{field} {entry:?}"), l7: false }),
            }
        }
        let lost = values.len() < entries.len();
        self.unmatchable |= lost && (negative || values.is_empty());
        values
    }

    fn l7(&mut self, field: &str, entries: &[String]) {
        if !entries.is_empty() {
            self.unsupported.push(Unsupported { what: field.to_owned(), l7: true });
        }
    }
}

fn strings(values: &[String]) -> Vec<StringMatch> {
    values.iter().map(|value| StringMatch { match_type: Some(string(value)) }).collect()
}

/// `*` is presence, `*x` a suffix, `x*` a prefix, all else exact.
fn string(value: &str) -> MatchType {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => MatchType::Presence(()),
        (Some(suffix), _) => MatchType::Suffix(suffix.to_owned()),
        (None, Some(prefix)) => MatchType::Prefix(prefix.to_owned()),
        (None, None) => MatchType::Exact(value.to_owned()),
    }
}

fn port(text: &str) -> Option<u32> {
    text.parse::<u16>().ok().map(u32::from)
}

/// An address or a CIDR block.
fn block(text: &str) -> Option<Address> {
    let net = text.parse::<IpAddr>().map(IpNet::from).ok().or_else(|| text.parse().ok())?;
    Some(Address { address: ip_to_bytes(net.addr()), length: net.prefix_len().into() })
}

/// `account` of the policy's namespace, or `namespace/account`.
fn service_account(text: &str, namespace: &str) -> Option<ServiceAccountMatch> {
    let (namespace, account) = text.split_once('/').unwrap_or((namespace, text));
    let readable = !namespace.is_empty() && !account.is_empty() && !account.contains('/');
    readable.then(|| ServiceAccountMatch { namespace: namespace.to_owned(), service_account: account.to_owned() })
}
