//! Whatever fails around the control plane: what was good stays served, memory stays bounded, and it recovers by itself.
//! Each test prints how long that took.

mod api_server;
mod cost;
mod leader;
mod machines;
mod objects;
mod proxies;
