//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

/// What a healthy proxy does promptly, it does within this time even on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits for `future`.
///
/// # Panics
/// When it takes longer than [`SOON`].
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    within(what, SOON, future).await
}

/// Waits for `future`.
///
/// # Panics
/// When it takes longer than `limit`.
pub async fn within<F: Future>(what: &str, limit: Duration, future: F) -> F::Output {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within [`SOON`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(what, SOON, ask).await
}

/// [`eventually`] with a limit of its own.
///
/// # Panics
/// When there is no answer within `limit`.
pub async fn eventually_within<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Watches for `window` that something does not happen.
///
/// # Panics
/// As soon as `happens` yields.
pub async fn never_within<F: Future>(what: &str, window: Duration, happens: F) {
    assert!(tokio::time::timeout(window, happens).await.is_err(), "{what}");
}

const POLL: Duration = Duration::from_millis(20);
