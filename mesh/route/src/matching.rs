//! Conditions on a request, besides those on its path.

use std::fmt;

use mesh_wire::l7;
use mesh_wire::l7::string_match::Kind;

use crate::pattern::{Cache, Pattern};
use crate::request::Field;
use crate::table::Miss;
use crate::{CompileError, RequestView};

/// How a text is compared.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Exact {
        text: String,
        ignore_case: bool,
    },
    Prefix {
        text: String,
        ignore_case: bool,
    },
    Suffix {
        text: String,
        ignore_case: bool,
    },
    Pattern(Pattern),
    /// There at all, whatever it says.
    Present,
    Absent,
}

impl Text {
    pub(crate) fn compile(wire: &l7::StringMatch, cache: &mut Cache) -> Result<Self, CompileError> {
        let ignore_case = wire.ignore_case;
        Ok(match &wire.kind {
            Some(Kind::Exact(text)) => Self::Exact { text: text.clone(), ignore_case },
            Some(Kind::Prefix(text)) => Self::Prefix { text: text.clone(), ignore_case },
            Some(Kind::Suffix(text)) => Self::Suffix { text: text.clone(), ignore_case },
            Some(Kind::Regex(text)) => Self::Pattern(cache.pattern(text, ignore_case)?),
            Some(Kind::Present(true)) | None => Self::Present,
            Some(Kind::Present(false)) => Self::Absent,
        })
    }

    pub(crate) fn matches(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Absent);
        };
        match self {
            Self::Exact { text, ignore_case: false } => value == text,
            Self::Exact { text, ignore_case: true } => value.eq_ignore_ascii_case(text),
            Self::Prefix { text, ignore_case: false } => value.starts_with(text.as_str()),
            Self::Prefix { text, ignore_case: true } => {
                value.as_bytes().get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
            }
            Self::Suffix { text, ignore_case: false } => value.ends_with(text.as_str()),
            Self::Suffix { text, ignore_case: true } => {
                let start = value.len().checked_sub(text.len());
                let end = start.and_then(|start| value.as_bytes().get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(text.as_bytes()))
            }
            Self::Pattern(pattern) => pattern.matches(value),
            Self::Present => true,
            Self::Absent => false,
        }
    }

    /// The only value that matches, where there is one.
    pub(crate) fn only(&self) -> Option<&str> {
        match self {
            Self::Exact { text, ignore_case: false } => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = |ignore: &bool| if *ignore { ", any case" } else { "" };
        match self {
            Self::Exact { text, ignore_case } => write!(f, "is {text:?}{}", case(ignore_case)),
            Self::Prefix { text, ignore_case } => write!(f, "begins with {text:?}{}", case(ignore_case)),
            Self::Suffix { text, ignore_case } => write!(f, "ends with {text:?}{}", case(ignore_case)),
            Self::Pattern(pattern) => write!(f, "matches regex {:?}", pattern.as_str()),
            Self::Present => f.write_str("is there"),
            Self::Absent => f.write_str("is not there"),
        }
    }
}

/// A condition on a header or pseudo header.
#[derive(Clone, Debug)]
pub(crate) struct HeaderCondition {
    pub(crate) field: Field,
    pub(crate) text: Text,
}

impl HeaderCondition {
    pub(crate) fn compile(wire: &l7::HeaderMatch, cache: &mut Cache) -> Result<Self, CompileError> {
        let field = Field::parse(&wire.name).ok_or_else(|| {
            CompileError::new("name", &wire.name, "a header name, :authority, :method, :path or :scheme")
        })?;
        let text = wire.value.as_ref().map_or(Ok(Text::Present), |value| Text::compile(value, cache));
        Ok(Self { field, text: text.map_err(|error| error.within("value"))? })
    }

    fn holds(&self, request: &RequestView<'_>) -> bool {
        self.text.matches(request.header(&self.field).as_deref())
    }
}

#[derive(Clone, Debug)]
struct QueryCondition {
    name: String,
    text: Text,
}

#[derive(Clone, Debug)]
struct ClaimCondition {
    path: Vec<String>,
    text: Text,
    invert: bool,
}

impl ClaimCondition {
    fn holds(&self, request: &RequestView<'_>) -> bool {
        let found =
            request.claims.and_then(|claims| claims.any(&self.path, &mut |value| self.text.matches(Some(value))));
        found.unwrap_or(false) != self.invert
    }
}

/// All that must hold besides the path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    method: Option<Text>,
    headers: Vec<HeaderCondition>,
    without: Vec<HeaderCondition>,
    queries: Vec<QueryCondition>,
    scheme: Option<Text>,
    authority: Option<Text>,
    port: Option<u16>,
    claims: Vec<ClaimCondition>,
}

impl Conditions {
    pub(crate) fn compile(wire: &l7::HttpMatch, most: usize, cache: &mut Cache) -> Result<Self, CompileError> {
        let count = wire.headers.len() + wire.without_headers.len() + wire.queries.len() + wire.claims.len();
        if count > most {
            return Err(CompileError::new("headers", count, format!("at most {most} conditions")));
        }
        let mut text = |field: &'static str, wire: &Option<l7::StringMatch>| {
            let compiled = wire.as_ref().map(|wire| Text::compile(wire, cache)).transpose();
            compiled.map_err(|error| error.within(field))
        };
        let method = text("method", &wire.method)?;
        let scheme = text("scheme", &wire.scheme)?;
        let authority = text("authority", &wire.authority)?;
        let port = match wire.port {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| CompileError::new("port", port, "at most 65535"))?),
        };
        Ok(Self {
            method,
            headers: headers("headers", &wire.headers, cache)?,
            without: headers("without_headers", &wire.without_headers, cache)?,
            queries: queries(&wire.queries, cache)?,
            scheme,
            authority,
            port,
            claims: claims(&wire.claims, cache)?,
        })
    }

    /// Whether all hold.
    pub(crate) fn hold(&self, request: &RequestView<'_>) -> bool {
        self.port.is_none_or(|port| port == request.port)
            && self.method.as_ref().is_none_or(|text| text.matches(Some(request.method)))
            && self.scheme.as_ref().is_none_or(|text| text.matches(Some(request.scheme)))
            && self.authority.as_ref().is_none_or(|text| text.matches(Some(request.authority)))
            && self.headers.iter().all(|condition| condition.holds(request))
            && self.without.iter().all(|condition| !condition.holds(request))
            && self.queries.iter().all(|query| query.text.matches(request.parameter(&query.name)))
            && self.claims.iter().all(|claim| claim.holds(request))
    }

    /// A header that must have one value, and that value.
    pub(crate) fn only_header(&self) -> impl Iterator<Item = (&Field, &str)> {
        self.headers.iter().filter_map(|condition| Some((&condition.field, condition.text.only()?)))
    }

    /// Every condition that does not hold, and what the request has instead.
    pub(crate) fn misses(&self, request: &RequestView<'_>) -> Vec<Miss> {
        let mut misses = Vec::new();
        let mut check = |name: &str, text: &Text, found: Option<&str>| {
            if !text.matches(found) {
                misses.push(Miss::new(format!("{name} {text}"), found));
            }
        };
        if let Some(method) = &self.method {
            check("method", method, Some(request.method));
        }
        if let Some(scheme) = &self.scheme {
            check("scheme", scheme, Some(request.scheme));
        }
        if let Some(authority) = &self.authority {
            check("authority", authority, Some(request.authority));
        }
        for condition in &self.headers {
            check(&format!("header {}", condition.field), &condition.text, request.header(&condition.field).as_deref());
        }
        for query in &self.queries {
            check(&format!("query parameter {}", query.name), &query.text, request.parameter(&query.name));
        }
        for condition in self.without.iter().filter(|condition| condition.holds(request)) {
            let found = request.header(&condition.field);
            misses.push(Miss::new(format!("not: header {} {}", condition.field, condition.text), found.as_deref()));
        }
        if let Some(port) = self.port.filter(|port| *port != request.port) {
            misses.push(Miss::new(format!("port is {port}"), Some(&request.port.to_string())));
        }
        for claim in self.claims.iter().filter(|claim| !claim.holds(request)) {
            let not = if claim.invert { "not: " } else { "" };
            // What a token says is not repeated.
            let found = request.claims.map(|_| "another value, or no such claim");
            misses.push(Miss::new(format!("{not}claim {} {}", claim.path.join("."), claim.text), found));
        }
        misses
    }
}

impl fmt::Display for Conditions {
    /// All of them, each after ", ".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("method", &self.method), ("scheme", &self.scheme), ("authority", &self.authority)];
        for (name, text) in named {
            if let Some(text) = text {
                write!(f, ", {name} {text}")?;
            }
        }
        for header in &self.headers {
            write!(f, ", header {} {}", header.field, header.text)?;
        }
        for header in &self.without {
            write!(f, ", not: header {} {}", header.field, header.text)?;
        }
        for query in &self.queries {
            write!(f, ", query parameter {} {}", query.name, query.text)?;
        }
        for claim in &self.claims {
            let not = if claim.invert { "not: " } else { "" };
            write!(f, ", {not}claim {} {}", claim.path.join("."), claim.text)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ", port is {port}"))
    }
}

fn headers(field: &str, wire: &[l7::HeaderMatch], cache: &mut Cache) -> Result<Vec<HeaderCondition>, CompileError> {
    let compiled = wire
        .iter()
        .enumerate()
        .map(|(n, wire)| HeaderCondition::compile(wire, cache).map_err(|error| error.within(format!("{field}[{n}]"))));
    compiled.collect()
}

fn queries(wire: &[l7::QueryMatch], cache: &mut Cache) -> Result<Vec<QueryCondition>, CompileError> {
    let compiled = wire.iter().enumerate().map(|(n, wire)| {
        let text = wire.value.as_ref().map_or(Ok(Text::Present), |value| Text::compile(value, cache));
        let text = text.map_err(|error| error.within(format!("queries[{n}].value")))?;
        Ok(QueryCondition { name: wire.name.clone(), text })
    });
    compiled.collect()
}

fn claims(wire: &[l7::ClaimMatch], cache: &mut Cache) -> Result<Vec<ClaimCondition>, CompileError> {
    let compiled = wire.iter().enumerate().map(|(n, wire)| {
        if wire.path.is_empty() {
            return Err(CompileError::new(format!("claims[{n}].path"), "", "the name of a claim"));
        }
        let text = wire.value.as_ref().map_or(Ok(Text::Present), |value| Text::compile(value, cache));
        let text = text.map_err(|error| error.within(format!("claims[{n}].value")))?;
        Ok(ClaimCondition { path: wire.path.clone(), text, invert: wire.invert })
    });
    compiled.collect()
}
