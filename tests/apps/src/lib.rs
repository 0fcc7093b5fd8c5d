//! What the test programs share: who this pod is, what it saw, what callers may wish, and a byte pattern that both
//! ends can compute.

pub mod call;
pub mod grpc;
pub mod http;
pub mod pattern;
pub mod seen;
pub mod tcp;
pub mod tls;
pub mod whoami;
pub mod wish;
pub mod ws;
