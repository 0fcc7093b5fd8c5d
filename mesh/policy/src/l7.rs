//! Layer-7 authorization: the policies of a service, a proxy or a listener, evaluated against one request; against a
//! connection where there are no requests.
//!
//! A deny or audit policy whose rule has fields that only requests have is broader for connections: those fields count
//! as if they held. Such a rule of an allow policy never matches a connection. So nothing is ever weaker than written.

mod attribute;
mod compile;
mod entry;
mod rule;
mod subject;
mod suggest;
mod template;

use std::fmt;
use std::net::IpAddr;

use http::HeaderMap;
use mesh_core::{Identity, NamespacedName};

pub use compile::{CompileError, check};
use rule::Rule;
use subject::Subject;

/// All policies that apply to a request, whatever they are attached to.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: Vec<Policy>,
}

#[derive(Clone, Debug)]
struct Policy {
    key: NamespacedName,
    action: Action,
    dry_run: bool,
    rules: Vec<Rule>,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    Audit,
}

/// What policies see of a request, or of a connection.
#[derive(Clone, Copy)]
pub struct L7Request<'a> {
    /// Who the client proved to be.
    pub source: Option<&'a Identity>,
    /// Address of the direct peer (inside a tunnel: of the client's workload).
    pub source_ip: IpAddr,
    /// Address of the client as trusted proxies say; without any: the direct peer's.
    pub remote_ip: IpAddr,
    /// Address that was called, where it is one.
    pub destination_ip: Option<IpAddr>,
    /// Port that was called: of the service, of the workload for calls to its address.
    pub destination_port: u16,
    /// Name that the client asked for in TLS.
    pub sni: Option<&'a str>,
    /// `None`: a connection whose requests are not looked at.
    pub http: Option<Http<'a>>,
}

/// What policies see of an HTTP request.
#[derive(Clone, Copy)]
pub struct Http<'a> {
    /// As sent, with the port where there is one.
    pub host: &'a str,
    /// As sent; of gRPC `POST`.
    pub method: &'a str,
    /// Canonical, without the query.
    pub path: &'a str,
    /// As sent.
    pub headers: &'a HeaderMap,
    /// The validated token.
    pub token: Option<&'a dyn Token>,
}

/// A validated token.
pub trait Token {
    /// Claim `iss`.
    fn issuer(&self) -> &str;
    /// Claim `sub`, or empty.
    fn subject(&self) -> &str;
    /// Claim `aud`.
    fn audiences(&self) -> &[String];
    /// Claim `azp`.
    fn presenter(&self) -> Option<&str>;
    /// Calls `test` with each text that the claim at `path` holds until one satisfies it; `None`: no such claim.
    fn any_claim(&self, path: &[String], test: &mut dyn FnMut(&str) -> bool) -> Option<bool>;
}

/// What the policies say about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// What decided.
    pub decision: Decision<'p>,
    /// Audit policies that match.
    pub audits: Vec<RuleRef<'p>>,
    /// What dry-run policies would have said.
    pub dry_run: DryRun<'p>,
}

/// What decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'p> {
    /// No allow policy applies, and no deny policy matches.
    NothingRequired,
    /// An allow policy matches.
    Allowed(RuleRef<'p>),
    /// A deny policy matches.
    Denied(RuleRef<'p>),
    /// Allow policies apply, and none matches.
    NoneMatched,
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'p> {
    /// The policy.
    pub policy: &'p NamespacedName,
    /// Position of the rule, from 0.
    pub rule: usize,
}

/// What dry-run policies would have done; it never decides anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DryRun<'p> {
    /// A deny policy matches.
    pub would_deny: Option<RuleRef<'p>>,
    /// An allow policy matches.
    pub would_allow: Option<RuleRef<'p>>,
    /// Allow policies apply, and none matches.
    pub none_matched: bool,
}

impl Verdict<'_> {
    /// Whether the request may go on.
    #[must_use]
    pub fn allowed(&self) -> bool {
        matches!(self.decision, Decision::NothingRequired | Decision::Allowed(_))
    }
}

impl<'p> Decision<'p> {
    /// The rule that decided, where it is one.
    #[must_use]
    pub fn rule(&self) -> Option<RuleRef<'p>> {
        match self {
            Self::Allowed(rule) | Self::Denied(rule) => Some(*rule),
            Self::NothingRequired | Self::NoneMatched => None,
        }
    }

    /// What the access log names: the rule's id, `none` where no rule decided.
    #[must_use]
    pub fn policy_id(&self) -> String {
        self.rule().map_or_else(|| "none".to_owned(), |rule| rule.id())
    }
}

impl RuleRef<'_> {
    /// `ns[<namespace>]-policy[<name>]-rule[<position>]`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("ns[{}]-policy[{}]-rule[{}]", self.policy.namespace, self.policy.name, self.rule)
    }
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.policy, self.rule)
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingRequired => f.write_str("no allow policies, so allowed"),
            Self::Allowed(rule) => write!(f, "allowed by policy {rule}"),
            Self::Denied(rule) => write!(f, "explicitly denied by policy {rule}"),
            Self::NoneMatched => f.write_str("allow policies exist but none matched"),
        }
    }
}

impl Policies {
    /// Whether there is none: everything is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Names of the policies that are enforced and of those that are not.
    pub fn names(&self) -> impl Iterator<Item = &NamespacedName> {
        self.policies.iter().map(|policy| &policy.key)
    }

    /// Audit policies are noted; any deny policy that matches refuses; without allow policies the rest is allowed, with
    /// them only what one of them matches.
    #[must_use]
    pub fn evaluate(&self, request: &L7Request<'_>) -> Verdict<'_> {
        if self.policies.is_empty() {
            let (audits, dry_run) = (Vec::new(), DryRun::default());
            return Verdict { decision: Decision::NothingRequired, audits, dry_run };
        }
        let subject = Subject::new(request);
        Verdict {
            audits: self.enforced(Action::Audit).filter_map(|policy| policy.matching(&subject)).collect(),
            decision: self.decide(&subject),
            dry_run: self.dry_run(&subject),
        }
    }

    fn decide(&self, subject: &Subject<'_>) -> Decision<'_> {
        if let Some(rule) = self.enforced(Action::Deny).find_map(|policy| policy.matching(subject)) {
            return Decision::Denied(rule);
        }
        if let Some(rule) = self.enforced(Action::Allow).find_map(|policy| policy.matching(subject)) {
            return Decision::Allowed(rule);
        }
        match self.enforced(Action::Allow).next() {
            None => Decision::NothingRequired,
            Some(_) => Decision::NoneMatched,
        }
    }

    fn dry_run(&self, subject: &Subject<'_>) -> DryRun<'_> {
        let shadow = |action| self.policies.iter().filter(move |policy| policy.dry_run && policy.action == action);
        let would_allow = shadow(Action::Allow).find_map(|policy| policy.matching(subject));
        DryRun {
            would_deny: shadow(Action::Deny).find_map(|policy| policy.matching(subject)),
            would_allow,
            none_matched: would_allow.is_none() && shadow(Action::Allow).next().is_some(),
        }
    }

    fn enforced(&self, action: Action) -> impl Iterator<Item = &Policy> {
        self.policies.iter().filter(move |policy| policy.action == action && !policy.dry_run)
    }
}

impl Policy {
    fn matching(&self, subject: &Subject<'_>) -> Option<RuleRef<'_>> {
        let rule = self.rules.iter().position(|rule| rule.matches(subject, self.action))?;
        Some(RuleRef { policy: &self.key, rule })
    }
}

#[cfg(test)]
mod tests;
