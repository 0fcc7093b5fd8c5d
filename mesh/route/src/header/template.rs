//! Header values with operators, such as `%REQ(x-user)%`.

mod time;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderValue;

use crate::CompileError;
use crate::limits::TEMPLATE_VALUE_BYTES_MAX;
use crate::request::{Field, joined};

/// A header value with operators; `%%` is a percent sign.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

/// What operators can speak of; what is not there expands to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemplateContext<'a> {
    /// Method of the request.
    pub method: &'a str,
    /// Scheme of the request.
    pub scheme: &'a str,
    /// Authority of the request.
    pub authority: &'a str,
    /// Path of the request with its query, as it came (canonical, not rewritten).
    pub path: &'a str,
    /// Headers of the request; `None` while it is them that are edited.
    pub request_headers: Option<&'a HeaderMap>,
    /// Headers of the response; `None` while it is them that are edited, or before there is one.
    pub response_headers: Option<&'a HeaderMap>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// When the request came, since the Unix epoch.
    pub started: Duration,
    /// Of the client, trusted headers considered.
    pub remote: Option<SocketAddr>,
    /// Of the connection's other end.
    pub direct_remote: Option<SocketAddr>,
    /// That the client called.
    pub local: Option<SocketAddr>,
    /// The endpoint that was chosen.
    pub upstream: Option<SocketAddr>,
    /// Name of the service and port that was chosen, as clusters are named.
    pub upstream_cluster: &'a str,
    /// Status of the response.
    pub status: Option<u16>,
    /// Response flags.
    pub flags: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Name that the client asked for in TLS.
    pub server_name: &'a str,
    /// Identity that the client proved.
    pub peer_uri: &'a str,
    /// Identity of this proxy.
    pub local_uri: &'a str,
    /// Name of the host this runs on.
    pub hostname: &'a str,
    /// Whether it is the response whose headers are edited.
    pub edits_response: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Operator(Operator, Option<usize>),
}

#[derive(Clone, Debug)]
enum Operator {
    Request(Field, Option<Field>),
    Response(Field, Option<Field>),
    StartTime(time::Format),
    Protocol,
    Remote { direct: bool, part: AddressPart },
    Local { part: AddressPart },
    Upstream { part: AddressPart },
    UpstreamCluster,
    ResponseCode,
    ResponseFlags,
    RouteName,
    ServerName,
    PeerUri,
    LocalUri,
    Hostname,
}

#[derive(Clone, Copy, Debug)]
enum AddressPart {
    All,
    Address,
    Port,
}

impl Template {
    /// Reads a value.
    ///
    /// # Errors
    /// A percent sign stands alone, an operator is unknown, or a literal character cannot be sent.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (operator, after) =
                operator_end(after).and_then(|end| Some((after.get(..end)?, after.get(end + 1..)?))).ok_or_else(
                    || CompileError::new("", text, "a value whose operators end with %; %% is a percent sign"),
                )?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::parse(operator)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        for part in &parts {
            if let Part::Text(literal) = part
                && HeaderValue::from_str(literal).is_err()
            {
                return Err(CompileError::new("", text, "a header value without control characters"));
            }
        }
        Ok(Self { parts })
    }

    /// The value for one message, whose headers are `edited`; `None` when it is empty, too long, or cannot be sent.
    pub(super) fn expand(&self, edited: &HeaderMap, context: &TemplateContext<'_>) -> Option<HeaderValue> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Operator(operator, most) => {
                    let value = operator.value(edited, context).unwrap_or_default();
                    let cut = most.and_then(|most| Some(value.char_indices().nth(most)?.0));
                    out.push_str(cut.and_then(|cut| value.get(..cut)).unwrap_or(&value));
                }
            }
            if out.len() > TEMPLATE_VALUE_BYTES_MAX {
                return None;
            }
        }
        if out.is_empty() { None } else { HeaderValue::from_str(&out).ok() }
    }
}

/// Where an operator ends that has begun: percent signs in its parentheses are its own.
fn operator_end(text: &str) -> Option<usize> {
    let mut inside = false;
    for (at, c) in text.char_indices() {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            '%' if !inside => return Some(at),
            _ => {}
        }
    }
    None
}

impl Part {
    /// `NAME`, `NAME(argument)` or `NAME(argument):length`.
    fn parse(text: &str) -> Result<Self, CompileError> {
        let unknown = || CompileError::new("", format!("%{text}%"), "a known operator");
        let (name, argument, length) = match text.split_once('(') {
            None => (text, None, ""),
            Some((name, rest)) => {
                let (argument, length) = rest.rsplit_once(')').ok_or_else(unknown)?;
                (name, Some(argument), length)
            }
        };
        let most = match length.strip_prefix(':') {
            None if length.is_empty() => None,
            None => return Err(unknown()),
            Some(digits) => Some(digits.parse().map_err(|_| unknown())?),
        };
        let operator = match argument {
            Some(argument) => Operator::with_argument(name, argument).ok_or_else(unknown)?,
            None => Operator::plain(name).ok_or_else(unknown)?,
        };
        Ok(Self::Operator(operator, most))
    }
}

impl Operator {
    fn with_argument(name: &str, argument: &str) -> Option<Self> {
        let fields = || {
            let (first, second) = argument.split_once('?').map_or((argument, None), |(a, b)| (a, Some(b)));
            let second = match second {
                None => None,
                Some(second) => Some(Field::parse(&second.to_ascii_lowercase())?),
            };
            Some((Field::parse(&first.to_ascii_lowercase())?, second))
        };
        match name {
            "REQ" => fields().map(|(first, second)| Self::Request(first, second)),
            "RESP" => fields().map(|(first, second)| Self::Response(first, second)),
            "START_TIME" => time::Format::compile(argument).map(Self::StartTime),
            _ => None,
        }
    }

    fn plain(name: &str) -> Option<Self> {
        use AddressPart::{Address, All, Port};
        Some(match name {
            "START_TIME" => Self::StartTime(time::Format::default()),
            "PROTOCOL" => Self::Protocol,
            "DOWNSTREAM_REMOTE_ADDRESS" => Self::Remote { direct: false, part: All },
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Self::Remote { direct: false, part: Address },
            "DOWNSTREAM_REMOTE_PORT" => Self::Remote { direct: false, part: Port },
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Self::Remote { direct: true, part: All },
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Self::Remote { direct: true, part: Address },
            "DOWNSTREAM_DIRECT_REMOTE_PORT" => Self::Remote { direct: true, part: Port },
            "DOWNSTREAM_LOCAL_ADDRESS" => Self::Local { part: All },
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Self::Local { part: Address },
            "DOWNSTREAM_LOCAL_PORT" => Self::Local { part: Port },
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Self::Upstream { part: All },
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Self::Upstream { part: Address },
            "UPSTREAM_REMOTE_PORT" => Self::Upstream { part: Port },
            "UPSTREAM_CLUSTER" => Self::UpstreamCluster,
            "RESPONSE_CODE" => Self::ResponseCode,
            "RESPONSE_FLAGS" => Self::ResponseFlags,
            "ROUTE_NAME" => Self::RouteName,
            "REQUESTED_SERVER_NAME" => Self::ServerName,
            "DOWNSTREAM_PEER_URI_SAN" => Self::PeerUri,
            "DOWNSTREAM_LOCAL_URI_SAN" => Self::LocalUri,
            "HOSTNAME" => Self::Hostname,
            _ => return None,
        })
    }

    fn value<'a>(&self, edited: &'a HeaderMap, context: &TemplateContext<'a>) -> Option<Cow<'a, str>> {
        let text = |text: &'a str| Some(Cow::Borrowed(text));
        match self {
            Self::Request(first, second) => {
                let own = (!context.edits_response).then_some(edited);
                let headers = context.request_headers.or(own);
                let value = |field: &Field| match field {
                    Field::Name(name) => joined(headers?, name),
                    Field::Authority => text(context.authority),
                    Field::Method => text(context.method),
                    Field::Scheme => text(context.scheme),
                    Field::Path => text(context.path),
                };
                value(first).or_else(|| value(second.as_ref()?))
            }
            Self::Response(first, second) => {
                let own = context.edits_response.then_some(edited);
                let headers = context.response_headers.or(own)?;
                let value = |field: &Field| match field {
                    Field::Name(name) => joined(headers, name),
                    _ => None,
                };
                value(first).or_else(|| value(second.as_ref()?))
            }
            Self::StartTime(format) => Some(Cow::Owned(format.of(context.started))),
            Self::Protocol => text(context.protocol),
            Self::Remote { direct: false, part } => part.of(context.remote.or(context.direct_remote)),
            Self::Remote { direct: true, part } => part.of(context.direct_remote),
            Self::Local { part } => part.of(context.local),
            Self::Upstream { part } => part.of(context.upstream),
            Self::UpstreamCluster => text(context.upstream_cluster),
            Self::ResponseCode => context.status.map(|status| Cow::Owned(status.to_string())),
            Self::ResponseFlags => text(context.flags),
            Self::RouteName => text(context.route),
            Self::ServerName => text(context.server_name),
            Self::PeerUri => text(context.peer_uri),
            Self::LocalUri => text(context.local_uri),
            Self::Hostname => text(context.hostname),
        }
    }
}

impl AddressPart {
    fn of(self, address: Option<SocketAddr>) -> Option<Cow<'static, str>> {
        let address = address?;
        Some(Cow::Owned(match self {
            Self::All => address.to_string(),
            Self::Address => match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => ip.to_string(),
            },
            Self::Port => address.port().to_string(),
        }))
    }
}
