//! What the process may use of the system.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use mesh_sys::netns::NetNs;
use mesh_sys::socket::TcpListenOptions;
use mesh_telemetry::metrics::{Gauge, Registry};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};

/// One descriptor or two per connection: take all that the system gives.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Does once what every pod needs: enter a network namespace and mark a socket. Better to fail now
/// than at the first pod.
pub(super) fn check_capabilities(mark: u32) -> io::Result<()> {
    let mut options = TcpListenOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    options.mark = Some(mark);
    NetNs::current()?.run(|| options.bind())?.map(drop)
}

/// Registers the metrics of open descriptors.
pub(super) fn register(registry: &Registry) {
    registry.register_collector(Box::new(Descriptors));
}

/// Counted at each scrape.
#[derive(Debug)]
struct Descriptors;

impl Collector for Descriptors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // One of them is the listing's own.
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
        let max = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        for (name, help, value) in [
            ("process_open_fds", "Open file descriptors", i64::try_from(open)),
            ("process_max_fds", "Limit of open file descriptors", i64::try_from(max)),
        ] {
            let gauge: Gauge = Gauge::default();
            gauge.set(value.unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
