//! A mesh around one real node proxy, written from the wire specification alone.
//!
//! Nothing here uses the mesh's own protocol code: messages are declared by hand, gRPC and HBONE are plain HTTP/2. The
//! program under test is the `ztunnel` next to the test binary; `CONFORMANCE_ZTUNNEL` names another one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // whatever fails here fails the test

pub mod ads;
pub mod agent;
pub mod ca;
pub mod control;
pub mod dns;
pub mod frames;
pub mod grpc;
pub mod isolate;
pub mod net;
pub mod peer;
pub mod pki;
pub mod proxy;
pub mod rules;
pub mod tls;
pub mod tunnel;
pub mod wait;
pub mod wire;
pub mod world;
