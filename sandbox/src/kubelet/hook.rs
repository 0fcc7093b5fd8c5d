//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::probe::{Action, Target, perform};

/// Runs a hook to its end, or to the end of `limit`.
///
/// # Errors
/// What went wrong, for an event; the container's life goes on all the same.
pub(super) async fn run(
    target: &Target,
    container: &Container,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let wait = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wait.min(limit)).await;
        return Ok(());
    }
    let action = Action::of_hook(hook, container)?;
    perform(target, &action, limit).await
}
