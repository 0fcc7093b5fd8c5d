//! Connections that arrive at a pod: tunnels on port 15008, and plaintext on port 15006.

mod authorize;
pub(crate) mod handshake;
pub(crate) mod plaintext;
mod stream;
pub(crate) mod tunnel;
