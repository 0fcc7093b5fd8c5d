//! Checks of single values. Each reports on the field it is given.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::field::Field;
use crate::duration::DurationText;

/// One of these words.
pub(super) fn one_of<'a>(words: &[&str]) -> impl Fn(&Field<'a>) {
    move |field| {
        if !field.value().as_str().is_some_and(|text| words.contains(&text)) {
            field.expected(&format!("one of {}", words.join(", ")));
        }
    }
}

/// A whole number in a range.
pub(super) fn integer<'a>(range: RangeInclusive<i64>) -> impl Fn(&Field<'a>) {
    move |field| {
        if !field.value().as_i64().is_some_and(|number| range.contains(&number)) {
            field.expected(&match (*range.start(), *range.end()) {
                (least, i64::MAX) => format!("a whole number of {least} or more"),
                (least, most) => format!("a whole number from {least} to {most}"),
            });
        }
    }
}

/// A whole number that fits 32 bits without sign.
pub(super) fn count(field: &Field<'_>) {
    integer(0..=i64::from(u32::MAX))(field);
}

/// A number of 0 or more that fits 32 bits with sign.
pub(super) fn positive(field: &Field<'_>) {
    integer(0..=i64::from(i32::MAX))(field);
}

/// A port number.
pub(super) fn port(field: &Field<'_>) {
    integer(1..=65_535)(field);
}

/// A port number written as text.
pub(super) fn port_text(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if !is_port(text) {
        field.expected("a port from 1 to 65535");
    }
}

pub(super) fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A number, whole or not, from 0 to 100.
pub(super) fn percent(field: &Field<'_>) {
    if !field.value().as_f64().is_some_and(|number| (0.0..=100.0).contains(&number)) {
        field.expected("a percentage from 0 to 100");
    }
}

/// `{value: <percentage>}`.
pub(super) fn percentage(field: &Field<'_>) {
    field.object(|fields| fields.optional("value", percent));
}

pub(super) fn boolean(field: &Field<'_>) {
    if !field.value().is_boolean() {
        field.expected("true or false");
    }
}

/// Any text.
pub(super) fn text(field: &Field<'_>) {
    field.text();
}

/// Text with something in it.
pub(super) fn filled(field: &Field<'_>) {
    if field.text() == Some("") {
        field.expected("a text that is not empty");
    }
}

/// Text with something in it, no longer than this.
pub(super) fn filled_up_to<'a>(most: usize) -> impl Fn(&Field<'a>) {
    move |field| {
        if field.text().is_some_and(|text| text.is_empty() || text.chars().count() > most) {
            field.expected(&format!("1 to {most} characters"));
        }
    }
}

/// A duration of at least a millisecond.
pub(super) fn duration(field: &Field<'_>) {
    at_least(field, Duration::from_millis(1), "a duration of 1ms or more, such as 250ms, 10s or 1h30m");
}

/// A duration, zero included.
pub(super) fn duration_or_zero(field: &Field<'_>) {
    at_least(field, Duration::ZERO, "a duration such as 0s, 250ms, 10s or 1h30m");
}

fn at_least(field: &Field<'_>, least: Duration, expected: &str) {
    let Some(text) = field.text() else { return };
    if DurationText(text.to_owned()).parse().is_none_or(|duration| duration < least) {
        field.expected(expected);
    }
}

/// An IP address or a CIDR block.
pub(super) fn ip_or_block(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_ip_or_block(text)) {
        field.expected("an IP address or a CIDR block such as 10.0.0.0/8");
    }
}

pub(super) fn is_ip_or_block(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok()
}

/// A regular expression that fits the bound.
pub(super) fn regex(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if text.len() > REGEX_BYTES_MAX {
        return field.expected(&format!("a regular expression of at most {REGEX_BYTES_MAX} bytes"));
    }
    if !is_regex(text) {
        field.expected("a regular expression in the RE2 syntax");
    }
}

/// Whether a text is a regular expression whose program is not too large.
pub(super) fn is_regex(text: &str) -> bool {
    regex::RegexBuilder::new(text).size_limit(REGEX_PROGRAM_BYTES_MAX).build().is_ok()
}

/// The name of an HTTP header or cookie: a token of RFC 9110.
pub(super) fn header_name(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_token(text)) {
        field.expected(TOKEN);
    }
}

pub(super) fn is_token(text: &str) -> bool {
    let other = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || other.contains(&byte))
}

/// The value of an HTTP header: no control characters; `%` only doubled or around a known format command.
pub(super) fn header_value(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if text.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return field.expected("a header value without control characters");
    }
    if !percents_pair(text) {
        field.expected("a header value where % comes doubled or encloses a command such as %REQ(name)%");
    }
}

/// Whether every `%` is doubled or one of a pair around a command.
fn percents_pair(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let Some((command, after)) = after.split_once('%') else { return false };
        let name = command.split(['(', ':']).next().unwrap_or_default();
        let known =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(&byte));
        if !known {
            return false;
        }
        rest = after;
    }
    true
}

/// An `http` or `https` URL with a host.
pub(super) fn http_url(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_url(text, &["http", "https"]) || text.len() > URL_BYTES_MAX) {
        field.expected(&format!("an http:// or https:// URL of at most {URL_BYTES_MAX} bytes"));
    }
}

/// Whether the text is a URL of one of these schemes with a host and, if any, a valid port.
pub(super) fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    let clean = !text.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    schemes.contains(&scheme) && clean && !host.is_empty() && port.is_none_or(is_port)
}

/// Whether two values of a list are equal: reports the later one.
pub(super) fn distinct(items: &[Field<'_>]) {
    let mut seen: std::collections::BTreeSet<&str> = std::collections::BTreeSet::new();
    for item in items {
        if let Value::String(text) = item.value()
            && !seen.insert(text)
        {
            item.expected("each value once");
        }
    }
}

const TOKEN: &str = "a header name: letters, digits and !#$%&'*+-.^_`|~";
/// Bytes of a regular expression.
const REGEX_BYTES_MAX: usize = 1024;
/// Bytes that a compiled expression may take.
const REGEX_PROGRAM_BYTES_MAX: usize = 1 << 20;
/// Bytes of a URL.
const URL_BYTES_MAX: usize = 2048;
