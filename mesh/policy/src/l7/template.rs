//! Path templates: `/v1/{*}/items`, `/files/{**}`.

use std::fmt;

/// A path with operators in place of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    text: String,
    /// Segments before `{**}`, or all of them; the first is what stands before the first slash.
    before: Vec<Segment>,
    /// What follows `{**}` as it stands, its slash included; `None` without that operator.
    after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `{*}`: one, not empty.
    One,
}

impl Template {
    /// Whether a value is meant as a template.
    pub(super) fn is_meant(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    /// `None` for what no template can be.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut before = Vec::new();
        let mut segments = value.split('/');
        let mut after = None;
        while let Some(segment) = segments.next() {
            match segment {
                "{*}" => before.push(Segment::One),
                "{**}" => {
                    let rest: Vec<&str> = segments.by_ref().collect();
                    if rest.iter().any(|segment| !is_literal(segment)) {
                        return None;
                    }
                    after = Some(rest.iter().map(|segment| format!("/{segment}")).collect());
                }
                literal if is_literal(literal) => before.push(Segment::Literal(literal.to_owned())),
                _ => return None,
            }
        }
        Some(Self { text: value.to_owned(), before, after })
    }

    /// Whether all of a path matches. Operators stand for the usual characters only.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.matches_where(path, is_literal)
    }

    /// Whether all of a path matches, whatever characters are in place of the operators.
    pub(super) fn matches_any(&self, path: &str) -> bool {
        self.matches_where(path, |_| true)
    }

    fn matches_where(&self, path: &str, is_usual: impl Fn(&str) -> bool) -> bool {
        let mut rest = Some(path);
        for segment in &self.before {
            let Some(text) = rest else {
                return false;
            };
            let (found, behind) = text.split_once('/').map_or((text, None), |(found, behind)| (found, Some(behind)));
            let matches = match segment {
                Segment::Literal(literal) => found == literal,
                Segment::One => !found.is_empty() && is_usual(found),
            };
            if !matches {
                return false;
            }
            rest = behind;
        }
        match (&self.after, rest) {
            (None, rest) => rest.is_none(),
            (Some(_), None) => false,
            (Some(after), Some(rest)) => {
                let run = rest.strip_suffix(after.as_str());
                run.is_some_and(|run| run.split('/').all(is_usual))
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The characters that a path's segments may have, in a template and where an operator stands for them.
fn is_literal(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_stand_for_segments() {
        for (template, path, expected) in [
            ("/v1/{*}/items", "/v1/7/items", true),
            ("/v1/{*}/items", "/v1/7/8/items", false),
            ("/v1/{*}/items", "/v1//items", false),
            ("/v1/{*}/items", "/v1/7/items/", false),
            ("/v1/{*}/items", "/V1/7/items", false),
            ("/v1/{*}", "/v1/", false),
            ("/v1/{*}", "/v1/x", true),
            ("/{*}/{*}", "/a/b", true),
            ("/{*}/{*}", "/a", false),
            ("/files/{**}", "/files/", true),
            ("/files/{**}", "/files/a/b", true),
            ("/files/{**}", "/files", false),
            ("/foo/{**}/bar", "/foo/a/b/bar", true),
            ("/foo/{**}/bar", "/foo//bar", true),
            ("/foo/{**}/bar", "/foo/bar", false),
            ("/foo/{**}/bar", "/foo/a/bar/", false),
            ("/{*}/x/{**}", "/a/x/b/c", true),
            ("/{**}", "/", true),
            ("/{**}", "/a\u{e9}", false),
            ("/{*}", "/a b", false),
            ("/{*}", "/a%20b", true),
            ("/{*}", "/a*", false),
        ] {
            assert_eq!(Template::parse(template).unwrap().matches(path), expected, "{template} {path}");
        }
    }

    #[test]
    fn what_no_template_can_be_is_refused() {
        for template in [
            "/{*}.txt",
            "/a{*}",
            "/{**}/{*}",
            "/{**}/{**}",
            "/*/{*}",
            "/**/{*}",
            "/{name}/{*}",
            "/{name=*}/{*}",
            "/{/{*}",
            "/}/{*}",
            "/a b/{*}",
            "/a?b/{*}",
            "/{**}x",
            "/é/{*}",
        ] {
            assert_eq!(Template::parse(template), None, "{template}");
        }
    }
}
