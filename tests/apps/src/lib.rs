//! What the test programs share: who this pod is, and a byte pattern that both ends can compute.

pub mod http;
pub mod pattern;
pub mod tcp;
pub mod whoami;
