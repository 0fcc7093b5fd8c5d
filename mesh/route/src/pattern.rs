//! Regular expressions: RE2 syntax, linear time, bounded size.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use crate::CompileError;
use crate::limits::{PATTERN_BYTES_MAX, PATTERN_CACHE_BYTES_MAX, PATTERN_NESTING_MAX, PATTERN_PROGRAM_BYTES_MAX};

/// A regular expression that must match a whole text.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Arc<str>,
    ignore_case: bool,
    regex: Regex,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// Names what is wrong with it: syntax, length, or the size of what it compiles to.
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, CompileError> {
        check_length(text)?;
        // By itself first: unbalanced parentheses must not reach outside of the group that anchors it.
        build(text, ignore_case)?;
        let regex = build(&format!(r"\A(?:{text})\z"), ignore_case)?;
        Ok(Self { text: text.into(), ignore_case, regex })
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// What every text that matches begins with, as far as that is easy to see.
    pub(crate) fn literal_prefix(&self) -> String {
        if self.ignore_case { String::new() } else { literal_prefix(&self.text) }
    }
}

/// A regular expression that is searched in a text and replaced.
#[derive(Clone, Debug)]
pub struct Replacement {
    regex: Regex,
    parts: Vec<Part>,
}

/// A piece of what replaces a match.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// Compiles a pattern and what replaces each match of it, in which `\0` to `\9` stand for what groups matched and
    /// `\\` for a backslash.
    ///
    /// # Errors
    /// Names what is wrong: the pattern, an escape, or a group that the pattern does not have.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, CompileError> {
        check_length(pattern).map_err(|error| error.within("pattern"))?;
        let regex = build(pattern, false).map_err(|error| error.within("pattern"))?;
        let wrong = |expected: &'static str| CompileError::new("substitution", substitution, expected);
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut chars = substitution.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some('\\') => text.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let group = usize::from(u8::try_from(digit).map_or(0, |byte| byte - b'0'));
                    if group >= regex.captures_len() {
                        return Err(wrong("a substitution whose groups the pattern has"));
                    }
                    parts.push(Part::Text(std::mem::take(&mut text)));
                    parts.push(Part::Group(group));
                }
                _ => return Err(wrong(r"a substitution whose backslashes are followed by a digit or a backslash")),
            }
        }
        parts.push(Part::Text(text));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self { regex, parts })
    }

    /// `text` with every match replaced; `None` when the result would be longer than `bytes_max` or is no text.
    #[must_use]
    pub fn apply<'a>(&self, text: &'a str, bytes_max: usize) -> Option<Cow<'a, str>> {
        let mut out = Vec::new();
        let mut end = 0;
        for captures in self.regex.captures_iter(text.as_bytes()) {
            let whole = captures.get(0)?;
            out.extend_from_slice(text.as_bytes().get(end..whole.start())?);
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Part::Group(group) => {
                        out.extend_from_slice(captures.get(*group).map_or(&[], |group| group.as_bytes()));
                    }
                }
            }
            if out.len() > bytes_max {
                return None;
            }
            end = whole.end();
        }
        if end == 0 && out.is_empty() {
            return (text.len() <= bytes_max).then_some(Cow::Borrowed(text));
        }
        out.extend_from_slice(text.as_bytes().get(end..)?);
        (out.len() <= bytes_max).then(|| String::from_utf8(out).ok().map(Cow::Owned)).flatten()
    }

    /// Every literal text of the substitution.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Group(_) => None,
        })
    }
}

/// Whether a text is a regular expression that a table may hold.
///
/// # Errors
/// As [`Pattern::new`].
pub fn check(text: &str) -> Result<(), CompileError> {
    Pattern::new(text, false).map(|_| ())
}

/// About how many bytes a pattern compiles to: one of a few steps, never less than it is.
///
/// # Errors
/// As [`Pattern::new`].
pub fn weigh(text: &str) -> Result<usize, CompileError> {
    check_length(text)?;
    let anchored = format!(r"\A(?:{text})\z");
    for bytes in WEIGHTS {
        match sized(text, false, bytes).and_then(|_| sized(&anchored, false, bytes)) {
            Ok(_) => return Ok(bytes),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => break,
        }
    }
    check(text).map(|()| PATTERN_PROGRAM_BYTES_MAX)
}

/// Patterns that a table has compiled already: many entries share few.
#[derive(Debug)]
pub(crate) struct Cache {
    known: HashMap<(String, bool), Pattern>,
    room: usize,
}

impl Cache {
    pub(crate) fn new(patterns_max: usize) -> Self {
        Self { known: HashMap::new(), room: patterns_max }
    }

    pub(crate) fn pattern(&mut self, text: &str, ignore_case: bool) -> Result<Pattern, CompileError> {
        let key = (text.to_owned(), ignore_case);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        if self.known.len() >= self.room {
            return Err(CompileError::new("regex", text, format!("one of at most {} patterns of a table", self.room)));
        }
        let pattern = Pattern::new(text, ignore_case).map_err(|error| error.within("regex"))?;
        self.known.insert(key, pattern.clone());
        Ok(pattern)
    }
}

fn check_length(text: &str) -> Result<(), CompileError> {
    if text.len() > PATTERN_BYTES_MAX {
        let expected = format!("a regular expression of at most {PATTERN_BYTES_MAX} bytes");
        return Err(CompileError::new("", text, expected));
    }
    Ok(())
}

/// Bytes, as RE2's Latin-1: `\d`, `\w` and `\b` know ASCII only. Patterns that name other characters are compiled for
/// all of Unicode.
fn build(text: &str, ignore_case: bool) -> Result<Regex, CompileError> {
    sized(text, ignore_case, PATTERN_PROGRAM_BYTES_MAX).map_err(|error| {
        let reason = match error {
            regex::Error::CompiledTooBig(bytes) => format!("it compiles to more than {bytes} bytes"),
            other => other.to_string().lines().last().unwrap_or("syntax").trim().to_owned(),
        };
        CompileError::new("", text, format!("a usable regular expression ({reason})"))
    })
}

fn sized(text: &str, ignore_case: bool, bytes_max: usize) -> Result<Regex, regex::Error> {
    let with = |unicode: bool| {
        RegexBuilder::new(text)
            .unicode(unicode)
            .case_insensitive(ignore_case)
            .size_limit(bytes_max)
            .dfa_size_limit(PATTERN_CACHE_BYTES_MAX)
            .nest_limit(PATTERN_NESTING_MAX)
            .build()
    };
    if text.is_ascii() { with(false).or_else(|_| with(true)) } else { with(true).or_else(|_| with(false)) }
}

/// Steps of [`weigh`], below the largest.
const WEIGHTS: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

/// The plain characters at the beginning of a pattern: every text that it matches begins with them. Alternatives are
/// understood only where nothing but parentheses could hide them.
#[must_use]
pub fn literal_prefix(pattern: &str) -> String {
    if pattern.contains('|') && !alternatives_are_inside_groups(pattern) {
        return String::new();
    }
    let mut prefix = String::new();
    let mut chars = pattern.strip_prefix('^').unwrap_or(pattern).chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '{' => {
                prefix.pop();
                break;
            }
            '\\' => match chars.next() {
                Some(c) if c.is_ascii_punctuation() && c != '<' && c != '>' => prefix.push(c),
                _ => break,
            },
            '.' | '+' | '(' | ')' | '|' | '[' | ']' | '}' | '^' | '$' => break,
            c => prefix.push(c),
        }
    }
    prefix
}

fn alternatives_are_inside_groups(pattern: &str) -> bool {
    if pattern.contains(['[', '\\']) {
        return false;
    }
    let mut depth = 0_usize;
    for c in pattern.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, false).unwrap().matches(text)
    }

    #[test]
    fn a_pattern_matches_whole_texts_only() {
        assert!(matches("/v[0-9]+", "/v2"));
        assert!(!matches("/v[0-9]+", "/v2/x"));
        assert!(!matches("/v[0-9]+", "x/v2"));
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a|b", "ax"));
        assert!(matches("", ""));
        assert!(!matches("a$", "a\n"));
        assert!(!matches("(?m)^a$", "a\nb"));
    }

    #[test]
    fn unbalanced_parentheses_do_not_reach_outside() {
        for pattern in ["a)|(b", "(", ")", "a)(?:b", "[", r"a\", "(?P<", "*", "a{2,1}"] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn classes_know_ascii_and_other_characters_are_themselves() {
        assert!(matches(r"/\d+", "/12"));
        assert!(!matches(r"/\d+", "/\u{0661}"));
        assert!(matches("/é+", "/éé"));
        assert!(matches(r"/[^/]+", "/é"));
        assert!(Pattern::new("/Ab", true).unwrap().matches("/aB"));
    }

    #[test]
    fn what_is_too_large_is_refused_by_size_not_by_time() {
        let long = "a".repeat(PATTERN_BYTES_MAX);
        assert!(check(&long).is_ok());
        assert!(check(&format!("{long}a")).is_err());
        let error = check("((x{500}){500}){500}").unwrap_err();
        assert!(error.to_string().contains("compiles to more than"), "{error}");
        assert!(check(&format!("{}a{}", "(".repeat(100), ")".repeat(100))).is_err());
    }

    #[test]
    fn patterns_are_weighed_by_what_they_compile_to() {
        assert_eq!(weigh("/v[0-9]+").unwrap(), 4 << 10);
        let heavy = weigh("(x{50}){50}").unwrap();
        assert!(heavy > 16 << 10 && heavy <= PATTERN_PROGRAM_BYTES_MAX, "{heavy}");
        for bad in ["(", "a)|(b", "((x{500}){500}){500}"] {
            assert_eq!(weigh(bad).unwrap_err().to_string(), check(bad).unwrap_err().to_string());
        }
    }

    /// A backtracking engine needs 2^n steps for these.
    #[test]
    fn matching_takes_linear_time() {
        for pattern in ["(a*)*b", "(a|a)*b", "(a+)+b", "(.*)(.*)(.*)(.*)(.*)x"] {
            let pattern = Pattern::new(pattern, false).unwrap();
            assert!(!pattern.matches(&"a".repeat(20_000)));
        }
    }

    #[test]
    fn literal_beginnings_are_found_and_never_too_long() {
        for (pattern, expected) in [
            ("/api/v[0-9]+", "/api/v"),
            ("^/a", "/a"),
            ("/ab?c", "/a"),
            ("/ab*", "/a"),
            ("/ab{0,2}", "/a"),
            ("/ab+", "/ab"),
            (r"/a\.b\d", "/a.b"),
            ("a|b", ""),
            ("/x(a|b)", "/x"),
            ("(?i)/x", ""),
            ("x[a[b](]|y", ""),
            ("/é?x", "/"),
            ("", ""),
        ] {
            assert_eq!(literal_prefix(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn groups_are_put_in_and_checked() {
        let replace =
            |pattern, with, text| Replacement::new(pattern, with).unwrap().apply(text, 1000).map(Cow::into_owned);
        assert_eq!(replace("^/old/([^/]+)/(.*)$", r"/new/\2/\1", "/old/a/b/c").as_deref(), Some("/new/b/c/a"));
        assert_eq!(replace("o", "0", "/foo").as_deref(), Some("/f00"));
        assert_eq!(replace("x", "y", "/foo").as_deref(), Some("/foo"));
        assert_eq!(replace("f(o+)", r"[\0\\]", "/foo").as_deref(), Some(r"/[foo\]"));
        assert_eq!(replace("(a)|b", r"<\1>", "ab").as_deref(), Some("<a><>"));
        assert!(Replacement::new("a", r"\1").is_err());
        assert!(Replacement::new("a", r"\x").is_err());
        assert!(Replacement::new("a", r"x\").is_err());
        assert_eq!(Replacement::new("a", &"b".repeat(100)).unwrap().apply("aaaa", 300), None);
    }
}
