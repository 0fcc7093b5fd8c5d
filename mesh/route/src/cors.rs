//! Cross-origin requests of browsers.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use mesh_wire::l7;
use mesh_wire::l7::string_match::Kind;

use crate::CompileError;
use crate::matching::Text;
use crate::pattern::Cache;
use crate::rule::duration;

/// Who may call from a browser, and how.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    any_origin: bool,
    methods: Allowed,
    headers: Allowed,
    expose_headers: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
    forward_unmatched_preflights: bool,
}

/// Which origins are allowed.
#[derive(Clone, Debug)]
enum Origin {
    /// `https://` and `.example.com`: any text between the two, at least one character.
    Between {
        start: String,
        end: String,
    },
    Text(Text),
}

/// A list for a preflight's answer.
#[derive(Clone, Debug)]
enum Allowed {
    Nothing,
    List(HeaderValue),
    Any,
}

/// What a request is to cross-origin rules.
#[derive(Clone, Debug)]
pub enum CorsVerdict {
    /// A preflight: answered with 200 and these headers (none where its origin is not allowed), not forwarded.
    Preflight(HeaderMap),
    /// A request of an allowed origin: forwarded; [`decorate`] puts these headers into the response.
    Actual(HeaderMap),
    /// Nothing to do with it: forwarded as it is.
    None,
}

/// Judges a request.
#[must_use]
pub fn judge(cors: &Cors, method: &str, headers: &HeaderMap) -> CorsVerdict {
    let Some(origin) = headers.get(ORIGIN) else {
        return CorsVerdict::None;
    };
    let allowed = origin.to_str().is_ok_and(|origin| cors.allows(origin));
    let preflight = method == "OPTIONS" && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    match (preflight, allowed) {
        (true, true) => CorsVerdict::Preflight(cors.preflight(origin, headers)),
        (true, false) if cors.forward_unmatched_preflights => CorsVerdict::None,
        (true, false) => CorsVerdict::Preflight(HeaderMap::new()),
        (false, true) => CorsVerdict::Actual(cors.actual(origin)),
        (false, false) => CorsVerdict::None,
    }
}

/// Puts the headers of [`CorsVerdict::Actual`] into a response, in place of what the upstream said of the same matter.
pub fn decorate(cors: &HeaderMap, response: &mut HeaderMap) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
    ] {
        response.remove(name);
    }
    for (name, value) in cors {
        if name == VARY {
            response.append(VARY, value.clone());
        } else {
            response.insert(name, value.clone());
        }
    }
}

impl Cors {
    pub(crate) fn compile(wire: &l7::Cors, cache: &mut Cache) -> Result<Self, CompileError> {
        let origins =
            wire.origins.iter().enumerate().map(|(n, origin)| {
                Origin::compile(origin, cache).map_err(|error| error.within(format!("origins[{n}]")))
            });
        let origins: Vec<Origin> = origins.collect::<Result<_, _>>()?;
        let star = |wire: &l7::StringMatch| wire.kind == Some(Kind::Exact("*".to_owned()));
        let expose_headers = match Allowed::compile("expose_headers", &wire.expose_headers)? {
            Allowed::Nothing => None,
            Allowed::List(list) => Some(list),
            Allowed::Any => Some(HeaderValue::from_static("*")),
        };
        let age = |age: Duration| HeaderValue::from(age.as_secs());
        let max_age = match &wire.max_age {
            None => None,
            Some(wire) => Some(duration("max_age", Some(wire))?.map_or(HeaderValue::from(0), age)),
        };
        Ok(Self {
            any_origin: wire.any_origin || wire.origins.iter().any(star),
            origins,
            methods: Allowed::compile("methods", &wire.methods)?,
            headers: Allowed::compile("headers", &wire.headers)?,
            expose_headers,
            credentials: wire.credentials,
            max_age,
            forward_unmatched_preflights: wire.forward_unmatched_preflights,
        })
    }

    fn allows(&self, origin: &str) -> bool {
        self.any_origin || self.origins.iter().any(|allowed| allowed.matches(origin))
    }

    fn preflight(&self, origin: &HeaderValue, request: &HeaderMap) -> HeaderMap {
        let mut answer = self.actual(origin);
        // What was asked for, where everything is allowed: browsers take `*` as a name when credentials are sent.
        let listed = |allowed: &Allowed, asked| match allowed {
            Allowed::Nothing => None,
            Allowed::List(list) => Some(list.clone()),
            Allowed::Any => request.get(asked).cloned(),
        };
        if let Some(methods) = listed(&self.methods, ACCESS_CONTROL_REQUEST_METHOD) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(headers) = listed(&self.headers, ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        if let Some(age) = &self.max_age {
            answer.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        answer
    }

    fn actual(&self, origin: &HeaderValue) -> HeaderMap {
        let mut answer = HeaderMap::with_capacity(8);
        if self.any_origin && !self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(VARY, HeaderValue::from_static("Origin"));
        }
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(names) = &self.expose_headers {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
        answer
    }
}

impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any_origin {
            return f.write_str("every origin");
        }
        let names: Vec<String> = self.origins.iter().take(ORIGINS_SHOWN_MAX).map(ToString::to_string).collect();
        let more = self.origins.len().saturating_sub(names.len());
        match (names.is_empty(), more) {
            (true, _) => f.write_str("no origin"),
            (false, 0) => write!(f, "origin {}", names.join(" or ")),
            (false, more) => write!(f, "origin {} or one of {more} more", names.join(" or ")),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between { start, end } => write!(f, "{start}*{end}"),
            Self::Text(text) => match text.only() {
                Some(text) => f.write_str(text),
                None => write!(f, "that {text}"),
            },
        }
    }
}

impl Origin {
    fn compile(wire: &l7::StringMatch, cache: &mut Cache) -> Result<Self, CompileError> {
        if let Some(Kind::Exact(text)) = &wire.kind
            && let Some((start, end)) = text.split_once('*')
            && text != "*"
        {
            if end.contains('*') || !start.ends_with("://") || !end.starts_with('.') {
                return Err(CompileError::new("", text, "an origin, * or one such as https://*.example.com"));
            }
            return Ok(Self::Between { start: start.to_owned(), end: end.to_owned() });
        }
        Text::compile(wire, cache).map(Self::Text)
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Between { start, end } => {
                let rest = origin.strip_prefix(start.as_str());
                rest.and_then(|rest| rest.strip_suffix(end.as_str())).is_some_and(|between| !between.is_empty())
            }
            Self::Text(text) => text.matches(Some(origin)),
        }
    }
}

impl Allowed {
    fn compile(field: &str, names: &[String]) -> Result<Self, CompileError> {
        if names.is_empty() {
            return Ok(Self::Nothing);
        }
        if names.iter().any(|name| name == "*") {
            return Ok(Self::Any);
        }
        let list = HeaderValue::from_str(&names.join(","));
        Ok(Self::List(list.map_err(|_| CompileError::new(field, names.join(","), "names of methods or headers"))?))
    }
}

/// Origins that are named when rules are shown.
const ORIGINS_SHOWN_MAX: usize = 5;

#[cfg(test)]
mod tests;
