//! What a route of a VirtualService is for.

use std::collections::BTreeMap;

use mesh_api::networking::{HttpMatch, StringMatch};
use mesh_wire::l7;
use mesh_wire::l7::{path_match, string_match};

use super::is_for_mesh;

/// Parts of a match that decide whether it is for a waypoint at all.
pub(super) struct Applies<'a> {
    gateways: &'a [String],
    /// Labels or namespace of the caller, which a waypoint does not know: it never matches.
    caller: bool,
    port: Option<u32>,
}

impl<'a> Applies<'a> {
    pub(super) fn of(written: &'a HttpMatch) -> Self {
        let caller = !written.source_labels.is_empty() || is_some(written.source_namespace.as_deref());
        Self { gateways: &written.gateways, caller, port: written.port }
    }

    pub(super) fn of_connection(
        gateways: &'a [String],
        labels: &BTreeMap<String, String>,
        namespace: Option<&str>,
        port: Option<u32>,
    ) -> Self {
        Self { gateways, caller: !labels.is_empty() || is_some(namespace), port }
    }

    /// Whether it is for this port of the service.
    pub(super) fn here(&self, port: u16) -> bool {
        is_for_mesh(self.gateways)
            && !self.caller
            && self.port.is_none_or(|wanted| wanted == 0 || wanted == u32::from(port))
    }
}

fn is_some(text: Option<&str>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// One match that applies here.
pub(super) fn matching(written: &HttpMatch) -> l7::HttpMatch {
    let (headers, claims) = headers(&written.headers, false);
    let (without_headers, inverted) = self::headers(&written.without_headers, true);
    let query =
        |(name, value): (&String, &StringMatch)| l7::QueryMatch { name: name.clone(), value: Some(present_or(value)) };
    l7::HttpMatch {
        path: written.uri.as_ref().and_then(|uri| path(uri, written.ignore_uri_case.unwrap_or_default())),
        method: written.method.as_ref().and_then(text),
        headers,
        without_headers,
        queries: written.query_params.iter().map(query).collect(),
        scheme: written.scheme.as_ref().and_then(text),
        authority: written.authority.as_ref().and_then(text),
        // It is this one, or the match would not apply.
        port: 0,
        name: written.name.clone().unwrap_or_default(),
        claims: claims.into_iter().chain(inverted).collect(),
    }
}

fn path(written: &StringMatch, ignore_case: bool) -> Option<l7::PathMatch> {
    let kind = if let Some(exact) = &written.exact {
        path_match::Kind::Exact(exact.clone())
    } else if let Some(prefix) = &written.prefix {
        path_match::Kind::Prefix(prefix.clone())
    } else {
        path_match::Kind::Regex(written.regex.clone()?)
    };
    Some(l7::PathMatch { kind: Some(kind), ignore_case })
}

/// A match of a text; none where nothing is asked for.
pub(super) fn text(written: &StringMatch) -> Option<l7::StringMatch> {
    let kind = if let Some(exact) = &written.exact {
        string_match::Kind::Exact(exact.clone())
    } else if let Some(prefix) = &written.prefix {
        string_match::Kind::Prefix(prefix.clone())
    } else {
        string_match::Kind::Regex(written.regex.clone()?)
    };
    Some(l7::StringMatch { kind: Some(kind), ignore_case: false })
}

/// An empty match, and the expression `*`, ask only for presence.
fn present_or(written: &StringMatch) -> l7::StringMatch {
    let any = written.regex.as_deref() == Some("*");
    let present = || l7::StringMatch { kind: Some(string_match::Kind::Present(true)), ignore_case: false };
    text(written).filter(|_| !any).unwrap_or_else(present)
}

/// Headers, and claims of a token that stand among them.
fn headers(written: &BTreeMap<String, StringMatch>, invert: bool) -> (Vec<l7::HeaderMatch>, Vec<l7::ClaimMatch>) {
    let (mut headers, mut claims) = (Vec::new(), Vec::new());
    for (name, value) in written {
        let value = Some(present_or(value));
        match claim(name) {
            Some(path) => claims.push(l7::ClaimMatch { path, value, invert }),
            None => headers.push(l7::HeaderMatch { name: name.to_ascii_lowercase(), value }),
        }
    }
    (headers, claims)
}

/// The path of a claim: `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.
fn claim(name: &str) -> Option<Vec<String>> {
    let path = name.strip_prefix(CLAIMS)?;
    let parts: Vec<String> = match path.strip_prefix('[') {
        Some(rest) => rest.trim_end_matches(']').split("][").map(ToOwned::to_owned).collect(),
        None => path.strip_prefix('.')?.split('.').map(ToOwned::to_owned).collect(),
    };
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

const CLAIMS: &str = "@request.auth.claims";
