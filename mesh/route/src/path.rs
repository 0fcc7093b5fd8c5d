//! The canonical form of a path. Policy, routing, upstream and log all see this one.

use std::borrow::Cow;

use mesh_wire::l7;

pub use l7::settings::Normalization;

/// Why a path is refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("path does not begin with /")]
    NotRooted,
    /// `#...`.
    #[error("path has a fragment")]
    Fragment,
    /// A space or a control character.
    #[error("path has a space or a control character")]
    Character,
    /// `%00`.
    #[error("path has an encoded NUL")]
    Nul,
    /// A `%` that begins no triplet, right before an encoded character: decoding that one could make a new triplet.
    #[error("path has a % that together with what follows it could be read in two ways")]
    Ambiguous,
}

/// The canonical form of a request's path, without its query. `*` is the path of `OPTIONS *` only.
///
/// # Errors
/// The request is to be refused.
pub fn canonical<'a>(method: &str, raw: &'a str, mode: Normalization) -> Result<Cow<'a, str>, PathError> {
    if raw == "*" && method == "OPTIONS" {
        return Ok(Cow::Borrowed(raw));
    }
    normalise(raw, mode)
}

/// The canonical form of a path that begins with a slash, without its query.
///
/// # Errors
/// The request is to be refused.
pub fn normalise(raw: &str, mode: Normalization) -> Result<Cow<'_, str>, PathError> {
    check(raw)?;
    if mode == Normalization::None {
        return Ok(Cow::Borrowed(raw));
    }
    if is_canonical(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = decode(raw, mode)?;
    let resolved = resolve_dots(&decoded);
    let merge = matches!(mode, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    let canonical = if merge { merge_slashes(&resolved) } else { resolved };
    Ok(if canonical == raw { Cow::Borrowed(raw) } else { Cow::Owned(canonical) })
}

/// A request target's path and query.
#[must_use]
pub fn split(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

fn check(raw: &str) -> Result<(), PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotRooted);
    }
    for byte in raw.bytes() {
        match byte {
            0..=b' ' | 0x7f => return Err(PathError::Character),
            b'#' => return Err(PathError::Fragment),
            _ => {}
        }
    }
    Ok(())
}

/// Whether nothing in it can change: the common case, decided in one pass. A dot behind a slash may be harmless; that is
/// left to the slow way.
fn is_canonical(raw: &str) -> bool {
    let mut after_slash = false;
    for byte in raw.bytes() {
        match byte {
            b'%' | b'\\' => return false,
            b'.' | b'/' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// One pass: backslashes and, where the mode says so, encoded slashes become slashes; encoded unreserved characters are
/// decoded. Nothing that this makes can be decoded once more.
fn decode(raw: &str, mode: Normalization) -> Result<String, PathError> {
    let slashes = mode == Normalization::DecodeAndMergeSlashes;
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    // How many more characters a `%` that begins no triplet could take to become one.
    let mut open = 0_u8;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        if c != '%' {
            open = if c.is_ascii_hexdigit() { open.saturating_sub(1) } else { 0 };
            out.push(if c == '\\' { '/' } else { c });
            rest = after;
            continue;
        }
        let Some((byte, behind)) = triplet(after) else {
            open = 2;
            out.push('%');
            rest = after;
            continue;
        };
        match byte {
            0 => return Err(PathError::Nul),
            b'/' | b'\\' if slashes => out.push('/'),
            byte if is_unreserved(byte) && open > 0 => return Err(PathError::Ambiguous),
            byte if is_unreserved(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(after.get(..2).unwrap_or_default());
            }
        }
        open = 0;
        rest = behind;
    }
    Ok(out)
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn triplet(text: &str) -> Option<(u8, &str)> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((u8::from_str_radix(digits, 16).ok()?, text.get(2..)?))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Removes `.` and `..` segments; never above the root.
fn resolve_dots(path: &str) -> String {
    let inside = path.strip_prefix('/').unwrap_or(path);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = inside.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
