//! New paths and authorities.

use std::borrow::Cow;
use std::fmt;

use mesh_wire::l7;
use mesh_wire::l7::path_rewrite::Kind;

use crate::limits::REWRITTEN_PATH_BYTES_MAX;
use crate::pattern::Replacement;
use crate::{CompileError, Entry, PathCondition, host};

/// A new path and authority.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The new authority; `None`: as it was.
    pub authority: Option<String>,
    /// The new path; `None`: as it was.
    pub path: Option<PathRewrite>,
}

/// How a path changes; the query stays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PathRewrite {
    /// To this one.
    Full(String),
    /// What the entry's prefix matched, to this; all of it where the entry matched no prefix.
    Prefix(String),
    /// Whatever matches.
    Replace(Replacement),
}

/// A rewrite whose result cannot be sent. The request is answered with 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The new path would be too long.
    #[error("rewritten path is longer than {max} bytes, or no text")]
    TooLong {
        /// The most that is allowed.
        max: usize,
    },
}

impl Rewrite {
    pub(crate) fn compile(wire: &l7::Rewrite) -> Result<Self, CompileError> {
        let authority = match wire.authority.as_str() {
            "" => None,
            text => {
                Some(host::canonical(text).map_err(|_| CompileError::new("authority", text, "a host"))?.into_owned())
            }
        };
        let path = wire.path.as_ref().map(|path| PathRewrite::compile(path, false)).transpose();
        Ok(Self { authority, path: path.map_err(|error| error.within("path"))?.flatten() })
    }
}

impl PathRewrite {
    /// `None` when the message says nothing. Only a redirect's path may have a query of its own.
    pub(crate) fn compile(wire: &l7::PathRewrite, query_allowed: bool) -> Result<Option<Self>, CompileError> {
        let check = |field: &str, text: &str| {
            let refused = |c: char| c.is_control() || c == ' ' || c == '#' || (c == '?' && !query_allowed);
            let wanted = "a path without spaces, control characters, # and ?";
            if text.contains(refused) { Err(CompileError::new(field, text, wanted)) } else { Ok(()) }
        };
        Ok(match &wire.kind {
            None => None,
            Some(Kind::Full(path)) => {
                check("full", path)?;
                Some(Self::Full(rooted(path.as_str()).into_owned()))
            }
            Some(Kind::Prefix(prefix)) => {
                check("prefix", prefix)?;
                Some(Self::Prefix(prefix.clone()))
            }
            Some(Kind::Regex(regex)) => {
                let replacement = Replacement::new(&regex.pattern, &regex.substitution);
                let replacement = replacement.map_err(|error| error.within("regex"))?;
                for text in replacement.literals() {
                    check("regex.substitution", text)?;
                }
                Some(Self::Replace(replacement))
            }
        })
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.authority, &self.path) {
            (Some(host), Some(path)) => write!(f, "host becomes {host}, {path}"),
            (Some(host), None) => write!(f, "host becomes {host}"),
            (None, Some(path)) => write!(f, "{path}"),
            (None, None) => f.write_str("nothing changes"),
        }
    }
}

impl fmt::Display for PathRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(path) => write!(f, "path becomes {path:?}"),
            Self::Prefix(prefix) => write!(f, "matched prefix becomes {prefix:?}"),
            Self::Replace(_) => f.write_str("path is replaced by a regex"),
        }
    }
}

/// The path that is sent in place of `original`, which `entry` matched.
///
/// # Errors
/// The result cannot be sent.
pub fn path<'a>(rewrite: &'a PathRewrite, original: &'a str, entry: &Entry) -> Result<Cow<'a, str>, RewriteError> {
    let too_long = RewriteError::TooLong { max: REWRITTEN_PATH_BYTES_MAX };
    let path = match rewrite {
        PathRewrite::Full(path) => Cow::Borrowed(path.as_str()),
        PathRewrite::Prefix(replacement) => replace_prefix(replacement, original, entry.path()),
        PathRewrite::Replace(replacement) => {
            rooted_cow(replacement.apply(original, REWRITTEN_PATH_BYTES_MAX).ok_or(too_long)?)
        }
    };
    if path.len() > REWRITTEN_PATH_BYTES_MAX { Err(too_long) } else { Ok(path) }
}

fn replace_prefix<'a>(replacement: &'a str, original: &'a str, matched: &PathCondition) -> Cow<'a, str> {
    match matched {
        PathCondition::SegmentPrefix(prefix) => {
            join_segments(replacement, original.get(prefix.len()..).unwrap_or_default())
        }
        PathCondition::Any => join_segments(replacement, original),
        PathCondition::Prefix { prefix, .. } => {
            rooted_cow(Cow::Owned(format!("{replacement}{}", original.get(prefix.len()..).unwrap_or_default())))
        }
        PathCondition::Exact { .. } | PathCondition::Pattern(_) => rooted(replacement),
    }
}

/// Exactly one slash between the two, and at the beginning.
fn join_segments<'a>(replacement: &str, rest: &str) -> Cow<'a, str> {
    let base = replacement.trim_end_matches('/');
    let slash = if base.starts_with('/') || base.is_empty() { "" } else { "/" };
    let path = format!("{slash}{base}{rest}");
    if path.is_empty() { Cow::Borrowed("/") } else { Cow::Owned(path) }
}

fn rooted(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) }
}

fn rooted_cow(path: Cow<'_, str>) -> Cow<'_, str> {
    if path.starts_with('/') { path } else { Cow::Owned(format!("/{path}")) }
}

#[cfg(test)]
mod tests;
