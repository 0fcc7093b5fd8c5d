//! Trouble on purpose: a delay, then an answer in place of the upstream's.

use http::StatusCode;
use mesh_route::fault::{Abort, Fault, sample};

use crate::http::local::Local;
use crate::report::Flags;

/// Waits, or answers, for the share of the requests that the rule says. Tells which flags that gives.
///
/// # Errors
/// The answer.
///
/// # Cancel safety
/// Dropping it ends the wait: a client that leaves does not wait on.
pub(crate) async fn inject(fault: &Fault, random: u64) -> Result<Flags, Local> {
    let sampled = sample(fault, random);
    let mut flags = Flags::NONE;
    if let Some(delay) = sampled.delay {
        flags |= Flags::DI;
        tokio::time::sleep(delay).await;
    }
    let aborted = |status| Local::new(status, "fault_filter_abort").body("fault filter abort").flags(flags | Flags::FI);
    match sampled.abort {
        None => Ok(flags),
        Some(Abort::Http(status)) => Err(aborted(status)),
        Some(Abort::Grpc(status)) => Err(aborted(StatusCode::OK).grpc_status(status)),
    }
}
