//! What routing sees of a request.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;

/// A request in its canonical form.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// `http` or `https`: of the connection that the client opened.
    pub scheme: &'a str,
    /// Host, with the port where the client named one; canonical.
    pub authority: &'a str,
    /// Canonical path without the query.
    pub path: &'a str,
    /// What follows the first `?`, as sent.
    pub query: Option<&'a str>,
    /// Headers as sent.
    pub headers: &'a HeaderMap,
    /// Port that was called: of the service, or of the listener.
    pub port: u16,
    /// Claims of a validated token.
    pub claims: Option<&'a dyn Claims>,
}

impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}://{}{}", self.method, self.scheme, self.authority, self.path)?;
        self.query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// Claims of a validated token.
pub trait Claims {
    /// Calls `test` with the texts that the claim at `path` holds (the claim itself, or each member of a list) until
    /// one satisfies it; `None` when there is no such claim.
    fn any(&self, path: &[String], test: &mut dyn FnMut(&str) -> bool) -> Option<bool>;
}

impl<'a> RequestView<'a> {
    /// The value of a header, its repetitions joined by commas; also of the pseudo headers. `None` when it is not there.
    pub(crate) fn header(&self, name: &Field) -> Option<Cow<'a, str>> {
        match name {
            Field::Name(name) => joined(self.headers, name),
            Field::Authority => Some(Cow::Borrowed(self.authority)),
            Field::Method => Some(Cow::Borrowed(self.method)),
            Field::Scheme => Some(Cow::Borrowed(self.scheme)),
            Field::Path => Some(match self.query {
                Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
                None => Cow::Borrowed(self.path),
            }),
        }
    }

    /// The first value of a query parameter, not decoded; the empty text where it has none.
    pub(crate) fn parameter(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// All values of a header, joined by commas. Bytes that are not UTF-8 are replaced, so that they equal no text.
pub(crate) fn joined<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    let Some(second) = values.next() else {
        return Some(first);
    };
    let mut all = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        all.push(',');
        all.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(Cow::Owned(all))
}

/// What a header condition or an operator may name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    Name(http::HeaderName),
    Authority,
    Method,
    Scheme,
    Path,
}

impl Field {
    /// Any case; `host` is the authority.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            ":authority" => Some(Self::Authority),
            ":method" => Some(Self::Method),
            ":scheme" => Some(Self::Scheme),
            ":path" => Some(Self::Path),
            _ => match http::HeaderName::from_bytes(text.as_bytes()).ok()? {
                http::header::HOST => Some(Self::Authority),
                name => Some(Self::Name(name)),
            },
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name(name) => name.as_str(),
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Path => ":path",
        })
    }
}
