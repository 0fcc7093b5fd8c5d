//! Must-pass rows of the layer-7 policy specification that need no network, and tables beside them.

#![allow(clippy::indexing_slicing)] // reason: tests

mod properties;
mod rows;
mod suggestions;

use http::HeaderMap;
use mesh_core::Identity;
use mesh_wire::l7 as wire;

use super::{Http, L7Request, Policies, Token};

pub(super) type Rule = wire::AuthorizationRule;
pub(super) type Source = wire::AuthorizationSource;
pub(super) type Operation = wire::AuthorizationOperation;

pub(super) fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

pub(super) fn policy(action: wire::authorization::Action, name: &str, rules: Vec<Rule>) -> wire::Authorization {
    wire::Authorization {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        action: action.into(),
        dry_run: false,
        rules,
    }
}

pub(super) fn allow(rules: Vec<Rule>) -> wire::Authorization {
    policy(wire::authorization::Action::Allow, "may", rules)
}

pub(super) fn deny(rules: Vec<Rule>) -> wire::Authorization {
    policy(wire::authorization::Action::Deny, "may-not", rules)
}

pub(super) fn audit(rules: Vec<Rule>) -> wire::Authorization {
    policy(wire::authorization::Action::Audit, "watch", rules)
}

pub(super) fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

pub(super) fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

pub(super) fn when(key: &str, values: &[&str], not_values: &[&str]) -> Rule {
    let condition =
        wire::AuthorizationCondition { key: key.to_owned(), values: texts(values), not_values: texts(not_values) };
    Rule { when: vec![condition], ..Rule::default() }
}

pub(super) fn compile(policies: &[wire::Authorization]) -> Policies {
    Policies::compile(policies, &texts(&["cluster.local", "old.example"])).unwrap()
}

/// A request whose parts tests change.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) source: Option<Identity>,
    pub(super) source_ip: &'static str,
    pub(super) remote_ip: &'static str,
    pub(super) destination_ip: Option<&'static str>,
    pub(super) port: u16,
    pub(super) sni: Option<&'static str>,
    pub(super) host: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) token: Option<TestToken>,
    pub(super) http: bool,
}

pub(super) fn call() -> Call {
    Call {
        source: Some("spiffe://cluster.local/ns/a/sa/web".parse().unwrap()),
        source_ip: "10.1.0.8",
        remote_ip: "10.1.0.8",
        destination_ip: Some("10.2.0.9"),
        port: 8080,
        sni: None,
        host: "a.com",
        method: "GET",
        path: "/",
        headers: Vec::new(),
        token: None,
        http: true,
    }
}

impl Call {
    pub(super) fn with<T>(&self, policies: &Policies, ask: impl FnOnce(&Policies, &L7Request<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, value.parse().unwrap());
        }
        let http = Http {
            host: self.host,
            method: self.method,
            path: self.path,
            headers: &headers,
            token: self.token.as_ref().map(|token| token as &dyn Token),
        };
        let request = L7Request {
            source: self.source.as_ref(),
            source_ip: self.source_ip.parse().unwrap(),
            remote_ip: self.remote_ip.parse().unwrap(),
            destination_ip: self.destination_ip.map(|ip| ip.parse().unwrap()),
            destination_port: self.port,
            sni: self.sni,
            http: self.http.then_some(http),
        };
        ask(policies, &request)
    }

    pub(super) fn allowed(&self, policies: &Policies) -> bool {
        self.with(policies, |policies, request| policies.evaluate(request).allowed())
    }

    pub(super) fn path(path: &'static str) -> Self {
        Self { path, ..call() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct TestToken {
    pub(super) issuer: &'static str,
    pub(super) subject: &'static str,
    pub(super) audiences: Vec<String>,
    pub(super) presenter: Option<&'static str>,
    pub(super) claims: Vec<(&'static str, Vec<&'static str>)>,
}

impl Default for TestToken {
    fn default() -> Self {
        Self { issuer: "iss-1", subject: "me", audiences: Vec::new(), presenter: None, claims: Vec::new() }
    }
}

impl Token for TestToken {
    fn issuer(&self) -> &str {
        self.issuer
    }

    fn subject(&self) -> &str {
        self.subject
    }

    fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn presenter(&self) -> Option<&str> {
        self.presenter
    }

    fn any_claim(&self, path: &[String], test: &mut dyn FnMut(&str) -> bool) -> Option<bool> {
        let path = path.join(".");
        let (_, values) = self.claims.iter().find(|(name, _)| *name == path)?;
        Some(values.iter().any(|value| test(value)))
    }
}
