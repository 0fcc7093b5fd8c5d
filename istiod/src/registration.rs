//! Workloads that are no pods register themselves: whoever opens a stream and names a WorkloadGroup gets a WorkloadEntry
//! for as long as the stream is open.
//!
//! ```text
//!            first stream             last stream ends            grace is over
//!  (absent) --------------> connected ----------------> leaving ----------------> (absent, entry deleted)
//!                               ^        a new stream      |
//!                               +--------------------------+
//! ```
//!
//! - [`claim`]: what a workload says of itself, and whether it may; [`entry`]: the WorkloadEntry that follows from it.
//! - [`Registry`]: who is connected to this replica. It is asked by the gate of the xDS server and never waits for the API
//!   server, except that a stream is answered only after its entry was written, or after a short time.
//! - [`Writer`]: makes the entries say so; `step` decides, over the object that was just read. Another replica may have
//!   taken a workload over meanwhile: whom it connected to last has the entry.
//! - [`Upkeep`]: finds entries that are not what they should be: deleted by hand, left over from an earlier process of
//!   ours, or, where we lead, from a replica that is gone.

pub mod claim;
pub mod entry;
mod health;
mod metrics;
mod place;
mod refusal;
mod registry;
mod step;
#[cfg(test)]
mod tests;
mod turn;
mod upkeep;
mod writer;

pub use claim::Claim;
pub use metrics::RegistrationMetrics;
pub use refusal::Refusal;
pub use registry::{Attendance, Limits, Registry};
pub use upkeep::Upkeep;
pub use writer::Writer;
