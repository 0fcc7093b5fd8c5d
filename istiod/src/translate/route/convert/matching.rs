//! Conditions of HTTPRoutes and GRPCRoutes.
//!
//! # Source
//! spec of routing, sections 2.1, 2.2 and 3.

use mesh_api::gateway::{
    GrpcMethodMatch, GrpcRouteMatch, HttpPathMatch, HttpRouteMatch, PathMatchType, ValueMatchType,
};
use mesh_route::pattern;
use mesh_route::precedence::{Place, Rank};
use mesh_wire::l7::{self, path_match, string_match};

use super::Problem;
use super::patterns::Patterns;

/// A match, where it stands, and what is wrong with it. What cannot be evaluated is left out of the match, but for the
/// beginning of its path; it then takes more than it should, and its rule answers with an error.
pub(super) struct Matched {
    pub(super) rank: Rank,
    pub(super) matching: l7::HttpMatch,
    pub(super) problem: Option<Problem>,
}

/// A match of an HTTPRoute.
pub(super) fn http(written: &HttpRouteMatch, place: &Place<'_>, patterns: &mut Patterns) -> Matched {
    let mut problem = None;
    let path = written.path.as_ref().map(|written| path(written, patterns));
    let headers = written.headers.iter().map(|one| (one.name.as_str(), one.type_, one.value.as_str()));
    let queries = written.query_params.iter().map(|one| (one.name.as_str(), one.type_, one.value.as_str()));
    // No path is the prefix `/`, which a filter may replace.
    let root = l7::PathMatch { kind: Some(path_match::Kind::SegmentPrefix("/".to_owned())), ignore_case: false };
    let mut matching = l7::HttpMatch {
        path: None,
        method: written.method.as_deref().map(exact),
        headers: self::headers(headers, patterns, &mut problem),
        queries: self::queries(queries, patterns, &mut problem),
        ..l7::HttpMatch::default()
    };
    let (meant, wrong) = path.unwrap_or((root, None));
    let is_pattern = matches!(meant.kind, Some(path_match::Kind::Regex(_)));
    matching.path = Some(meant);
    let rank = Rank::http(&matching, place);
    if let Some(wrong) = wrong {
        problem.get_or_insert(wrong);
        if is_pattern {
            matching.path = beginning(written.path.as_ref());
        }
    }
    Matched { rank, matching, problem }
}

/// A match of a GRPCRoute.
pub(super) fn grpc(written: &GrpcRouteMatch, place: &Place<'_>, patterns: &mut Patterns) -> Matched {
    let mut problem = None;
    let headers = written.headers.iter().map(|one| (one.name.as_str(), one.type_, one.value.as_str()));
    let headers = self::headers(headers, patterns, &mut problem);
    let method = written.method.as_ref();
    let text = |text: Option<&String>| text.map(String::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let (service, name) =
        (method.and_then(|one| text(one.service.as_ref())), method.and_then(|one| text(one.method.as_ref())));
    let rank = Rank::grpc(service.as_deref(), name.as_deref(), headers.len(), place);
    let path = match method.map(|method| grpc_path(method, service.as_deref(), name.as_deref(), patterns)) {
        None => None,
        Some(Ok(path)) => path,
        Some(Err(wrong)) => {
            problem.get_or_insert(wrong);
            None
        }
    };
    Matched { rank, matching: l7::HttpMatch { path, headers, ..l7::HttpMatch::default() }, problem }
}

/// The path as it is meant, and what is wrong with it. A path without its first slash can only be meant with it.
fn path(written: &HttpPathMatch, patterns: &mut Patterns) -> (l7::PathMatch, Option<Problem>) {
    let value = written.value();
    let wrong = |what: &str| Some(Problem::value(format!("path value {value:?} {what}")));
    let mut problem = match written.type_() {
        PathMatchType::RegularExpression => patterns.admit(value, || format!("path value {value:?}")).err(),
        PathMatchType::Unknown => {
            wrong("has a type that is not served, expected is Exact, PathPrefix or RegularExpression")
        }
        PathMatchType::Exact | PathMatchType::PathPrefix if !value.starts_with('/') => wrong("does not begin with `/`"),
        PathMatchType::Exact | PathMatchType::PathPrefix => None,
    };
    let rooted = if value.starts_with('/') { value.to_owned() } else { format!("/{value}") };
    let unclean = ["//", "/./", "/../", "%2f", "%2F", "#"].into_iter().any(|part| rooted.contains(part));
    let literal = matches!(written.type_(), PathMatchType::Exact | PathMatchType::PathPrefix);
    if literal && problem.is_none() && (unclean || rooted.ends_with("/..") || rooted.ends_with("/.")) {
        problem = wrong("holds `//`, `/./`, `/../`, `%2f` or `#`: no request has such a path");
    }
    let kind = match written.type_() {
        PathMatchType::Exact => path_match::Kind::Exact(rooted),
        PathMatchType::PathPrefix => path_match::Kind::SegmentPrefix(segments(&rooted)),
        PathMatchType::RegularExpression | PathMatchType::Unknown => path_match::Kind::Regex(value.to_owned()),
    };
    (l7::PathMatch { kind: Some(kind), ignore_case: false }, problem)
}

/// What every path that a pattern means begins with, which can be told without it; none where that is nothing.
fn beginning(written: Option<&HttpPathMatch>) -> Option<l7::PathMatch> {
    let prefix = pattern::literal_prefix(written?.value());
    let kind = prefix.starts_with('/').then_some(path_match::Kind::Prefix(prefix))?;
    Some(l7::PathMatch { kind: Some(kind), ignore_case: false })
}

/// A prefix without its final slashes.
fn segments(prefix: &str) -> String {
    let bare = prefix.trim_end_matches('/');
    if bare.is_empty() { "/".to_owned() } else { bare.to_owned() }
}

fn grpc_path(
    written: &GrpcMethodMatch,
    service: Option<&str>,
    method: Option<&str>,
    patterns: &mut Patterns,
) -> Result<Option<l7::PathMatch>, Problem> {
    let kind = match (written.type_.unwrap_or_default(), service, method) {
        (_, None, None) => return Ok(None),
        (ValueMatchType::Exact, Some(service), Some(method)) => path_match::Kind::Exact(format!("/{service}/{method}")),
        (ValueMatchType::Exact, Some(service), None) => path_match::Kind::Prefix(format!("/{service}/")),
        (ValueMatchType::Exact, None, Some(method)) => path_match::Kind::Regex(format!("/[^/]+/{}", escaped(method))),
        (ValueMatchType::RegularExpression, ..) => {
            for (field, text) in [("service", service), ("method", method)] {
                if let Some(text) = text {
                    patterns.admit(text, || format!("{field} {text:?} of a method match"))?;
                }
            }
            let part = |text: Option<&str>| text.map_or_else(|| "[^/]+".to_owned(), |text| format!("(?:{text})"));
            let both = format!("/{}/{}", part(service), part(method));
            patterns.admit(&both, || format!("{both:?} of a method match"))?;
            path_match::Kind::Regex(both)
        }
        (ValueMatchType::Unknown, ..) => {
            let message = "a method match has a type that is not served, expected is Exact or RegularExpression";
            return Err(Problem::value(message));
        }
    };
    Ok(Some(l7::PathMatch { kind: Some(kind), ignore_case: false }))
}

/// A text as a regular expression that matches it alone.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

type Condition<'a> = (&'a str, Option<ValueMatchType>, &'a str);

/// Of several entries of one name the first counts.
fn headers<'a>(
    written: impl Iterator<Item = Condition<'a>>,
    patterns: &mut Patterns,
    problem: &mut Option<Problem>,
) -> Vec<l7::HeaderMatch> {
    let mut all: Vec<l7::HeaderMatch> = Vec::new();
    for (name, type_, text) in written {
        let name = name.to_ascii_lowercase();
        if all.iter().any(|one| one.name == name) {
            continue;
        }
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            problem.get_or_insert(Problem::value(format!("{name:?} is no name of a header")));
            continue;
        }
        match value(("header", &name), type_, text, patterns) {
            Ok(value) => all.push(l7::HeaderMatch { name, value: Some(value) }),
            Err(wrong) => drop(problem.get_or_insert(wrong)),
        }
    }
    all
}

fn queries<'a>(
    written: impl Iterator<Item = Condition<'a>>,
    patterns: &mut Patterns,
    problem: &mut Option<Problem>,
) -> Vec<l7::QueryMatch> {
    let mut all: Vec<l7::QueryMatch> = Vec::new();
    for (name, type_, text) in written {
        if all.iter().any(|one| one.name == name) {
            continue;
        }
        match value(("query parameter", name), type_, text, patterns) {
            Ok(value) => all.push(l7::QueryMatch { name: name.to_owned(), value: Some(value) }),
            Err(wrong) => drop(problem.get_or_insert(wrong)),
        }
    }
    all
}

fn value(
    (what, name): (&str, &str),
    type_: Option<ValueMatchType>,
    text: &str,
    patterns: &mut Patterns,
) -> Result<l7::StringMatch, Problem> {
    match type_.unwrap_or_default() {
        ValueMatchType::Exact => Ok(exact(text)),
        ValueMatchType::RegularExpression => {
            patterns.admit(text, || format!("value {text:?} for {what} {name}"))?;
            Ok(l7::StringMatch { kind: Some(string_match::Kind::Regex(text.to_owned())), ignore_case: false })
        }
        ValueMatchType::Unknown => Err(Problem::value(format!(
            "the match of {what} {name} has a type that is not served, expected is Exact or RegularExpression"
        ))),
    }
}

fn exact(text: &str) -> l7::StringMatch {
    l7::StringMatch { kind: Some(string_match::Kind::Exact(text.to_owned())), ignore_case: false }
}
