//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::l7::Place;
use crate::town::Variant;

/// Measures the node proxy against a direct connection, and the control plane.
#[derive(Debug, Parser)]
#[command(after_help = "Example: bench --only bulk,c32 --rounds 1 --seconds 2")]
pub(crate) struct Args {
    /// Cases whose name starts with one of these; all if empty.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Alternating rounds; medians count.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds of each sample.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// Seconds of rest before the memory after a load is read.
    #[arg(long, default_value_t = 60)]
    pub(crate) rest: u64,
    /// The proxy to measure; default: the one beside this program.
    #[arg(long, env = "ZTUNNEL")]
    pub(crate) ztunnel: Option<PathBuf>,
    /// Another proxy to measure in the same way.
    #[arg(long, env = "PEER_ZTUNNEL")]
    pub(crate) peer: Option<PathBuf>,
    /// The layer-7 proxy to measure; default: the one beside this program.
    #[arg(long, env = "WAYPOINT")]
    pub(crate) waypoint: Option<PathBuf>,
    /// An Envoy to measure in the same way.
    #[arg(long, env = "PEER_ENVOY")]
    pub(crate) peer_envoy: Option<PathBuf>,
    /// The control plane to measure; default: the one beside this program.
    #[arg(long, env = "ISTIOD")]
    pub(crate) istiod: Option<PathBuf>,
    /// Proxies that are connected to the control plane.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) proxies: usize,
    /// Worker threads of each proxy.
    #[arg(long, default_value_t = 2)]
    pub(crate) workers: usize,
    /// Ways to measure: direct, meltemi, peer; all that can be if empty.
    #[arg(long, value_delimiter = ',')]
    pub(crate) variants: Vec<Variant>,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What this program does in a pod.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The server of all cases.
    #[command(hide = true)]
    Serve,
    /// The control plane of our layer-7 proxy.
    #[command(hide = true)]
    Config {
        /// Where that proxy is.
        #[arg(long)]
        place: Place,
        /// Its routes.
        #[arg(long)]
        routes: usize,
    },
    /// The client of one case.
    #[command(hide = true)]
    Load(LoadPlan),
}

/// What the client does.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadPlan {
    #[arg(long)]
    pub(crate) shape: Shape,
    /// The server's address, without a port of ours.
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// Port of the server for requests.
    #[arg(long, default_value_t = crate::serve::HTTP_PORT)]
    pub(crate) port: u16,
    /// Connections at once.
    #[arg(long)]
    pub(crate) connections: usize,
    /// Seconds that count.
    #[arg(long)]
    pub(crate) seconds: u64,
}

/// A shape of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// Bytes from the client as fast as they go.
    Up,
    /// Bytes from the server as fast as they go.
    Down,
    /// HTTP requests, each connection one after the other.
    Keepalive,
    /// A connection for each request.
    Connect,
    /// HTTP/2 requests, sixteen at a time on each connection.
    Http2,
    /// One request on each connection, then all are held until the standard input ends.
    Hold,
}
