//! Delta-ADS client, generic over resource types.
//!
//! - [`DeltaClient`]: the protocol as a state machine without I/O: responses in, requests out.
//! - [`Reconnect`]: how long to wait before the next stream.
//! - [`Demand`]: asks for single resources by name, where not all of a type are subscribed to.
//! - [`Subscriptions`]: names that are followed, where not all of a type are.
//! - [`run`]: the gRPC shell around all of them.

mod channel;
mod delta;
mod demand;
mod reconnect;
mod shell;
mod subscriptions;

pub use delta::{DeltaClient, Handled};
pub use demand::{Demand, DemandError, Demands};
pub use reconnect::{Reconnect, StreamEnd};
pub use shell::{Config, Observer, RootSource, TokenSource, Unobserved, run, run_on_demand, run_subscribed};
pub use subscriptions::Subscriptions;

/// Decodes and applies resources. One call is one response: everything in it must become visible
/// at once.
pub trait Handler: Send {
    /// Applies `resources` in order, then `removed`. Returns the resources that are unusable; the
    /// others are applied all the same, and an earlier good copy of a refused one stays.
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection>;
}

/// One resource as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Primary name, unique within its type.
    pub name: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// The serialised message.
    pub value: Vec<u8>,
}

/// A resource that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Name of the resource.
    pub name: String,
    /// The field, its value and what was expected.
    pub reason: String,
}

impl Rejection {
    /// Puts a rejection together.
    #[must_use]
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), reason: reason.into() }
    }
}
