//! What most tests play with: an enrolled pod `web`, a pod `cart` outside its node, and a service for `cart`.

use std::net::SocketAddr;
use std::sync::Arc;

use conformance::net::Pod;
use conformance::peer::{Client, Server};
use conformance::wait::soon;
use conformance::wire::workload::{Service, Workload};
use conformance::world::{Running, World, backing, service, svc, wl, workload};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// `web` at 10.1.0.5 is enrolled; `cart` at 10.1.0.77 is whatever the test makes of it.
pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) web: Pod,
    pub(crate) cart: Pod,
    pub(crate) service: Service,
    pub(crate) running: Running,
}

pub(crate) const VIP: &str = "172.20.0.9";
pub(crate) const VIP6: &str = "fd99::9";
pub(crate) const CART_HOST: &str = "cart.shop.svc.cluster.local";

impl Shop {
    /// `cart` is in the mesh.
    pub(crate) async fn open() -> Self {
        Self::open_with(&[]).await
    }

    pub(crate) async fn open_with(settings: &[(&str, &str)]) -> Self {
        Self::open_world(World::new(), settings).await
    }

    pub(crate) async fn open_world(world: World, settings: &[(&str, &str)]) -> Self {
        let web = world.hub.pod("shop", "web", "10.1.0.5");
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let service = service("shop", "cart", &[VIP, VIP6], &[(80, 8080)]);
        let endpoint = Workload { node: "node-2".into(), ..workload(&cart, 1) };
        let endpoint = backing(endpoint, &service, &[(80, 8080)]);
        world.ads.set(vec![wl(&workload(&web, 1)), svc(&service), wl(&endpoint)]);
        let running = world.start(settings).await;
        running.enrol(&web).await;
        Self { world, web, cart, service, running }
    }

    /// The workload of `cart` as the control plane has described it.
    pub(crate) fn endpoint(&self) -> Workload {
        let endpoint = Workload { node: "node-2".into(), ..workload(&self.cart, 1) };
        backing(endpoint, &self.service, &[(80, 8080)])
    }

    /// A proxy of `cart`, played by the test.
    pub(crate) fn cart_proxy(&self) -> Server {
        Server::listen(&self.cart, 15008, self.world.server_tls(&self.cart.identity()))
    }

    /// [`Shop::cart_proxy`] that returns each byte.
    pub(crate) fn cart_copies(&self) -> Arc<Server> {
        let server = Arc::new(self.cart_proxy());
        server.serve_copies();
        server
    }

    pub(crate) fn vip(&self) -> SocketAddr {
        SocketAddr::new(VIP.parse().unwrap(), 80)
    }

    /// A connection of the application in `web` fails: it gets no byte.
    pub(crate) async fn refused(&self, to: SocketAddr) {
        let answer = soon("the connection is refused", self.web.ask(to, "let me in")).await;
        assert_eq!(answer.unwrap_or_default(), "");
    }
}

/// An enrolled pod `cart` with an application, and a pod `peer` from which the test speaks to its proxy.
pub(crate) struct Store {
    pub(crate) world: World,
    pub(crate) cart: Pod,
    pub(crate) peer: Pod,
    pub(crate) service: Service,
    pub(crate) running: Running,
}

impl Store {
    pub(crate) async fn open() -> Self {
        Self::open_with(&[]).await
    }

    pub(crate) async fn open_with(settings: &[(&str, &str)]) -> Self {
        Self::open_world(World::new(), settings).await
    }

    pub(crate) async fn open_world(world: World, settings: &[(&str, &str)]) -> Self {
        let cart = world.hub.pod("shop", "cart", "10.1.0.77");
        let peer = world.hub.pod("web", "api", "10.1.0.5");
        let service = service("shop", "cart", &[VIP], &[(80, 8080)]);
        let caller = Workload { node: "node-2".into(), ..workload(&peer, 1) };
        world.ads.set(vec![svc(&service), wl(&backing(workload(&cart, 1), &service, &[(80, 8080)])), wl(&caller)]);
        let running = world.start(settings).await;
        running.enrol(&cart).await;
        Self { world, cart, peer, service, running }
    }

    /// A tunnel connection with the identity of `peer`.
    pub(crate) async fn client(&self) -> Client {
        let own = self.world.credentials(&self.peer.identity());
        Client::connect(&self.peer, self.cart.at(15008), &own).await.unwrap()
    }

    /// `address:port` of the application.
    pub(crate) fn authority(&self, port: u16) -> String {
        self.cart.at(port).to_string()
    }
}

/// Sends bytes and gets them back.
pub(crate) async fn echoed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    let mut back = vec![0; bytes.len()];
    soon("bytes come back", async {
        stream.write_all(bytes).await.unwrap();
        stream.read_exact(&mut back).await.unwrap();
    })
    .await;
    assert_eq!(back, bytes);
}

/// Reads until the end.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut text = String::new();
    soon("the stream ends", stream.read_to_string(&mut text)).await?;
    Ok(text)
}

/// Whether a stream was reset with CANCEL.
pub(crate) fn cancelled(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<h2::Error>());
    cause.and_then(h2::Error::reason) == Some(h2::Reason::CANCEL)
}
