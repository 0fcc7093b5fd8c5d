//! Waiting for a condition, never for a time.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

/// Asks again and again until `check` succeeds, and returns what it found.
///
/// # Errors
/// After `within`: the last reason, under `what`.
pub async fn eventually<T>(what: &str, within: Duration, mut check: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match check().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {:.1}s: {what}", within.as_secs_f64()));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

const POLL: Duration = Duration::from_millis(10);
