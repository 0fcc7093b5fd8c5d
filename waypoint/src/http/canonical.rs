//! What a request asks for, in the one form that policy, routing, upstream and log all see; or why it is refused.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use hyper::ext::Protocol;
use mesh_policy::l7::Http;
use mesh_route::header::strip_hop_by_hop;
use mesh_route::{host, path};

use super::local::Local;
use crate::limits::REQUEST_FIELDS_MAX;
use crate::report::Flags;
use crate::snapshot::Settings;

/// A request that may be looked at. Its host is in the `host` header, whatever the version.
#[derive(Debug)]
pub(crate) struct Canonical {
    /// Path and query; the path is canonical.
    pub(crate) target: PathAndQuery,
    /// It wants to become something else.
    pub(crate) upgrade: Option<Upgrade>,
}

/// What a request may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    WebSocket,
}

impl Canonical {
    /// Checks a request and takes out what concerns this hop only.
    ///
    /// # Errors
    /// The answer to a request that must not get any further.
    pub(crate) fn of(parts: &mut Parts, has_body: bool, settings: &Settings) -> Result<Self, Local> {
        if parts.version == Version::HTTP_10 && !settings.http10 {
            return Err(Local::new(StatusCode::UPGRADE_REQUIRED, "low_version").flags(Flags::DPE).close());
        }
        if parts.headers.len() > REQUEST_FIELDS_MAX {
            return Err(Local::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers").close());
        }
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers);
        }
        check_method(&parts.method)?;
        let upgrade = wanted_upgrade(parts, has_body)?;
        host_of(parts)?;
        let target = target_of(parts, settings)?;
        let keep_upgrade = upgrade.is_some() && parts.version != Version::HTTP_2;
        strip_hop_by_hop(&mut parts.headers, keep_upgrade)
            .map_err(|error| Local::bad_request(format!("http1.connection_header|{error}")))?;
        Ok(Self { target, upgrade })
    }

    /// The canonical path.
    pub(crate) fn path(&self) -> &str {
        self.target.path()
    }

    /// The query, as sent.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

/// The host that every stage sees; empty only before there is one.
pub(crate) fn authority(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// What policies see of a request.
pub(crate) fn seen<'a>(method: &'a Method, target: &'a PathAndQuery, headers: &'a HeaderMap) -> Http<'a> {
    Http { host: authority(headers), method: method.as_str(), path: target.path(), headers, token: None }
}

/// HTTP/2 clients may send each cookie as a field of its own; everybody else expects one.
///
/// # Source
/// RFC 9113 section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    for crumb in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Made of parts that were values.
    if let Ok(whole) = HeaderValue::try_from(joined) {
        headers.insert(COOKIE, whole);
    }
}

fn check_method(method: &Method) -> Result<(), Local> {
    let known = match *method {
        Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD => true,
        Method::OPTIONS | Method::PATCH | Method::TRACE | Method::CONNECT => true,
        _ => EXTENSION_METHODS.binary_search(&method.as_str()).is_ok(),
    };
    if known { Ok(()) } else { Err(Local::bad_request("http1.invalid_method")) }
}

fn wanted_upgrade(parts: &Parts, has_body: bool) -> Result<Option<Upgrade>, Local> {
    let refused = || Local::new(StatusCode::FORBIDDEN, "upgrade_failed").close();
    if parts.method == Method::CONNECT {
        return match parts.extensions.get::<Protocol>() {
            Some(protocol) if protocol.as_str() == "websocket" => Ok(Some(Upgrade::WebSocket)),
            Some(_) => Err(refused()),
            None => Err(Local::no_route().close()),
        };
    }
    let headers = &parts.headers;
    if parts.version != Version::HTTP_11 || !headers.contains_key(UPGRADE) || !names_upgrade(headers) {
        return Ok(None);
    }
    let mut wanted = headers.get_all(UPGRADE).iter();
    match (wanted.next(), wanted.next()) {
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"h2c") => Ok(None),
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket") => {
            let sized = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
            if has_body || sized || headers.contains_key(TRANSFER_ENCODING) {
                return Err(Local::bad_request("upgrade_with_body"));
            }
            Ok(Some(Upgrade::WebSocket))
        }
        _ => Err(refused()),
    }
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Leaves exactly one `host` header, which is canonical.
fn host_of(parts: &mut Parts) -> Result<(), Local> {
    let bad = |error: host::HostError| Local::bad_request(format!("http1.host|{error}"));
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad(host::HostError::Several));
    }
    let sent = first.map(|host| host.to_str().map_err(|_| bad(host::HostError::Character))).transpose()?;
    let named = parts.uri.authority().map(|authority| authority.as_str());
    let raw = match (named, sent) {
        (Some(named), sent) if parts.version == Version::HTTP_2 => {
            if sent.is_some_and(|sent| !sent.eq_ignore_ascii_case(named)) {
                return Err(Local::bad_request("http2.host_differs_from_authority"));
            }
            named
        }
        // The absolute form counts, but does not make up for a missing host.
        (Some(named), Some(_)) => {
            let scheme = parts.uri.scheme_str().unwrap_or_default();
            if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
                return Err(Local::bad_request("http1.target_scheme"));
            }
            named
        }
        (None, Some(sent)) => sent,
        (_, None) if parts.version == Version::HTTP_10 => return Err(bad(host::HostError::Missing)),
        (_, None) => return Err(bad(host::HostError::Missing)),
    };
    let canonical = host::canonical(raw).map_err(bad)?;
    let unchanged = matches!(canonical, Cow::Borrowed(_)) && sent == Some(raw);
    if !unchanged {
        let value = HeaderValue::from_str(&canonical).map_err(|_| bad(host::HostError::Character))?;
        parts.headers.insert(HOST, value);
    }
    Ok(())
}

fn target_of(parts: &Parts, settings: &Settings) -> Result<PathAndQuery, Local> {
    let bad = |error: &dyn std::fmt::Display| Local::bad_request(format!("path_normalization_failed|{error}"));
    let raw = raw_path(&parts.uri, &parts.method);
    let canonical = path::canonical(parts.method.as_str(), raw, settings.normalization).map_err(|error| bad(&error))?;
    match (canonical, parts.uri.path_and_query()) {
        (Cow::Borrowed(same), Some(target)) if same.len() == target.path().len() => Ok(target.clone()),
        (canonical, target) => {
            let text = match target.and_then(PathAndQuery::query) {
                Some(query) => format!("{canonical}?{query}"),
                None => canonical.into_owned(),
            };
            PathAndQuery::try_from(text).map_err(|error| bad(&error))
        }
    }
}

/// The absolute form may leave out the path.
fn raw_path<'a>(uri: &'a Uri, method: &Method) -> &'a str {
    match uri.path() {
        "" if uri.scheme().is_some() => "/",
        // An extended CONNECT has a path like any other request.
        "" if *method == Method::CONNECT => "/",
        path => path,
    }
}

/// Registered methods beyond the common ones, sorted.
///
/// # Source
/// HTTP Method Registry.
static EXTENSION_METHODS: [&str; 33] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SUBSCRIBE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
];

#[cfg(test)]
mod tests;
