//! Component tests: real network namespaces, real sockets, scripted peers.

mod agent;
mod lab;
mod plugin;
mod redirect;
mod zds;
