//! Journeys of users through the whole mesh, in the sandbox, with real traffic.
//!
//! Each test has a sandbox of its own, which the features of one subject share; run them one at a time: `make test`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests

mod admission;
mod bad_input;
mod cli;
mod cli_waypoint;
mod control_plane;
mod demo;
mod destination_rules;
mod dns;
mod docs;
mod edge;
mod edge_backend_tls;
mod edge_filters;
mod edge_forwarding;
mod edge_gateways;
mod edge_matching;
mod edge_pki;
mod edge_references;
mod edge_sets;
mod edge_table;
mod edge_tls;
mod egress;
mod features;
mod gateway;
mod grpc_routes;
mod kubectl;
mod live_changes;
mod market;
mod mesh_routes;
mod never_in_the_clear;
mod policy;
mod resilience;
mod sandbox;
mod servers;
mod simulate;
mod status;
mod tcp_routes;
mod tls_routes;
mod town;
mod traffic;
mod upgrade;
mod virtual_service_effects;
mod virtual_services;
mod waypoint;
