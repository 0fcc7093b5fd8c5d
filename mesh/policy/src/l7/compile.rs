//! Policies from the wire.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::NamespacedName;
use mesh_wire::l7 as wire;

use super::attribute::Attribute;
use super::entry::{self, Entry, Glob};
use super::rule::{Field, Fields, Rule};
use super::template::Template;
use super::{Action, Policies, Policy};
use crate::StringMatch;

/// A policy that cannot be enforced as written. What it is attached to is to refuse traffic rather than go without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy}: {field}: {value:?} is not {expected}")]
pub struct CompileError {
    /// `namespace/name`.
    pub policy: String,
    /// Where it is, such as `rules[0].to[1].paths`.
    pub field: String,
    /// What it says.
    pub value: String,
    /// What it could have said.
    pub expected: &'static str,
}

impl Policies {
    /// Compiles what the wire says; `trust_domains` are the mesh's own and its aliases, which mean the same in
    /// principals.
    ///
    /// # Errors
    /// Names the first value that has no meaning.
    pub fn compile(policies: &[wire::Authorization], trust_domains: &[String]) -> Result<Self, CompileError> {
        let policies = policies.iter().map(|policy| Compiler { policy, trust_domains }.policy());
        Ok(Self { policies: policies.collect::<Result<_, _>>()? })
    }
}

/// Whether a policy can be enforced as written.
///
/// # Errors
/// As [`Policies::compile`].
pub fn check(policy: &wire::Authorization) -> Result<(), CompileError> {
    Compiler { policy, trust_domains: &[] }.policy().map(|_| ())
}

struct Compiler<'a> {
    policy: &'a wire::Authorization,
    trust_domains: &'a [String],
}

impl Compiler<'_> {
    fn policy(&self) -> Result<Policy, CompileError> {
        let action = wire::authorization::Action::try_from(self.policy.action)
            .map_err(|_| self.error("action", &self.policy.action.to_string(), "ALLOW, DENY or AUDIT"))?;
        let rules = self.policy.rules.iter().enumerate().map(|(n, rule)| self.rule(rule, &format!("rules[{n}]")));
        Ok(Policy {
            key: NamespacedName::new(self.policy.namespace.as_str(), self.policy.name.as_str()),
            action: match action {
                wire::authorization::Action::Allow => Action::Allow,
                wire::authorization::Action::Deny => Action::Deny,
                wire::authorization::Action::Audit => Action::Audit,
            },
            dry_run: self.policy.dry_run,
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    fn rule(&self, rule: &wire::AuthorizationRule, at: &str) -> Result<Rule, CompileError> {
        let from = rule.from.iter().enumerate().map(|(n, source)| self.source(source, &format!("{at}.from[{n}]")));
        let to = rule.to.iter().enumerate().map(|(n, to)| self.operation(to, &format!("{at}.to[{n}]")));
        let when = rule.when.iter().enumerate().map(|(n, when)| self.condition(when, &format!("{at}.when[{n}]")));
        Ok(Rule {
            from: from.collect::<Result<_, _>>()?,
            to: to.collect::<Result<_, _>>()?,
            when: when.collect::<Result<_, _>>()?,
        })
    }

    fn source(&self, source: &wire::AuthorizationSource, at: &str) -> Result<Fields, CompileError> {
        self.fields(
            at,
            [
                (Attribute::Principal, "principals", &source.principals, &source.not_principals),
                (
                    Attribute::RequestPrincipal,
                    "request_principals",
                    &source.request_principals,
                    &source.not_request_principals,
                ),
                (Attribute::Namespace, "namespaces", &source.namespaces, &source.not_namespaces),
                (Attribute::SourceIp, "ip_blocks", &source.ip_blocks, &source.not_ip_blocks),
                (Attribute::RemoteIp, "remote_ip_blocks", &source.remote_ip_blocks, &source.not_remote_ip_blocks),
                (Attribute::ServiceAccount, "service_accounts", &source.service_accounts, &source.not_service_accounts),
                (Attribute::TrustDomain, "trust_domains", &source.trust_domains, &source.not_trust_domains),
            ],
        )
    }

    fn operation(&self, to: &wire::AuthorizationOperation, at: &str) -> Result<Fields, CompileError> {
        self.fields(
            at,
            [
                (Attribute::Host, "hosts", &to.hosts, &to.not_hosts),
                (Attribute::Port, "ports", &to.ports, &to.not_ports),
                (Attribute::Method, "methods", &to.methods, &to.not_methods),
                (Attribute::Path, "paths", &to.paths, &to.not_paths),
            ],
        )
    }

    fn fields<const N: usize>(
        &self,
        at: &str,
        lists: [(Attribute, &str, &Vec<String>, &Vec<String>); N],
    ) -> Result<Fields, CompileError> {
        let mut fields = Vec::new();
        for (attribute, name, values, exclusions) in lists {
            if values.is_empty() && exclusions.is_empty() {
                continue;
            }
            fields.push(Field {
                values: self.entries(&attribute, values, &format!("{at}.{name}"))?,
                exclusions: self.entries(&attribute, exclusions, &format!("{at}.not_{name}"))?,
                attribute,
            });
        }
        if fields.is_empty() {
            return Err(self.error(at, "", "a source or operation with at least one field"));
        }
        Ok(fields)
    }

    fn condition(&self, when: &wire::AuthorizationCondition, at: &str) -> Result<Field, CompileError> {
        let attribute = Attribute::of_key(&when.key)
            .ok_or_else(|| self.error(&format!("{at}.key"), &when.key, "the key of an attribute that is known here"))?;
        if when.values.is_empty() && when.not_values.is_empty() {
            return Err(self.error(&format!("{at}.values"), "", "a condition with at least one value"));
        }
        Ok(Field {
            values: self.entries(&attribute, &when.values, &format!("{at}.values"))?,
            exclusions: self.entries(&attribute, &when.not_values, &format!("{at}.not_values"))?,
            attribute,
        })
    }

    fn entries(&self, attribute: &Attribute, values: &[String], at: &str) -> Result<Vec<Entry>, CompileError> {
        let mut entries = Vec::with_capacity(values.len());
        for (n, value) in values.iter().enumerate() {
            let wrong = |expected| self.error(&format!("{at}[{n}]"), value, expected);
            if value.is_empty() {
                return Err(wrong("a text that is not empty"));
            }
            match attribute {
                Attribute::Principal => entries.extend(self.principals(value)),
                Attribute::ServiceAccount => entries.push(self.account(value)),
                Attribute::Namespace | Attribute::TrustDomain => {
                    let exact = || Entry::Text(StringMatch::Exact(value.clone()));
                    entries.push(Glob::parse(value).map_or_else(exact, Entry::Glob));
                }
                Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => {
                    entries.push(net(value).map(Entry::Net).ok_or_else(|| wrong("an IP address or range"))?);
                }
                Attribute::Port => {
                    let port = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
                    entries.push(port.map(Entry::Port).ok_or_else(|| wrong("a port number"))?);
                }
                Attribute::RequestPrincipal => entries.push(entry::request_principal(value)),
                Attribute::Host => entries.push(Entry::Text(entry::text(&value.to_ascii_lowercase()))),
                Attribute::Path if Template::is_meant(value) => {
                    entries.push(Template::parse(value).map(Entry::Template).ok_or_else(|| wrong("a path template"))?);
                }
                Attribute::Path
                | Attribute::Method
                | Attribute::Sni
                | Attribute::Header(_)
                | Attribute::Audience
                | Attribute::Presenter
                | Attribute::Claim(_) => entries.push(Entry::Text(entry::text(value))),
            }
        }
        Ok(entries)
    }

    /// A principal of one of the mesh's trust domains is meant in all of them. Where the trust domain is a wildcard, or
    /// another mesh's, it stands as written.
    fn principals(&self, value: &str) -> Vec<Entry> {
        let text = |value: &str| Entry::Text(entry::text(value));
        match value.split_once('/') {
            Some((domain, path)) if self.trust_domains.iter().any(|known| known == domain) => {
                self.trust_domains.iter().map(|domain| text(&format!("{domain}/{path}"))).collect()
            }
            _ => vec![text(value)],
        }
    }

    /// Without a namespace, the policy's own is meant.
    fn account(&self, value: &str) -> Entry {
        let (namespace, name) = value.split_once('/').unwrap_or((&self.policy.namespace, value));
        Entry::Account { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn error(&self, field: &str, value: &str, expected: &'static str) -> CompileError {
        let policy = format!("{}/{}", self.policy.namespace, self.policy.name);
        CompileError { policy, field: field.to_owned(), value: value.to_owned(), expected }
    }
}

fn net(value: &str) -> Option<IpNet> {
    let single = || value.parse::<IpAddr>().ok().map(|ip| IpNet::from(mesh_core::addr::canonical_ip(ip)));
    value.parse().ok().or_else(single)
}
