//! Timeouts, retries and sessions of rules.
//!
//! # Source
//! spec of routing, section 2.7; spec of resilience, section 4.1.

use std::time::Duration;

use mesh_api::duration::DurationText;
use mesh_api::gateway::{
    CookieLifetime, HttpRouteRetry, HttpRouteTimeouts, SessionPersistence, SessionPersistenceType,
};
use mesh_wire::l7::{self, path_match};

use super::Problem;

/// Timeout of the whole request, and retries with the timeout of each attempt.
///
/// # Errors
/// A duration or a number has no meaning.
pub(super) fn times(
    timeouts: Option<&HttpRouteTimeouts>,
    retry: Option<&HttpRouteRetry>,
) -> Result<(Option<prost_types::Duration>, Option<l7::Retry>), Problem> {
    let read = |field: &str, text: Option<&DurationText>| text.map_or(Ok(None), |text| duration(field, text));
    let request = read("timeouts.request", timeouts.and_then(|one| one.request.as_ref()))?;
    let attempt = read("timeouts.backendRequest", timeouts.and_then(|one| one.backend_request.as_ref()))?;
    if let (Some(request), Some(attempt)) = (request, attempt)
        && attempt > request
    {
        let message = format!("timeouts.backendRequest {attempt:?} is longer than timeouts.request {request:?}");
        return Err(Problem::value(message));
    }
    let Some(retry) = retry else {
        // One attempt is all that there is, but for those that never reached a backend.
        return Ok((wire(attempt.or(request)), None));
    };
    let backoff = read("retry.backoff", retry.backoff.as_ref())?;
    if let Some(code) = retry.codes.iter().find(|code| !(400..=599).contains(*code)) {
        return Err(Problem::value(format!("retry.codes has {code}, which is not a status from 400 to 599")));
    }
    let mut conditions: Vec<String> = RETRIED.into_iter().map(str::to_owned).collect();
    if !retry.codes.is_empty() {
        conditions.push("retriable-status-codes".to_owned());
    }
    let retry = l7::Retry {
        attempts: retry.attempts.unwrap_or(2),
        per_try_timeout: wire(attempt),
        conditions,
        status_codes: retry.codes.clone(),
        backoff: wire(backoff),
        backoff_is_minimum: true,
        ..l7::Retry::default()
    };
    Ok((wire(request), Some(retry)))
}

/// What keeps the requests of a session at one endpoint.
///
/// # Errors
/// A duration or a name has no meaning, or is asked for where it cannot be had.
pub(super) fn session(
    written: &SessionPersistence,
    matches: &[l7::HttpMatch],
) -> Result<l7::SessionPersistence, Problem> {
    let read = |field: &str, text: Option<&DurationText>| text.map_or(Ok(None), |text| duration(field, text));
    let absolute = read("sessionPersistence.absoluteTimeout", written.absolute_timeout.as_ref())?;
    let idle = read("sessionPersistence.idleTimeout", written.idle_timeout.as_ref())?;
    let kind = written.type_.unwrap_or_default();
    let lifetime = written.cookie_config.as_ref().and_then(|config| config.lifetime_type).unwrap_or_default();
    let name = written.session_name.clone().filter(|name| !name.is_empty()).unwrap_or(SESSION_NAME.to_owned());
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(Problem::value(format!(
            "sessionPersistence.sessionName {name:?} is no name of a cookie or header"
        )));
    }
    let permanent = kind == SessionPersistenceType::Cookie && lifetime == CookieLifetime::Permanent;
    if permanent && absolute.is_none() {
        return Err(Problem::value("sessionPersistence: a Permanent cookie needs an absoluteTimeout"));
    }
    Ok(l7::SessionPersistence {
        kind: match kind {
            SessionPersistenceType::Cookie => l7::session_persistence::Kind::Cookie.into(),
            SessionPersistenceType::Header => l7::session_persistence::Kind::Header.into(),
        },
        name,
        path: common_prefix(matches),
        lifetime: wire(absolute.filter(|_| permanent)),
        idle_timeout: wire(idle),
        absolute_timeout: wire(absolute),
    })
}

/// What a session is called by default.
const SESSION_NAME: &str = "meltemi-session";

/// The longest path that all matches have in common, by whole segments.
fn common_prefix(matches: &[l7::HttpMatch]) -> String {
    let segments = |one: &l7::HttpMatch| -> Vec<String> {
        let path = match one.path.as_ref().and_then(|path| path.kind.as_ref()) {
            Some(path_match::Kind::Exact(path) | path_match::Kind::SegmentPrefix(path)) => path.as_str(),
            _ => "/",
        };
        path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    };
    let mut all = matches.iter().map(segments);
    let Some(mut common) = all.next() else { return "/".to_owned() };
    for other in all {
        let same = common.iter().zip(&other).take_while(|(one, other)| one == other).count();
        common.truncate(same);
    }
    format!("/{}", common.join("/"))
}

/// None of a duration of zero: it is no limit.
fn duration(field: &str, text: &DurationText) -> Result<Option<Duration>, Problem> {
    match text.parse() {
        Some(duration) => Ok(Some(duration).filter(|duration| !duration.is_zero())),
        None => Err(Problem::value(format!("{field} {:?} is no duration such as 1m30s or 250ms", text.0))),
    }
}

fn wire(duration: Option<Duration>) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration?).ok()
}

/// What is retried, whatever the statuses: requests that were not answered, and gRPC calls that say so.
const RETRIED: [&str; 5] = ["connect-failure", "refused-stream", "reset", "unavailable", "cancelled"];
