//! Scripted HBONE peers on plain HTTP/2.

pub mod client;
pub mod server;

pub use client::Client;
pub use server::Server;
