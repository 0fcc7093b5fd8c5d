//! One entry of a table: a match and the rule it leads to.

use std::fmt;

use mesh_wire::l7;
use mesh_wire::l7::path_match::Kind;

use crate::matching::Conditions;
use crate::pattern::{Cache, Pattern};
use crate::table::Miss;
use crate::{CompileError, RequestView};

/// A match, and the rule that requests take for which all of it holds.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) path: PathCondition,
    pub(crate) conditions: Conditions,
    pub(crate) rule: usize,
    name: String,
}

/// What an entry wants of the path.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PathCondition {
    /// Nothing.
    Any,
    /// This one.
    Exact {
        /// The whole path.
        path: String,
        /// ASCII letters of either case are the same.
        ignore_case: bool,
    },
    /// These segments at the beginning: without a trailing slash, empty for all.
    SegmentPrefix(String),
    /// These characters at the beginning.
    Prefix {
        /// The beginning.
        prefix: String,
        /// ASCII letters of either case are the same.
        ignore_case: bool,
    },
    /// A regular expression for all of it.
    Pattern(Pattern),
}

impl Entry {
    pub(crate) fn compile(
        wire: &l7::HttpEntry,
        conditions_max: usize,
        cache: &mut Cache,
    ) -> Result<Self, CompileError> {
        let default = l7::HttpMatch::default();
        let matching = wire.r#match.as_ref().unwrap_or(&default);
        let within = |error: CompileError| error.within("match");
        let path =
            PathCondition::compile(matching.path.as_ref(), cache).map_err(|error| within(error.within("path")))?;
        let conditions = Conditions::compile(matching, conditions_max, cache).map_err(within)?;
        let rule = usize::try_from(wire.rule).unwrap_or(usize::MAX);
        Ok(Self { path, conditions, rule, name: matching.name.clone() })
    }

    /// What it wants of the path.
    #[must_use]
    pub fn path(&self) -> &PathCondition {
        &self.path
    }

    /// Position of its rule among [`crate::Table::rules`].
    #[must_use]
    pub fn rule(&self) -> usize {
        self.rule
    }

    /// Appended to the rule's name in logs; often empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether all holds that the index did not check already.
    pub(crate) fn holds_beyond_index(&self, request: &RequestView<'_>) -> bool {
        self.conditions.hold(request)
            && match &self.path {
                PathCondition::Pattern(pattern) => pattern.matches(request.path),
                _ => true,
            }
    }

    /// Everything that does not hold, path first.
    pub(crate) fn misses(&self, request: &RequestView<'_>) -> Vec<Miss> {
        let path = (!self.path.matches(request.path)).then(|| Miss::new(self.path.to_string(), Some(request.path)));
        path.into_iter().chain(self.conditions.misses(request)).collect()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, self.conditions)
    }
}

impl PathCondition {
    fn compile(wire: Option<&l7::PathMatch>, cache: &mut Cache) -> Result<Self, CompileError> {
        let Some(wire) = wire else {
            return Ok(Self::Any);
        };
        let ignore_case = wire.ignore_case;
        let Some(kind) = &wire.kind else {
            return Ok(Self::Any);
        };
        let (Kind::Exact(text) | Kind::SegmentPrefix(text) | Kind::Prefix(text) | Kind::Regex(text)) = kind;
        if let Kind::Exact(_) | Kind::SegmentPrefix(_) = kind
            && !text.starts_with('/')
            && (text != "*" || matches!(kind, Kind::SegmentPrefix(_)))
        {
            return Err(CompileError::new("", text, "a path that begins with /"));
        }
        Ok(match kind {
            Kind::Exact(path) => Self::Exact { path: path.clone(), ignore_case },
            Kind::SegmentPrefix(prefix) => Self::SegmentPrefix(prefix.trim_end_matches('/').to_owned()),
            Kind::Prefix(prefix) => Self::Prefix { prefix: prefix.clone(), ignore_case },
            Kind::Regex(regex) => Self::Pattern(cache.pattern(regex, ignore_case)?),
        })
    }

    /// Whether a canonical path satisfies it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact { path: wanted, ignore_case: false } => path == wanted,
            Self::Exact { path: wanted, ignore_case: true } => path.eq_ignore_ascii_case(wanted),
            Self::SegmentPrefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    || prefix.is_empty()
            }
            Self::Prefix { prefix, ignore_case: false } => path.starts_with(prefix.as_str()),
            Self::Prefix { prefix, ignore_case: true } => {
                path.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            Self::Pattern(pattern) => pattern.matches(path),
        }
    }
}

impl fmt::Display for PathCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = |ignore: &bool| if *ignore { ", any case" } else { "" };
        match self {
            Self::Any => f.write_str("any path"),
            Self::Exact { path, ignore_case } => write!(f, "path is {path:?}{}", case(ignore_case)),
            Self::SegmentPrefix(prefix) if prefix.is_empty() => f.write_str("path is below \"/\""),
            Self::SegmentPrefix(prefix) => write!(f, "path is {prefix:?} or below"),
            Self::Prefix { prefix, ignore_case } => write!(f, "path begins with {prefix:?}{}", case(ignore_case)),
            Self::Pattern(pattern) => write!(f, "path matches regex {:?}", pattern.as_str()),
        }
    }
}
