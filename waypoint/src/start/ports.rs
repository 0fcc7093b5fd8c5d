//! The ports of the process itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use mesh_core::drain::DrainWatch;
use mesh_telemetry::http;
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use tokio::net::TcpListener;

use crate::admin::{self, Admin};
use crate::config::Config;

/// Bound first, so that a conflict ends the start.
pub(super) struct Ports {
    admin: Vec<TcpListener>,
    stats: Vec<TcpListener>,
    ready: TcpListener,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut admin = vec![listen((Ipv4Addr::LOCALHOST, config.admin_port).into()).await?];
        let ipv6 = config.ipv6 && mesh_sys::socket::ipv6_available();
        if ipv6 && config.admin_port != 0 {
            admin.push(listen((Ipv6Addr::LOCALHOST, config.admin_port).into()).await?);
        }
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let stats =
            vec![listen((any, config.stats_port).into()).await?, listen((any, config.proxy_stats_port).into()).await?];
        Ok(Self { admin, stats, ready: listen((any, config.readiness_port).into()).await? })
    }

    /// Serves all of them until the drain.
    pub(super) fn serve(self, admin: Admin, registry: &Registry, readiness: &Readiness, drain: &DrainWatch) {
        let router = admin::router(admin);
        let admin = self.admin.into_iter().map(|listener| (listener, router.clone()));
        let stats = self.stats.into_iter().map(|listener| (listener, registry.router()));
        for (listener, router) in admin.chain(stats).chain([(self.ready, readiness.router())]) {
            let mut drain = drain.clone();
            tokio::spawn(async move {
                http::serve(listener, router, drain.signaled()).await;
            });
        }
    }
}

async fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("listening on {addr}"))
}
