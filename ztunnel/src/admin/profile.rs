//! CPU profiles of the running process, where they are built in (feature `pprof`); heap profiles
//! never are: they need an allocator that counts, which costs every allocation.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// How long a profile may take, in seconds.
const SECONDS: RangeInclusive<u64> = 1..=300;
const SECONDS_DEFAULT: u64 = 10;
/// Samples per second and thread.
const FREQUENCY: RangeInclusive<u64> = 1..=1000;
const FREQUENCY_DEFAULT: u64 = 100;

/// `?seconds=<n>&frequency=<n>`.
pub(super) async fn profile(Query(query): Query<HashMap<String, String>>) -> Response {
    let number = |name, range, default| number(query.get(name), name, range, default);
    let (seconds, frequency) =
        match (number("seconds", SECONDS, SECONDS_DEFAULT), number("frequency", FREQUENCY, FREQUENCY_DEFAULT)) {
            (Ok(seconds), Ok(frequency)) => (seconds, frequency),
            (Err(problem), _) | (_, Err(problem)) => return (StatusCode::BAD_REQUEST, problem).into_response(),
        };
    take(seconds, frequency).await
}

pub(super) async fn heap() -> Response {
    (StatusCode::NOT_IMPLEMENTED, "heap profiles are not built into this binary\n").into_response()
}

fn number(text: Option<&String>, name: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, String> {
    let Some(text) = text else { return Ok(default) };
    let parsed = text.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| format!("{name}={text}: expected a number from {} to {}\n", range.start(), range.end()))
}

#[cfg(not(feature = "pprof"))]
async fn take(_: u64, _: u64) -> Response {
    (StatusCode::NOT_IMPLEMENTED, "CPU profiles are not built into this binary: build it with --features pprof\n")
        .into_response()
}

#[cfg(feature = "pprof")]
async fn take(seconds: u64, frequency: u64) -> Response {
    use axum::http::header;
    use tokio::sync::Semaphore;

    /// The process has one timer for it.
    static ONE: Semaphore = Semaphore::const_new(1);
    let Ok(_one) = ONE.try_acquire() else {
        return (StatusCode::CONFLICT, "another profile is being taken\n").into_response();
    };
    match built_in::sample(std::time::Duration::from_secs(seconds), frequency).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(feature = "pprof")]
mod built_in {
    use std::time::Duration;

    use pprof::ProfilerGuardBuilder;
    use pprof::protos::Message as _;

    /// The profile as protobuf, as the pprof tools read it.
    pub(super) async fn sample(time: Duration, frequency: u64) -> anyhow::Result<Vec<u8>> {
        let frequency = i32::try_from(frequency)?;
        // Unwinding from within these may deadlock.
        let guard = ProfilerGuardBuilder::default()
            .frequency(frequency)
            .blocklist(&["libc", "libgcc", "pthread", "vdso"])
            .build()?;
        tokio::time::sleep(time).await;
        // Names are looked up for all samples, which takes a while.
        tokio::task::spawn_blocking(move || Ok(guard.report().build()?.pprof()?.write_to_bytes()?)).await?
    }
}
