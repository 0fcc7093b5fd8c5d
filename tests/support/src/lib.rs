//! What journeys share: a sandbox for one test, packet captures, waiting.

pub mod lab;
pub mod pcap;
pub mod priority;
pub mod run;
pub mod wait;

pub use lab::Lab;
pub use wait::eventually;
