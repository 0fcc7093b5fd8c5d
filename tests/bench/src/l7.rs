//! The layer-7 proxy: the same requests direct, through our waypoint and through Envoy, on one network namespace.
//!
//! Both proxies do the same work: a route is chosen by a header, and requests are divided 90/10 among two clusters. Both
//! are told it as they always are: ours by delta-ADS, Envoy by its file.
//!
//! Then the full way of a request in the mesh: the node proxy of the client's pod, the waypoint, the node proxy of the
//! server's pod, each on a node of its own.

mod config;
mod measure;
mod path;
mod proxies;

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::args::{Args, Shape};
use crate::case::Metric;

pub(crate) use config::{Place, serve};

/// Requests through a layer-7 proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) shape: Shape,
    pub(crate) connections: usize,
    /// Routes that the proxy knows; the requests match the last ones.
    pub(crate) routes: usize,
    pub(crate) place: Place,
}

/// What one case brought: a name, the values of direct, ours and the peer, and which bar ours over the peer's is judged
/// by.
pub(crate) type Found = Vec<(String, [Option<f64>; 3], Option<Metric>)>;

/// Measures one case.
pub(crate) fn run(args: &Args, requests: Requests) -> Result<Found> {
    match requests.place {
        Place::Gateway => measure::run(args, requests, &proxies::Stage::set(args, requests.routes)?.ways()),
        Place::Waypoint => measure::run(args, requests, &path::Path::lay(args, requests.routes)?.ways()),
    }
}

/// Where our proxy listens.
const OUR_PORT: u16 = 10080;
/// Where Envoy listens.
const PEER_PORT: u16 = 10081;
/// Where the configuration of ours is served.
const CONFIG_PORT: u16 = 15010;
/// Where waypoints take tunnels.
const HBONE_PORT: u16 = 15008;
/// Address and port of the service of the full way.
const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 200, 0, 1), 80);
