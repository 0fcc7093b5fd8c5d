//! Matching, order, hosts, explanations.

#![allow(clippy::indexing_slicing)] // reason: tests

mod cost;
mod explanations;
mod matches;
mod naive;
mod rows;

use http::HeaderMap;
use mesh_wire::l7;
use mesh_wire::l7::path_match::Kind as PathKind;
use mesh_wire::l7::string_match::Kind as TextKind;

use super::Table;
use crate::{Claims, Limits, RequestView};

pub(crate) fn exact(text: &str) -> Option<l7::StringMatch> {
    Some(l7::StringMatch { kind: Some(TextKind::Exact(text.to_owned())), ignore_case: false })
}

pub(crate) fn text(kind: TextKind) -> Option<l7::StringMatch> {
    Some(l7::StringMatch { kind: Some(kind), ignore_case: false })
}

pub(crate) fn header(name: &str, value: Option<l7::StringMatch>) -> l7::HeaderMatch {
    l7::HeaderMatch { name: name.to_owned(), value }
}

pub(crate) fn query(name: &str, value: Option<l7::StringMatch>) -> l7::QueryMatch {
    l7::QueryMatch { name: name.to_owned(), value }
}

pub(crate) fn path(kind: PathKind) -> l7::HttpMatch {
    l7::HttpMatch { path: Some(l7::PathMatch { kind: Some(kind), ignore_case: false }), ..Default::default() }
}

pub(crate) fn exact_path(text: &str) -> l7::HttpMatch {
    path(PathKind::Exact(text.to_owned()))
}

pub(crate) fn below(text: &str) -> l7::HttpMatch {
    path(PathKind::SegmentPrefix(text.to_owned()))
}

pub(crate) fn starting(text: &str) -> l7::HttpMatch {
    path(PathKind::Prefix(text.to_owned()))
}

pub(crate) fn regex(text: &str) -> l7::HttpMatch {
    path(PathKind::Regex(text.to_owned()))
}

/// A rule that forwards to one backend.
pub(crate) fn forward(backend: u32) -> l7::HttpRule {
    let backend = l7::WeightedBackend {
        weight: 1,
        target: Some(l7::weighted_backend::Target::Backend(backend)),
        ..Default::default()
    };
    rule(l7::http_rule::Action::Forward(l7::Forward { backends: vec![backend] }))
}

pub(crate) fn rule(action: l7::http_rule::Action) -> l7::HttpRule {
    let origin =
        l7::Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: "web".into(), ..Default::default() };
    l7::HttpRule { origin: Some(origin), action: Some(action), ..Default::default() }
}

pub(crate) fn virtual_host(hostnames: &[&str], entries: Vec<(l7::HttpMatch, u32)>) -> l7::VirtualHost {
    let entries = entries.into_iter().map(|(matching, rule)| l7::HttpEntry { r#match: Some(matching), rule });
    l7::VirtualHost { hostnames: hostnames.iter().map(|name| (*name).to_owned()).collect(), entries: entries.collect() }
}

/// Entries of all hosts, in this order; the n-th leads to backend n.
pub(crate) fn entries(matches: Vec<l7::HttpMatch>) -> Table {
    let rules = (0..).map(forward).take(matches.len()).collect();
    let entries = matches.into_iter().zip(0..).collect();
    compile(&l7::HttpTable { hosts: vec![virtual_host(&["*"], entries)], rules })
}

pub(crate) fn compile(table: &l7::HttpTable) -> Table {
    Table::compile(table, &Limits::default()).unwrap()
}

/// A request whose parts tests change.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) scheme: &'static str,
    pub(crate) authority: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) port: u16,
    pub(crate) claims: Option<TestClaims>,
}

pub(crate) fn get(target: impl Into<String>) -> Call {
    Call {
        method: "GET",
        scheme: "http",
        authority: "h",
        target: target.into(),
        headers: Vec::new(),
        port: 8080,
        claims: None,
    }
}

impl Call {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn view<T>(&self, use_it: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, value.parse().unwrap());
        }
        let (path, query) = crate::path::split(&self.target);
        use_it(&RequestView {
            method: self.method,
            scheme: self.scheme,
            authority: self.authority,
            path,
            query,
            headers: &headers,
            port: self.port,
            claims: self.claims.as_ref().map(|claims| claims as &dyn Claims),
        })
    }

    /// The position of the rule that it takes.
    pub(crate) fn rule(&self, table: &Table) -> Option<usize> {
        self.view(|view| table.find(view).map(|found| found.rule_index))
    }
}

#[derive(Clone)]
pub(crate) struct TestClaims(pub(crate) Vec<(&'static str, Vec<&'static str>)>);

impl Claims for TestClaims {
    fn any(&self, path: &[String], test: &mut dyn FnMut(&str) -> bool) -> Option<bool> {
        let path = path.join(".");
        let (_, values) = self.0.iter().find(|(name, _)| *name == path)?;
        Some(values.iter().any(|value| test(value)))
    }
}
