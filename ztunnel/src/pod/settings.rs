//! The part of the configuration that the data path uses.

use std::time::Duration;

use mesh_hbone::Baggage;
use mesh_sys::socket::Keepalive;

use crate::config::{Config, OriginalSource};
use crate::state::Workload;

/// Settings of the data path, the same for every pod.
#[derive(Debug, Clone)]
pub struct DataPath {
    /// Mark of every socket, so that the pod's own rules leave them alone.
    pub mark: Option<u32>,
    /// Keep-alive of every connection.
    pub keepalive: Option<Keepalive>,
    /// Whether applications see the client's address.
    pub original_source: OriginalSource,
    /// Whether a second process may bind the same ports, for upgrades.
    pub port_reuse: bool,
    /// Whether IPv6 may be used; where it does not work it is left out anyway.
    pub ipv6: bool,
    /// HTTP/2 and pool parameters.
    pub hbone: mesh_hbone::Settings,
    /// Whether to describe ourselves in responses, and to believe what requests say of their source.
    pub response_baggage: bool,
    /// How long open connections may go on after a graceful stop.
    pub drain_deadline: Duration,
}

impl DataPath {
    /// Picks what concerns the data path.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            mark: config.packet_mark,
            keepalive: config.keepalive.map(|keepalive| Keepalive {
                time: keepalive.time,
                interval: keepalive.interval,
                retries: keepalive.retries,
                user_timeout: config.user_timeout,
            }),
            original_source: config.original_source,
            port_reuse: config.port_reuse,
            ipv6: config.ipv6,
            hbone: mesh_hbone::Settings {
                stream_window: config.stream_window,
                connection_window: config.connection_window,
                frame_size: config.frame_size,
                max_streams_per_connection: config.pool_max_streams,
                idle_release: config.pool_unused_release,
            },
            response_baggage: config.response_baggage,
            drain_deadline: config.termination_deadline,
        }
    }
}

/// What we say of a workload to the other end of a tunnel.
pub(super) fn baggage_of(workload: &Workload) -> Baggage {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Baggage {
        cluster: some(&workload.cluster_id),
        namespace: some(&workload.namespace),
        workload_type: Some(workload.workload_type.as_str().to_owned()),
        workload: some(&workload.workload_name),
        service: some(&workload.canonical_name),
        revision: some(&workload.canonical_revision),
        region: some(&workload.locality.region),
        zone: some(&workload.locality.zone),
    }
}
