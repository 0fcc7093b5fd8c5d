//! Where connections come in: tunnels of the mesh on one port, and the ports of a gateway's listeners.

pub(crate) mod accept;
mod gateway;
pub mod hello;
pub mod proxy_header;
mod tunnel;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::drain::DrainWatch;
use mesh_sys::socket::{self, TcpListenOptions};
use mesh_telemetry::ready::Task;
use tokio::task::JoinHandle;

use crate::config::Start;
use crate::limits::{BIND_RETRY, LISTEN_BACKLOG};
use crate::shared::Shared;
use crate::snapshot::Role;
use crate::workers::Workers;
use accept::Entrance;
pub(crate) use tunnel::tunnel_settings;

/// Everything that this process listens on for traffic.
pub struct Listeners {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    drain: DrainWatch,
    /// By port.
    open: BTreeMap<u16, Open>,
}

struct Open {
    entrance: Entrance,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Listens to nothing yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>, workers: Arc<Workers>, drain: DrainWatch) -> Self {
        Self { shared, workers, drain, open: BTreeMap::new() }
    }

    /// Opens and closes ports as the control plane says, until the future is dropped, which closes them all. `open` is done
    /// once all ports of the first state are open.
    pub async fn follow(mut self, open: Task) {
        let mut changes = self.shared.snapshots.changes();
        let mut open = Some(open);
        loop {
            changes.borrow_and_update();
            let failed = self.settle();
            if let Some(open) = open.take_if(|_| !failed) {
                open.done();
            }
            if failed {
                // A port may be free again, or allowed, without anybody telling.
                let _ = tokio::time::timeout(BIND_RETRY, changes.changed()).await;
            } else if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes what is open what should be; true if a port could not be opened.
    fn settle(&mut self) -> bool {
        let wanted = self.wanted();
        self.open.retain(|port, open| {
            let stays = wanted.get(port) == Some(&open.entrance);
            if !stays {
                tracing::info!(port, "port is closed");
                open.task.abort();
            }
            stays
        });
        let mut failed = false;
        for (port, entrance) in wanted {
            if self.open.contains_key(&port) {
                continue;
            }
            match bind(port, self.shared.config.ipv6) {
                Ok(listener) => {
                    tracing::info!(port, ?entrance, "port is open");
                    let accepting = accept::run(
                        listener,
                        entrance,
                        self.shared.overload.clone(),
                        self.workers.clone(),
                        self.drain.clone(),
                    );
                    self.open.insert(port, Open { entrance, task: tokio::spawn(accepting) });
                }
                Err(error) => {
                    tracing::error!(port, %error, "port cannot be opened");
                    failed = true;
                }
            }
        }
        failed
    }

    /// Nothing before the proxy itself is known.
    fn wanted(&self) -> BTreeMap<u16, Entrance> {
        let mut wanted = BTreeMap::new();
        let snapshot = self.shared.snapshots.load();
        let Some(proxy) = &snapshot.proxy else { return wanted };
        match proxy.role {
            Role::Waypoint | Role::EastWest => {
                wanted.insert(self.shared.config.hbone_port, Entrance::Tunnels);
            }
            Role::Gateway if self.shared.config.start == Start::Waypoint => {
                wanted.insert(self.shared.config.hbone_port, Entrance::Tunnels);
            }
            Role::Gateway => {}
        }
        for port in snapshot.sockets().keys() {
            wanted.entry(*port).or_insert(Entrance::Listeners(*port));
        }
        wanted
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.open.values().for_each(|open| open.task.abort());
    }
}

fn bind(port: u16, ipv6: bool) -> io::Result<std::net::TcpListener> {
    let any = socket::wildcard(ipv6 && socket::ipv6_available());
    let mut options = TcpListenOptions::new(SocketAddr::new(any, port));
    // The next process may listen before this one has gone.
    options.reuse_port = true;
    options.backlog = LISTEN_BACKLOG;
    options.bind()
}
