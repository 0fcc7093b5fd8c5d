//! A Kubernetes-shaped laptop: an API server, and nodes whose pods are network namespaces.

pub mod api;
pub mod apply;
pub mod backend;
pub mod bridge;
pub mod cni_chain;
pub mod command;
pub mod control;
pub mod controllers;
pub mod daemon;
pub mod dns;
mod events;
pub mod fabric;
pub mod gc;
pub mod images;
pub mod informer;
pub mod kubelet;
pub mod link;
pub mod openapi;
pub mod patch;
pub mod runtime;
pub mod schema;
pub mod services;
pub mod store;
