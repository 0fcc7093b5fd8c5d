//! Waiting for what may never come.

use tokio::time::Instant;

/// Waits until then; for ever where there is no such time.
///
/// # Cancel safety
/// Cancel-safe.
pub(crate) async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
