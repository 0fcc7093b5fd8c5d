//! gRPC: its statuses, its answers from a proxy, its deadlines, and how its methods are paths.

use std::time::Duration;

use mesh_wire::l7::{PathMatch, path_match::Kind};

/// Statuses that a proxy itself sends.
pub mod status {
    /// The caller gave up.
    pub const CANCELLED: u32 = 1;
    /// Nobody knows.
    pub const UNKNOWN: u32 = 2;
    /// Too late.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// Policy refuses it.
    pub const PERMISSION_DENIED: u32 = 7;
    /// A limit was reached.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// No such method.
    pub const UNIMPLEMENTED: u32 = 12;
    /// Something broke.
    pub const INTERNAL: u32 = 13;
    /// Nobody serves it now.
    pub const UNAVAILABLE: u32 = 14;
    /// Who is calling?
    pub const UNAUTHENTICATED: u32 = 16;
}

/// Whether a request is gRPC, by its content type (grpc-web is not).
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let base = b"application/grpc";
    let rest = content_type.get(base.len()..);
    content_type.get(..base.len()).is_some_and(|start| start.eq_ignore_ascii_case(base))
        && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The `grpc-status` that takes the place of a local answer with an HTTP status.
#[must_use]
pub fn of_local_reply(http: u16) -> u32 {
    match http {
        400 => status::INTERNAL,
        401 => status::UNAUTHENTICATED,
        403 => status::PERMISSION_DENIED,
        404 => status::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => status::UNAVAILABLE,
        _ => status::UNKNOWN,
    }
}

/// The number of a canonical name such as `UNAVAILABLE`.
#[must_use]
pub fn status_of_name(name: &str) -> Option<u32> {
    NAMES.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok())
}

/// A text as `grpc-message` carries it.
#[must_use]
pub fn encode_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            byte => out.push(char::from(byte)),
        }
    }
    out
}

/// Value of `grpc-timeout`: up to eight digits and a unit.
#[must_use]
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().next_back()?;
    let digits = text.get(..at).filter(|digits| (1..=8).contains(&digits.len()))?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Value of `grpc-timeout`, in the finest unit that eight digits can hold; rounded up, so that the upstream never gives
/// up before this proxy.
#[must_use]
pub fn format_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    for (unit, size) in [("n", 1), ("u", 1_000), ("m", 1_000_000), ("S", 1_000_000_000), ("M", 60_000_000_000)] {
        let number = nanos.div_ceil(size);
        if number < 100_000_000 {
            return format!("{number}{unit}");
        }
    }
    format!("{}H", nanos.div_ceil(3_600_000_000_000).min(99_999_999))
}

/// The path that a method match of a GRPCRoute means; `None`: any. Parts that are empty count as not given.
#[must_use]
pub fn method_path(service: Option<&str>, method: Option<&str>, regex: bool) -> Option<PathMatch> {
    let service = service.filter(|service| !service.is_empty());
    let method = method.filter(|method| !method.is_empty());
    let kind = match (service, method, regex) {
        (None, None, _) => return None,
        (Some(service), Some(method), false) => Kind::Exact(format!("/{service}/{method}")),
        (Some(service), None, false) => Kind::Prefix(format!("/{service}/")),
        (None, Some(method), false) => Kind::Regex(format!("/[^/]+/{}", regex::escape(method))),
        (service, method, true) => {
            Kind::Regex(format!("/({})/({})", service.unwrap_or("[^/]+"), method.unwrap_or("[^/]+")))
        }
    };
    Some(PathMatch { kind: Some(kind), ignore_case: false })
}

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests;
