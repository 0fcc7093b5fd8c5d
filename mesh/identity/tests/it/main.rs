//! Handshakes between real rustls peers, and the authority's client against a scripted authority.

mod authority;
mod handshake;
