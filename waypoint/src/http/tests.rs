//! The pipeline over a duplex stream, in front of real servers on loopback.

mod bodies;
mod endings;
pub(crate) mod fixture;
mod hostile;
mod resilience;
mod routing;
mod upgrades;
mod waypoint;
