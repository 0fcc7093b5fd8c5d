//! One value of a list of a policy.

use std::fmt;

use ipnet::IpNet;

use super::template::Template;
use crate::StringMatch;
use crate::matching::string_matches;

/// One value of a list of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// `abc`, `abc*`, `*abc`, `*`.
    Text(StringMatch),
    /// Stars anywhere.
    Glob(Glob),
    Account {
        namespace: String,
        name: String,
    },
    Net(IpNet),
    Port(u16),
    Template(Template),
    RequestPrincipal {
        issuer: StringMatch,
        subject: StringMatch,
        text: String,
    },
}

impl Entry {
    /// Whether a text matches; entries that are not about texts match none.
    pub(super) fn matches_text(&self, text: &str) -> bool {
        match self {
            Self::Text(matcher) => string_matches(matcher, text),
            Self::Glob(glob) => glob.matches(text),
            Self::Template(template) => template.matches(text),
            Self::Account { .. } | Self::Net(_) | Self::Port(_) | Self::RequestPrincipal { .. } => false,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => write!(f, "{matcher}"),
            Self::Glob(glob) => f.write_str(&glob.pieces.join("*")),
            Self::Account { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Template(template) => write!(f, "{template}"),
            Self::RequestPrincipal { text, .. } => f.write_str(text),
        }
    }
}

/// The four forms of a text; a star at the beginning wins over one at the end.
pub(super) fn text(value: &str) -> StringMatch {
    if value == "*" {
        return StringMatch::Presence;
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return StringMatch::Suffix(suffix.to_owned());
    }
    match value.strip_suffix('*') {
        Some(prefix) => StringMatch::Prefix(prefix.to_owned()),
        None => StringMatch::Exact(value.to_owned()),
    }
}

/// `<issuer>/<subject>`, split at the last slash; stars touch the part they stand at.
pub(super) fn request_principal(value: &str) -> Entry {
    let (issuer, subject) = match (value.rsplit_once('/'), text(value)) {
        (_, StringMatch::Presence) => (StringMatch::Presence, StringMatch::Presence),
        (Some((issuer, subject)), _) => {
            // The other part is literal: a star inside of the whole is none at its own end.
            let issuer = if issuer.starts_with('*') { text(issuer) } else { StringMatch::Exact(issuer.to_owned()) };
            let starred = subject.ends_with('*') && !value.starts_with('*') || subject == "*";
            let subject = if starred { text(subject) } else { StringMatch::Exact(subject.to_owned()) };
            (issuer, subject)
        }
        (None, suffix @ StringMatch::Suffix(_)) => (StringMatch::Presence, suffix),
        (None, prefix @ StringMatch::Prefix(_)) => (prefix, StringMatch::Presence),
        (None, exact) => (exact, StringMatch::Exact(String::new())),
    };
    Entry::RequestPrincipal { issuer, subject, text: value.to_owned() }
}

/// A text in which each star stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// What stands between the stars; two or more.
    pieces: Vec<String>,
}

impl Glob {
    /// `None` for a text without a star.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.contains('*').then(|| Self { pieces: text.split('*').map(str::to_owned).collect() })
    }

    /// Each piece is taken where it first occurs, which leaves the most room for the others.
    fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return false;
        };
        let inner = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut rest) = inner.filter(|_| !text.is_empty()) else {
            return false;
        };
        for piece in middle {
            match rest.split_once(piece.as_str()) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (glob, text, expected) in [
            ("*", "a", true),
            ("*", "", false),
            ("a*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("a*a", "a", false),
            ("*-prod-*", "shop-prod-eu", true),
            ("*-prod-*", "shop-prod", false),
            ("a*b*c", "aXbYbZc", true),
            ("a**c", "abc", true),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().matches(text), expected, "{glob} {text}");
        }
        assert_eq!(Glob::parse("abc"), None);
    }

    #[test]
    fn a_star_at_the_beginning_wins() {
        assert_eq!(text("*a*"), StringMatch::Suffix("a*".to_owned()));
        assert_eq!(text("a*"), StringMatch::Prefix("a".to_owned()));
        assert_eq!(text("a*b"), StringMatch::Exact("a*b".to_owned()));
    }

    #[test]
    fn request_principals_split_at_the_last_slash() {
        let matches = |value: &str, issuer: &str, subject: &str| match request_principal(value) {
            Entry::RequestPrincipal { issuer: i, subject: s, .. } => {
                string_matches(&i, issuer) && string_matches(&s, subject)
            }
            _ => false,
        };
        let issuer = "https://idp.example/x";
        for (value, subject, expected) in [
            ("*", "me", true),
            ("*", "", false),
            ("https://idp.example/x/me", "me", true),
            ("https://idp.example/x/me", "you", false),
            ("https://idp.example/x/*", "me", true),
            ("https://idp.example/x/*", "", false),
            ("https://idp.example/x/m*", "me", true),
            ("*/me", "me", true),
            ("*/me", "you", false),
            ("*example/x/me", "me", true),
            ("*other/x/me", "me", false),
            ("*e", "me", true),
            ("https*", "me", true),
            ("https://idp.example/x", "me", false),
        ] {
            assert_eq!(matches(value, issuer, subject), expected, "{value} {subject}");
        }
        assert!(matches("iss*", "iss-1", "me"));
        assert!(matches("iss", "iss", ""));
        assert!(!matches("iss", "iss", "me"));
    }
}
