//! Cross-origin requests of browsers.

use http::{HeaderMap, StatusCode};
use mesh_route::Rule;
use mesh_route::cors::{CorsVerdict, judge};

use crate::http::local::Local;

/// Headers for the response, where the origin is allowed.
///
/// # Errors
/// The answer to a preflight, which is not forwarded.
pub(crate) fn check(rule: &Rule, method: &str, headers: &HeaderMap) -> Result<Option<HeaderMap>, Local> {
    let Some(cors) = &rule.cors else { return Ok(None) };
    match judge(cors, method, headers) {
        CorsVerdict::None => Ok(None),
        CorsVerdict::Actual(headers) => Ok(Some(headers)),
        CorsVerdict::Preflight(headers) => {
            let mut local = Local::new(StatusCode::OK, "cors_preflight");
            local.headers = headers;
            Err(local)
        }
    }
}
