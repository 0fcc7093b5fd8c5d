//! Sizes and times of connections.

use std::time::Duration;

use super::reader::Reader;

/// TCP keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `KEEPALIVE_TIME`: idle time before the first probe.
    pub time: Duration,
    /// `KEEPALIVE_INTERVAL`: between probes.
    pub interval: Duration,
    /// `KEEPALIVE_RETRIES`: unanswered probes that end the connection.
    pub retries: u32,
}

pub(super) fn window(read: &mut Reader<'_>, name: &str, default: u32) -> u32 {
    size(read, name, default, HTTP2_WINDOW_MAX)
}

pub(super) fn frame(read: &mut Reader<'_>, name: &str, default: u32) -> u32 {
    size(read, name, default, HTTP2_FRAME_MAX)
}

fn size(read: &mut Reader<'_>, name: &str, default: u32, max: u32) -> u32 {
    let value = read.number(name, default);
    if !(HTTP2_SIZE_MIN..=max).contains(&value) {
        read.error(format!("{name}={value}: expected {HTTP2_SIZE_MIN} to {max} bytes"));
    }
    value
}

pub(super) fn keepalive(read: &mut Reader<'_>) -> Option<Keepalive> {
    let keepalive = Keepalive {
        time: read.duration("KEEPALIVE_TIME", Duration::from_secs(180)),
        interval: read.duration("KEEPALIVE_INTERVAL", Duration::from_secs(180)),
        retries: read.number("KEEPALIVE_RETRIES", 9),
    };
    read.bool("KEEPALIVE_ENABLED", true).then_some(keepalive)
}

/// A little less than what the kubelet gives before it kills.
pub(super) fn termination_deadline(read: &mut Reader<'_>) -> Duration {
    let derived = match read.optional("TERMINATION_GRACE_PERIOD_SECONDS") {
        None => Duration::from_secs(5),
        Some(_) => {
            let grace = read.number("TERMINATION_GRACE_PERIOD_SECONDS", 10_u64);
            let less = if grace > 10 { 5 } else { 1 };
            Duration::from_secs(grace.saturating_sub(less).max(1))
        }
    };
    read.duration("CONNECTION_TERMINATION_DEADLINE", derived)
}

/// The smallest frame size that HTTP/2 allows; a smaller window makes no sense either.
const HTTP2_SIZE_MIN: u32 = 16 << 10;
/// RFC 9113 section 6.9.1.
const HTTP2_WINDOW_MAX: u32 = (1 << 31) - 1;
/// RFC 9113 section 6.5.2.
const HTTP2_FRAME_MAX: u32 = (1 << 24) - 1;
