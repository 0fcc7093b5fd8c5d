//! A pod's listening sockets and the loops that accept from them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;

use mesh_core::drain::DrainWatch;
use mesh_sys::reuseport;
use mesh_sys::socket::{TcpListenOptions, ipv6_available, wildcard};

pub(crate) use super::accept::Accepted;
use super::accept::accept_each;
use super::acceptor::Arriving;
use super::door::{Door, Places};
use super::{DataPath, PodError, PodSpec, PodWorker};
use crate::config::{Config, OriginalSource};
use crate::limits::LISTEN_BACKLOG;
use crate::state::{HBONE_PORT, SOCKS_PORT};
use crate::{inbound, outbound, socks};

/// Outbound capture.
pub(crate) const OUTBOUND_PORT: u16 = 15001;
/// Inbound plaintext capture.
pub(crate) const PLAINTEXT_PORT: u16 = 15006;

/// What is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Connections that the pod opens.
    pub outbound: bool,
    /// Connections to the pod that are in no tunnel.
    pub plaintext: bool,
    /// Tunnels to the pod.
    pub hbone: bool,
    /// Applications that ask for a proxy.
    pub socks: bool,
    /// DNS queries of the pod.
    pub dns: bool,
    /// Whether applications may be shown the address of their client.
    pub presents_clients: bool,
}

impl Listening {
    /// For the proxy's own endpoints: tunnels only, and nobody is presented as somebody else.
    pub const OWN: Self =
        Self { outbound: false, plaintext: false, hbone: true, socks: false, dns: false, presents_clients: false };

    /// For a pod.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let proxy = config.enable_proxy;
        Self {
            outbound: proxy,
            plaintext: proxy,
            hbone: proxy,
            socks: proxy && config.socks5,
            dns: config.dns_capture,
            presents_clients: true,
        }
    }
}

/// The sockets of one pod.
pub(super) struct Bound {
    pub(super) workers: Vec<PodListeners>,
    pub(super) hbone: Option<Door>,
}

/// Those for one worker.
pub(super) struct PodListeners {
    outbound: Option<Door>,
    plaintext: Option<Door>,
    socks: Option<Door>,
}

impl PodListeners {
    /// Binds each port inside the pod: with a door for each worker, and one to where tunnels arrive.
    pub(super) fn bind(
        spec: &PodSpec,
        listening: Listening,
        settings: &DataPath,
        places: Places,
    ) -> Result<Bound, PodError> {
        let pod = || format!("{}/{}", spec.namespace, spec.name);
        let bound = spec.netns.run(|| {
            let any = wildcard(settings.ipv6 && ipv6_available());
            let bind = |wanted: bool, ip: IpAddr, port, places| match wanted {
                true => bind_doors(SocketAddr::new(ip, port), settings, places).map_err(|error| (port, error)),
                false => Ok(Vec::new()),
            };
            Ok([
                bind(listening.outbound, any, OUTBOUND_PORT, places)?,
                bind(listening.plaintext, any, PLAINTEXT_PORT, places)?,
                bind(listening.hbone, any, HBONE_PORT, Places { workers: 1, home: 0 })?,
                bind(listening.socks, Ipv4Addr::LOCALHOST.into(), SOCKS_PORT, places)?,
            ])
        });
        let bound = bound.map_err(|source| PodError::Enter { pod: pod(), source })?;
        let bound = bound.map_err(|(port, source)| PodError::Bind { pod: pod(), port, source })?;
        let [mut outbound, mut plaintext, mut hbone, mut socks] = bound.map(Vec::into_iter);
        let set = |_| Self { outbound: outbound.next(), plaintext: plaintext.next(), socks: socks.next() };
        Ok(Bound { workers: (0..places.workers).map(set).collect(), hbone: hbone.next() })
    }

    /// Accepts on all of them until the drain starts, then closes the listeners, and takes the tunnels that `arriving`
    /// brings until it ends. Returns when the last connection is gone.
    pub(super) async fn accept(self, worker: Rc<PodWorker>, mut arriving: Arriving, watch: DrainWatch) {
        let slots = worker.pod.slots.clone();
        // Never closed.
        let slot = async || slots.clone().acquire_owned().await.ok();
        let workers = &worker.shared.workers;
        let tasks = &worker.tasks;
        let accepting = async {
            tokio::join!(
                accept_each(self.outbound, workers, slot, &watch, |accepted, slot| {
                    tasks.spawn(outbound::serve(worker.clone(), accepted), slot);
                }),
                accept_each(self.plaintext, workers, slot, &watch, |accepted, slot| {
                    tasks.spawn(inbound::plaintext::serve(worker.clone(), accepted), slot);
                }),
                async {
                    while let Some(proven) = arriving.recv().await {
                        tasks.spawn(inbound::tunnel::serve(worker.clone(), proven, watch.clone()), ());
                    }
                },
                accept_each(self.socks, workers, slot, &watch, |accepted, slot| {
                    tasks.spawn(socks::serve(worker.clone(), accepted), slot);
                }),
            );
        };
        tasks.serve(accepting, watch.clone()).await;
    }
}

/// The doors of all workers to one port.
fn bind_doors(addr: SocketAddr, settings: &DataPath, places: Places) -> io::Result<Vec<Door>> {
    let options = TcpListenOptions {
        reuse_port: settings.port_reuse,
        transparent: settings.original_source != OriginalSource::Off,
        mark: settings.mark,
        backlog: LISTEN_BACKLOG.saturating_mul(i32::try_from(places.workers).unwrap_or(1)),
        keepalive: settings.keepalive.clone(),
        ..TcpListenOptions::new(addr)
    };
    let listener = bind(&options, settings)?;
    // A predecessor may have left word that new connections go to one listener only.
    if settings.port_reuse
        && let Err(error) = reuseport::spread(&listener)
    {
        tracing::debug!(%error, "a predecessor's word on new connections may still hold");
    }
    Ok(Door::for_each(listener, settings.port_reuse, places))
}

/// Where transparency cannot be had it is left out, unless it is required.
fn bind(options: &TcpListenOptions, settings: &DataPath) -> io::Result<StdListener> {
    match options.bind() {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && options.transparent
                && settings.original_source != OriginalSource::Require =>
        {
            tracing::warn!(%error, addr = %options.addr, "listener cannot be transparent");
            TcpListenOptions { transparent: false, ..options.clone() }.bind()
        }
        bound => bound,
    }
}
