//! Once more, and when.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh_wire::l7;

use crate::matching::HeaderCondition;
use crate::pattern::Cache;
use crate::request::{Field, joined};
use crate::rule::duration;
use crate::{CompileError, grpc, share};

/// When a request is sent again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Further attempts after the first.
    pub attempts: u32,
    /// Of one attempt; `None`: as long as the whole request.
    pub per_try_timeout: Option<Duration>,
    /// Hosts that were tried may be tried again at once.
    pub reuse_hosts: bool,
    /// After two attempts other priorities are preferred.
    pub remote_localities: bool,
    conditions: Conditions,
    status_codes: Vec<u16>,
    headers: Vec<HeaderCondition>,
    backoff: Duration,
    backoff_is_minimum: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// With a response; its headers are here, of which none went to the client.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: &'a HeaderMap,
    },
    /// No connection: refused, unreachable, handshake failed, or it took too long.
    ConnectFailure,
    /// The peer says that it did not look at the request.
    RefusedStream,
    /// The connection or stream ended before a response.
    Reset {
        /// Whether a byte of the request had been written.
        wrote_request: bool,
    },
    /// The attempt took too long.
    PerTryTimeout,
    /// A limit of ours: no endpoint was asked.
    Overflow,
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conditions(u32);

impl Conditions {
    const SERVER_ERROR: Self = Self(1);
    const GATEWAY_ERROR: Self = Self(1 << 1);
    const RESET: Self = Self(1 << 2);
    const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    const CONNECT_FAILURE: Self = Self(1 << 4);
    const REFUSED_STREAM: Self = Self(1 << 5);
    const RETRIABLE_4XX: Self = Self(1 << 6);
    const RATE_LIMITED: Self = Self(1 << 7);
    const STATUS_CODES: Self = Self(1 << 8);
    const HEADERS: Self = Self(1 << 9);
    const HTTP3_POST_CONNECT: Self = Self(1 << 10);
    const CANCELLED: Self = Self(1 << 11);
    const DEADLINE_EXCEEDED: Self = Self(1 << 12);
    const INTERNAL: Self = Self(1 << 13);
    const RESOURCE_EXHAUSTED: Self = Self(1 << 14);
    const UNAVAILABLE: Self = Self(1 << 15);

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "5xx" => Self::SERVER_ERROR,
            "gateway-error" => Self::GATEWAY_ERROR,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "connect-failure" => Self::CONNECT_FAILURE,
            "refused-stream" => Self::REFUSED_STREAM,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "envoy-ratelimited" => Self::RATE_LIMITED,
            "retriable-status-codes" => Self::STATUS_CODES,
            "retriable-headers" => Self::HEADERS,
            // Upstreams are not called over HTTP/3: it never happens.
            "http3-post-connect-failure" => Self::HTTP3_POST_CONNECT,
            "cancelled" => Self::CANCELLED,
            "deadline-exceeded" => Self::DEADLINE_EXCEEDED,
            "internal" => Self::INTERNAL,
            "resource-exhausted" => Self::RESOURCE_EXHAUSTED,
            "unavailable" => Self::UNAVAILABLE,
            _ => return None,
        })
    }

    /// Those that are in it, by name; that of listed status codes is told by the codes.
    fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().copied().filter(move |name| {
            let one = Self::named(name);
            one.is_some_and(|one| self.any_of(one) && one != Self::STATUS_CODES)
        })
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The condition for a `grpc-status`.
    fn of_grpc(status: u32) -> Self {
        match status {
            grpc::status::CANCELLED => Self::CANCELLED,
            grpc::status::DEADLINE_EXCEEDED => Self::DEADLINE_EXCEEDED,
            grpc::status::INTERNAL => Self::INTERNAL,
            grpc::status::RESOURCE_EXHAUSTED => Self::RESOURCE_EXHAUSTED,
            grpc::status::UNAVAILABLE => Self::UNAVAILABLE,
            _ => Self(0),
        }
    }
}

/// Whether a word is a condition that [`Retry`] knows; status codes are not among them.
#[must_use]
pub fn is_condition(name: &str) -> bool {
    Conditions::named(name).is_some()
}

impl Retry {
    pub(crate) fn compile(wire: &l7::Retry, cache: &mut Cache) -> Result<Self, CompileError> {
        let mut conditions = Conditions::default();
        for (n, name) in wire.conditions.iter().enumerate() {
            let condition = Conditions::named(name)
                .ok_or_else(|| CompileError::new(format!("conditions[{n}]"), name, "a known retry condition"))?;
            conditions = conditions.with(condition);
        }
        let codes = wire.status_codes.iter().enumerate().map(|(n, code)| {
            let code = u16::try_from(*code).ok().filter(|code| (100..=599).contains(code));
            code.ok_or_else(|| CompileError::new(format!("status_codes[{n}]"), wire.status_codes.len(), "100 to 599"))
        });
        let headers = wire.retriable_headers.iter().enumerate().map(|(n, header)| {
            HeaderCondition::compile(header, cache).map_err(|error| error.within(format!("retriable_headers[{n}]")))
        });
        Ok(Self {
            attempts: wire.attempts,
            per_try_timeout: duration("per_try_timeout", wire.per_try_timeout.as_ref())?,
            reuse_hosts: wire.reuse_hosts,
            remote_localities: wire.remote_localities,
            conditions,
            status_codes: codes.collect::<Result<_, _>>()?,
            headers: headers.collect::<Result<_, _>>()?,
            backoff: duration("backoff", wire.backoff.as_ref())?.unwrap_or(BACKOFF),
            backoff_is_minimum: wire.backoff_is_minimum,
        })
    }
}

impl Default for Retry {
    /// What holds where nobody says anything: two retries of what certainly had no effect.
    fn default() -> Self {
        Self {
            attempts: 2,
            per_try_timeout: None,
            reuse_hosts: false,
            remote_localities: false,
            conditions: Conditions::CONNECT_FAILURE
                .with(Conditions::REFUSED_STREAM)
                .with(Conditions::UNAVAILABLE)
                .with(Conditions::CANCELLED)
                .with(Conditions::STATUS_CODES),
            status_codes: Vec::new(),
            headers: Vec::new(),
            backoff: BACKOFF,
            backoff_is_minimum: false,
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempts == 0 {
            return f.write_str("none");
        }
        let codes = self.status_codes.iter().map(ToString::to_string);
        let on: Vec<String> = codes.chain(self.conditions.names().map(str::to_owned)).collect();
        write!(f, "{} more after {}", self.attempts, if on.is_empty() { "nothing".to_owned() } else { on.join(", ") })?;
        if let Some(each) = self.per_try_timeout {
            write!(f, "; {each:?} each")?;
        }
        write!(f, "; back-off from {:?}", self.backoff)
    }
}

/// Whether an attempt that ended so is worth another one. The caller still sees to the number of attempts, to what was
/// sent already, and to budgets.
#[must_use]
pub fn retriable(retry: &Retry, outcome: &Outcome<'_>) -> bool {
    let on = retry.conditions;
    let no_response = Conditions::SERVER_ERROR.with(Conditions::GATEWAY_ERROR).with(Conditions::RESET);
    match outcome {
        Outcome::Response { status, headers } => response_is_retriable(retry, *status, headers),
        Outcome::ConnectFailure => {
            on.any_of(no_response.with(Conditions::CONNECT_FAILURE).with(Conditions::RESET_BEFORE_REQUEST))
        }
        Outcome::RefusedStream => on.any_of(no_response.with(Conditions::REFUSED_STREAM)),
        Outcome::Reset { wrote_request: false } => on.any_of(no_response.with(Conditions::RESET_BEFORE_REQUEST)),
        Outcome::Reset { wrote_request: true } | Outcome::PerTryTimeout => on.any_of(no_response),
        Outcome::Overflow => false,
    }
}

fn response_is_retriable(retry: &Retry, status: StatusCode, headers: &HeaderMap) -> bool {
    let on = retry.conditions;
    let code = status.as_u16();
    if headers.contains_key(RATE_LIMITED) {
        return on.any_of(Conditions::RATE_LIMITED);
    }
    let by_class = (on.any_of(Conditions::SERVER_ERROR) && status.is_server_error())
        || (on.any_of(Conditions::GATEWAY_ERROR) && matches!(code, 502..=504));
    if by_class || headers.contains_key(OVERLOADED) {
        return by_class;
    }
    let listed = retry.status_codes.contains(&code) || (on.any_of(Conditions::RETRIABLE_4XX) && code == 409);
    let grpc = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
    listed
        || grpc.is_some_and(|status| on.any_of(Conditions::of_grpc(status)))
        || (on.any_of(Conditions::HEADERS) && retry.headers.iter().any(|condition| header_holds(condition, headers)))
}

fn header_holds(condition: &HeaderCondition, headers: &HeaderMap) -> bool {
    match &condition.field {
        Field::Name(name) => condition.text.matches(joined(headers, name).as_deref()),
        _ => false,
    }
}

/// How long to wait before retry number `n`, from 1; `random` is drawn evenly from all 64-bit numbers.
#[must_use]
pub fn backoff(retry: &Retry, n: u32, random: u64) -> Duration {
    let base = retry.backoff;
    let most = base.saturating_mul(BACKOFF_MAX_FACTOR);
    let power = |exponent: u32| 2_u32.saturating_pow(exponent);
    if retry.backoff_is_minimum {
        let end = base.saturating_mul(power(n.saturating_sub(1))).saturating_add(base);
        return share::between(random, base.min(most), end.min(most));
    }
    let end = base.saturating_mul(power(n).saturating_sub(1));
    share::between(random, Duration::ZERO, end.min(most))
}

const RATE_LIMITED: &str = "x-envoy-ratelimited";
const OVERLOADED: &str = "x-envoy-overloaded";
/// All conditions.
const NAMES: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "envoy-ratelimited",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];
/// Base of the back-off where nobody says anything.
const BACKOFF: Duration = Duration::from_millis(25);
/// The longest wait, in bases.
const BACKOFF_MAX_FACTOR: u32 = 10;

#[cfg(test)]
mod tests;
