//! The canonical form of a host, and host name patterns.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::CompileError;
use crate::limits::HOST_BYTES_MAX;

/// Why a host is refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is none.
    #[error("host is missing")]
    Missing,
    /// There are several.
    #[error("more than one host")]
    Several,
    /// `user@host`.
    #[error("host has user information")]
    UserInfo,
    /// A character that no host has.
    #[error("host has a character that no host has")]
    Character,
    /// The name is empty or too long.
    #[error("host name is empty or longer than {HOST_BYTES_MAX} bytes")]
    Length,
    /// Brackets without an IPv6 address.
    #[error("host is not an IPv6 address in brackets")]
    Brackets,
    /// The port is none.
    #[error("port of the host is not a number up to 65535")]
    Port,
}

/// The one form of an authority that everything sees: lower case, checked; port and trailing dot stay.
///
/// # Errors
/// It is not `host` or `host:port`.
pub fn canonical(raw: &str) -> Result<Cow<'_, str>, HostError> {
    if raw.is_empty() {
        return Err(HostError::Missing);
    }
    if raw.contains(',') {
        return Err(HostError::Several);
    }
    if raw.contains('@') {
        return Err(HostError::UserInfo);
    }
    let (name, port) = parts(raw)?;
    if let Some(port) = port {
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return Err(HostError::Port);
        }
    }
    check_name(name)?;
    if raw.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(raw.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(raw))
}

/// Name with its brackets and trailing dot, and the text after the colon.
fn parts(raw: &str) -> Result<(&str, Option<&str>), HostError> {
    if !raw.starts_with('[') {
        return Ok(raw.split_once(':').map_or((raw, None), |(name, port)| (name, Some(port))));
    }
    let end = raw.find(']').ok_or(HostError::Brackets)?;
    let (name, rest) = raw.split_at(end + 1);
    match rest.strip_prefix(':') {
        Some(port) => Ok((name, Some(port))),
        None if rest.is_empty() => Ok((name, None)),
        None => Err(HostError::Brackets),
    }
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return Err(HostError::Length);
    }
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').ok_or(HostError::Brackets)?;
        return address.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| HostError::Brackets);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte);
    if !name.bytes().all(allowed) {
        return Err(HostError::Character);
    }
    if name.trim_end_matches('.').is_empty() { Err(HostError::Length) } else { Ok(()) }
}

/// Name and port of an authority; the name keeps its brackets and trailing dot.
#[must_use]
pub fn split(authority: &str) -> (&str, Option<u16>) {
    match parts(authority) {
        Ok((name, port)) => (name, port.and_then(|port| port.parse().ok())),
        Err(_) => (authority, None),
    }
}

/// What routing compares: lower case, without port and trailing dot.
#[must_use]
pub fn name(authority: &str) -> Cow<'_, str> {
    let (name, _) = split(authority);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The canonical form of a host name pattern: an exact name, `*.suffix`, or `*` (also for the empty text).
///
/// # Errors
/// It is none of these.
pub fn pattern(text: &str) -> Result<String, CompileError> {
    let lower = text.to_ascii_lowercase();
    if lower.is_empty() || lower == "*" {
        return Ok("*".to_owned());
    }
    let literal = lower.strip_prefix("*.").unwrap_or(&lower);
    let usable = check_name(literal).is_ok() && !literal.contains('*') && !literal.starts_with(['.', '[']);
    if !usable {
        return Err(CompileError::new("", text, "a host name, *.suffix or *"));
    }
    Ok(lower.strip_suffix('.').unwrap_or(&lower).to_owned())
}

/// Whether a pattern covers a host name. `*.b` covers one or more labels in place of the star, never `b`.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        _ if pattern.is_empty() => true,
        Some("") => true,
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix) && !name.starts_with('.'),
        None => pattern == name,
    }
}

/// The hosts that a listener and a route both mean: the more specific of the two patterns, `None` where they have
/// nothing in common. Patterns as of [`pattern`]; the empty text is `*`.
#[must_use]
pub fn intersection<'a>(listener: &'a str, route: &'a str) -> Option<&'a str> {
    let any = |pattern: &str| pattern.is_empty() || pattern == "*";
    match (listener, route) {
        (listener, route) if any(listener) && any(route) => Some("*"),
        (listener, route) if any(listener) => Some(route),
        (listener, route) if any(route) => Some(listener),
        (listener, route) if listener == route => Some(route),
        (listener, route) if covers_pattern(listener, route) => Some(route),
        (listener, route) if covers_pattern(route, listener) => Some(listener),
        _ => None,
    }
}

/// Whether all that `inner` covers is covered by `outer` too.
fn covers_pattern(outer: &str, inner: &str) -> bool {
    match (outer.strip_prefix('*'), inner.strip_prefix('*')) {
        (Some(outer), Some(inner)) => inner.ends_with(outer),
        (Some(_), None) => covers(outer, inner),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests;
