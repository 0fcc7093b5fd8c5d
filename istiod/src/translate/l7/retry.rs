//! Retries of VirtualServices, of the mesh, and of routes that say nothing.

use mesh_api::networking::HttpRetry;
use mesh_wire::l7;

use super::traffic::optional;
use crate::world::MeshSettings;

/// Retries of a route that says nothing: the mesh's, else two on failures that reached no application.
///
/// # Source
/// spec of resilience, section 4.1; of layer-7 routing, section 5.4.
pub fn usual(settings: &MeshSettings) -> Option<l7::Retry> {
    match &settings.l7.default_retry {
        Some(written) => retry(written),
        None => Some(l7::Retry { attempts: 2, conditions: conditions(), ..l7::Retry::default() }),
    }
}

/// Retries as written; none where they are switched off.
pub(super) fn retry(written: &HttpRetry) -> Option<l7::Retry> {
    let attempts = u32::try_from(written.attempts.unwrap_or(2)).unwrap_or_default();
    if attempts == 0 {
        return None;
    }
    let mut retry = l7::Retry {
        attempts,
        per_try_timeout: optional(written.per_try_timeout.as_ref()),
        backoff: optional(written.backoff.as_ref()),
        reuse_hosts: written.retry_ignore_previous_hosts == Some(false),
        remote_localities: written.retry_remote_localities.unwrap_or_default(),
        ..l7::Retry::default()
    };
    for word in written.retry_on.as_deref().unwrap_or_default().split(',').map(str::trim) {
        match word.parse::<u32>() {
            Ok(code @ 100..=599) => retry.status_codes.push(code),
            _ if word.is_empty() => {}
            _ => retry.conditions.push(word.to_owned()),
        }
    }
    if retry.conditions.is_empty() && retry.status_codes.is_empty() {
        retry.conditions = conditions();
    } else if !retry.status_codes.is_empty() && !retry.conditions.iter().any(|one| one == STATUS_CODES) {
        retry.conditions.push(STATUS_CODES.to_owned());
    }
    Some(retry)
}

/// Conditions of retries that say none.
pub fn conditions() -> Vec<String> {
    DEFAULT.map(ToOwned::to_owned).to_vec()
}

const DEFAULT: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "cancelled"];
const STATUS_CODES: &str = "retriable-status-codes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_as_written_and_by_default() {
        let settings = MeshSettings::default();
        let plain = usual(&settings).unwrap();
        assert_eq!((plain.attempts, plain.conditions.len()), (2, 4));
        let written =
            |on: &str, attempts| retry(&HttpRetry { retry_on: Some(on.into()), attempts, ..HttpRetry::default() });
        assert!(written("5xx", Some(0)).is_none());
        let one = written("503, connect-failure", Some(3)).unwrap();
        assert_eq!((one.attempts, one.status_codes), (3, vec![503]));
        assert_eq!(one.conditions, ["connect-failure", "retriable-status-codes"]);
        assert_eq!(written("", None).unwrap().conditions, plain.conditions);
    }
}
