//! One module a decoder: `run` gives it any bytes and checks what must hold whatever they are. A panic is a finding.
//!
//! `make fuzz` lets an engine search for such bytes, with `corpus/<decoder>/` to start from; `make test` replays the
//! corpora.

#![allow(clippy::missing_panics_doc)] // reason: to panic is how these functions report

pub mod admission;
pub mod authorization;
pub mod baggage;
pub mod detect;
pub mod dns;
pub mod forwarded;
pub mod hbone_connection;
pub mod hbone_request;
pub mod l7_resource;
pub mod local_config;
mod pieces;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod request_target;
pub mod socks;
pub mod strict;
pub mod tls_hello;
pub mod wds;
pub mod zds;

/// A decoder under its name, which is also that of its corpus.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them.
pub const DECODERS: [Decoder; 18] = [
    ("admission", admission::run),
    ("authorization", authorization::run),
    ("baggage", baggage::run),
    ("detect", detect::run),
    ("dns", dns::run),
    ("forwarded", forwarded::run),
    ("hbone_connection", hbone_connection::run),
    ("hbone_request", hbone_request::run),
    ("l7_resource", l7_resource::run),
    ("local_config", local_config::run),
    ("proxy_header", proxy_header::run),
    ("proxy_protocol", proxy_protocol::run),
    ("request_target", request_target::run),
    ("socks", socks::run),
    ("strict", strict::run),
    ("tls_hello", tls_hello::run),
    ("wds", wds::run),
    ("zds", zds::run),
];
