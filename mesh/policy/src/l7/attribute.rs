//! What a field of a policy is about.

use std::fmt;

use http::HeaderName;

/// What a field of a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Principal,
    ServiceAccount,
    Namespace,
    TrustDomain,
    SourceIp,
    RemoteIp,
    DestinationIp,
    Port,
    Sni,
    RequestPrincipal,
    Host,
    Method,
    Path,
    Header(HeaderName),
    Audience,
    Presenter,
    /// The name of a claim inside of objects, outermost first.
    Claim(Vec<String>),
}

impl Attribute {
    /// The attribute of a condition's key; `None` for one that is not known.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.principal" => Self::Principal,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.trustDomain" => Self::TrustDomain,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::Port,
            "connection.sni" => Self::Sni,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Audience,
            "request.auth.presenter" => Self::Presenter,
            _ => {
                if let Some(name) = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
                    return HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header);
                }
                let claim = key.strip_prefix("request.auth.claims[")?.strip_suffix(']')?;
                let path: Vec<String> = claim.split("][").map(str::to_owned).collect();
                let usable = path.iter().all(|part| !part.is_empty() && !part.contains(['[', ']']));
                return usable.then_some(Self::Claim(path));
            }
        })
    }

    /// Whether only requests have it, connections do not.
    pub(super) fn is_of_http(&self) -> bool {
        match self {
            Self::Principal
            | Self::ServiceAccount
            | Self::Namespace
            | Self::TrustDomain
            | Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::Port
            | Self::Sni => false,
            Self::RequestPrincipal
            | Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::Audience
            | Self::Presenter
            | Self::Claim(_) => true,
        }
    }

    /// Whether only a peer that proved an identity has it.
    pub(super) fn needs_identity(&self) -> bool {
        matches!(self, Self::Principal | Self::ServiceAccount | Self::Namespace | Self::TrustDomain)
    }

    /// Whether only a request with a token has it.
    pub(super) fn needs_token(&self) -> bool {
        matches!(self, Self::RequestPrincipal | Self::Audience | Self::Presenter | Self::Claim(_))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal => f.write_str("principal"),
            Self::ServiceAccount => f.write_str("service account"),
            Self::Namespace => f.write_str("namespace"),
            Self::TrustDomain => f.write_str("trust domain"),
            Self::SourceIp => f.write_str("source IP"),
            Self::RemoteIp => f.write_str("remote IP"),
            Self::DestinationIp => f.write_str("destination IP"),
            Self::Port => f.write_str("port"),
            Self::Sni => f.write_str("SNI"),
            Self::RequestPrincipal => f.write_str("request principal"),
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Audience => f.write_str("audience"),
            Self::Presenter => f.write_str("presenter"),
            Self::Claim(path) => write!(f, "claim {}", path.join(".")),
        }
    }
}
