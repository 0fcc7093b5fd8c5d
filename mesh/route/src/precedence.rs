//! Which of several matches of Gateway API routes comes first.
//!
//! Every match of a rule becomes an entry of its own. Within one host (or one port of a service) they are sorted by
//! what they ask for, then by age and name of their route, then by position.

use std::cmp::Reverse;

use mesh_wire::l7::{HttpMatch, path_match::Kind};

/// Where a match stands among others; smaller comes first.
///
/// # Source
/// Gateway API: `HTTPRouteRule.matches`, `GRPCRouteRule.matches`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    path: PathRank,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    queries: Reverse<usize>,
    /// Seconds since the Unix epoch; the older first.
    created_s: i64,
    /// `namespace/name`.
    route: String,
    rule: usize,
    matching: usize,
}

/// Exact paths and gRPC methods, then prefixes, then patterns; more characters first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Grpc { service: Reverse<usize>, method: Reverse<usize> },
    Exact,
    Prefix(Reverse<usize>),
    Pattern(Reverse<usize>),
}

/// The route and the place in it that a match comes from.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// When the route was created, in seconds since the Unix epoch.
    pub created_s: i64,
    /// The route's namespace.
    pub namespace: &'a str,
    /// The route's name.
    pub name: &'a str,
    /// Position of the rule in the route.
    pub rule: usize,
    /// Position of the match in the rule.
    pub matching: usize,
}

impl Rank {
    /// Of a match of an HTTPRoute. One without a path counts as the prefix `/`.
    #[must_use]
    pub fn http(matching: &HttpMatch, place: &Place<'_>) -> Self {
        let path = match matching.path.as_ref().and_then(|path| path.kind.as_ref()) {
            None => PathRank::Prefix(Reverse(prefix_chars("/"))),
            Some(Kind::Exact(_)) => PathRank::Exact,
            Some(Kind::SegmentPrefix(prefix) | Kind::Prefix(prefix)) => PathRank::Prefix(Reverse(prefix_chars(prefix))),
            Some(Kind::Regex(regex)) => PathRank::Pattern(Reverse(regex.chars().count())),
        };
        let queries = Reverse(matching.queries.len());
        Self::new(path, matching.method.is_some(), matching.headers.len(), queries, place)
    }

    /// Of a match of a GRPCRoute, by the texts of its service and method (of a regular expression: its own).
    #[must_use]
    pub fn grpc(service: Option<&str>, method: Option<&str>, headers: usize, place: &Place<'_>) -> Self {
        let chars = |text: Option<&str>| text.map_or(0, |text| text.chars().count());
        let path = match (chars(service), chars(method)) {
            (0, 0) => PathRank::Prefix(Reverse(prefix_chars("/"))),
            (service, method) => PathRank::Grpc { service: Reverse(service), method: Reverse(method) },
        };
        Self::new(path, false, headers, Reverse(0), place)
    }

    fn new(path: PathRank, method: bool, headers: usize, queries: Reverse<usize>, place: &Place<'_>) -> Self {
        Self {
            path,
            method: Reverse(method),
            headers: Reverse(headers),
            queries,
            created_s: place.created_s,
            route: format!("{}/{}", place.namespace, place.name),
            rule: place.rule,
            matching: place.matching,
        }
    }
}

/// Characters of a prefix, its trailing slash not counted.
fn prefix_chars(prefix: &str) -> usize {
    prefix.trim_end_matches('/').chars().count()
}

#[cfg(test)]
mod tests;
