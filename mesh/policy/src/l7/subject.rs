//! A request with the texts that several policies compare.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use http::HeaderName;
use mesh_core::addr::canonical_ip;

use super::attribute::Attribute;
use super::entry::Entry;
use super::{Action, L7Request, Token};
use crate::matching::string_matches;

/// A request with the texts that several policies compare, each made when it is first asked for.
pub(super) struct Subject<'a> {
    pub(super) request: &'a L7Request<'a>,
    principal: OnceCell<Option<String>>,
    host: OnceCell<Cow<'a, str>>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(request: &'a L7Request<'a>) -> Self {
        Self { request, principal: OnceCell::new(), host: OnceCell::new() }
    }

    fn principal(&self) -> Option<&str> {
        self.principal.get_or_init(|| self.request.source.map(mesh_core::Identity::principal)).as_deref()
    }

    /// In lower case, as policies' hosts are.
    fn host(&self) -> Option<&str> {
        let host = self.request.http?.host;
        Some(self.host.get_or_init(|| match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        }))
    }

    fn token(&self) -> Option<&'a dyn Token> {
        self.request.http?.token
    }

    fn ip(&self, attribute: &Attribute) -> Option<IpAddr> {
        let ip = match attribute {
            Attribute::SourceIp => Some(self.request.source_ip),
            Attribute::RemoteIp => Some(self.request.remote_ip),
            Attribute::DestinationIp => self.request.destination_ip,
            _ => None,
        };
        ip.map(canonical_ip)
    }

    /// The one text that the request has for an attribute.
    fn text(&self, attribute: &Attribute) -> Option<&str> {
        match attribute {
            Attribute::Principal => self.principal(),
            Attribute::Namespace => self.request.source.map(mesh_core::Identity::namespace),
            Attribute::TrustDomain => self.request.source.map(|source| source.trust_domain().as_str()),
            Attribute::Sni => self.request.sni,
            Attribute::Host => self.host(),
            Attribute::Method => self.request.http.map(|http| http.method),
            Attribute::Path => self.request.http.map(|http| http.path),
            Attribute::Presenter => self.token()?.presenter(),
            _ => None,
        }
    }

    /// Whether an entry of the list of values matches; for an attribute that the request does not have, none does. An
    /// address that is not known may be any for policies that refuse, and is none for those that allow.
    pub(super) fn is_listed(&self, attribute: &Attribute, entry: &Entry, action: Action) -> bool {
        match attribute {
            Attribute::DestinationIp if self.request.destination_ip.is_none() => action != Action::Allow,
            Attribute::Header(name) => {
                self.header_matches(name, action != Action::Allow, |value| entry.matches_text(value))
            }
            _ => self.matches(attribute, entry) || (action != Action::Allow && self.may_mean(attribute, entry)),
        }
    }

    /// Whether an entry of the list of exclusions keeps a rule from matching.
    pub(super) fn is_excluded(&self, attribute: &Attribute, entry: &Entry, action: Action) -> bool {
        match attribute {
            Attribute::DestinationIp if self.request.destination_ip.is_none() => action == Action::Allow,
            Attribute::Host if action != Action::Allow => {
                let other = self.other_host();
                self.matches(attribute, entry) && other.is_none_or(|host| entry.matches_text(&host))
            }
            Attribute::Header(name) if action == Action::Allow => {
                self.header_matches(name, true, |value| entry.matches_text(value))
            }
            // To escape a deny policy, the joined value and each single one have to be excluded.
            Attribute::Header(name) => {
                self.header_matches(name, false, |value| entry.matches_text(value))
                    && !self.header_matches(name, true, |value| !entry.matches_text(value))
            }
            _ => self.matches(attribute, entry) || (action == Action::Allow && self.may_mean(attribute, entry)),
        }
    }

    /// Whether a request that does not match an entry as it was sent means the same to whoever answers it. Nobody gets
    /// around a refusal by another spelling: a name that ends in a dot, a segment of a path with unusual characters.
    fn may_mean(&self, attribute: &Attribute, entry: &Entry) -> bool {
        match (attribute, entry) {
            (Attribute::Host, _) => self.other_host().is_some_and(|host| entry.matches_text(&host)),
            (Attribute::Path, Entry::Template(template)) => {
                self.request.http.is_some_and(|http| template.matches_any(http.path))
            }
            _ => false,
        }
    }

    /// The host without the dot at the end of its name, if it has one.
    fn other_host(&self) -> Option<String> {
        let host = self.host()?;
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
            _ => (host, None),
        };
        let name = name.strip_suffix('.')?;
        Some(port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}")))
    }

    fn matches(&self, attribute: &Attribute, entry: &Entry) -> bool {
        match (attribute, entry) {
            (_, Entry::Net(net)) => self.ip(attribute).is_some_and(|ip| net.contains(&ip)),
            (_, Entry::Port(port)) => *port == self.request.destination_port,
            (_, Entry::Account { namespace, name }) => self
                .request
                .source
                .is_some_and(|source| source.namespace() == namespace && source.service_account() == name),
            (_, Entry::RequestPrincipal { issuer, subject, .. }) => self.token().is_some_and(|token| {
                string_matches(issuer, token.issuer()) && string_matches(subject, token.subject())
            }),
            (Attribute::Audience, _) => {
                self.token().is_some_and(|token| token.audiences().iter().any(|one| entry.matches_text(one)))
            }
            (Attribute::Claim(path), _) => self.claim_matches(path, entry),
            _ => self.text(attribute).is_some_and(|text| entry.matches_text(text)),
        }
    }

    /// Scopes are one text with spaces between.
    fn claim_matches(&self, path: &[String], entry: &Entry) -> bool {
        let spaced = matches!(path, [name] if name == "scope" || name == "permission");
        let mut test = |value: &str| {
            entry.matches_text(value)
                || (spaced && value.split(' ').any(|one| !one.is_empty() && entry.matches_text(one)))
        };
        self.token().and_then(|token| token.any_claim(path, &mut test)).unwrap_or(false)
    }

    /// Whether the header's values, joined by commas, pass the test; with `or_single`, any of several alone suffices.
    fn header_matches(&self, name: &HeaderName, or_single: bool, test: impl Fn(&str) -> bool) -> bool {
        let Some(http) = self.request.http else {
            return false;
        };
        let values: Vec<Cow<'_, str>> =
            http.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        match values.as_slice() {
            [] => false,
            [one] => test(one),
            several => test(&several.join(",")) || (or_single && several.iter().any(|one| test(one))),
        }
    }

    /// What the request has for an attribute, as a policy would list it; `None` where it has nothing.
    pub(super) fn value(&self, attribute: &Attribute) -> Option<String> {
        match attribute {
            Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => {
                self.ip(attribute).map(|ip| ip.to_string())
            }
            Attribute::Port => Some(self.request.destination_port.to_string()),
            Attribute::ServiceAccount => {
                self.request.source.map(|source| format!("{}/{}", source.namespace(), source.service_account()))
            }
            Attribute::RequestPrincipal => self.token().map(|token| format!("{}/{}", token.issuer(), token.subject())),
            Attribute::Audience => self.token()?.audiences().first().cloned(),
            Attribute::Header(name) => {
                let value = self.request.http?.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
            // What a token says is not repeated.
            Attribute::Claim(_) => None,
            _ => self.text(attribute).map(str::to_owned),
        }
    }
}
