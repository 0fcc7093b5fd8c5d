//! A tunnel inside a tunnel, behind a gateway that passes bytes on.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh_core::Identity;
use mesh_hbone::forwarded::FORWARDED_NETWORK;
use mesh_hbone::{
    Baggage, ConnectRequest, H2Stream, HboneError, Nested, NestedDriver, NestedError, OpenError, ServerConnection,
    Settings, nested, tls,
};
use mesh_identity::WorkloadCert;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};

use crate::fixture::{TlsServer, client_id, connect_to, local, say};

const SERVICE: &str = "cart.shop.svc.cluster.local:80";

fn remote_id() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/remote".parse().unwrap()
}

/// What the destination behind the gateway saw.
#[derive(Default)]
struct Seen {
    outer_authority: RefCell<Option<String>>,
    inner_authority: RefCell<Option<String>>,
    inner_headers: RefCell<HeaderMap>,
    client: RefCell<Option<Identity>>,
    /// The inner tunnel ended: in an orderly way?
    orderly: Cell<Option<bool>>,
    ended: Notify,
    /// Resets the outer stream.
    cut: Notify,
    /// Stops the destination from reading and writing.
    stall: Notify,
    certificate: OnceCell<Arc<WorkloadCert>>,
}

struct Gateway {
    server: TlsServer,
    seen: Rc<Seen>,
}

impl Gateway {
    /// A gateway, and behind it a destination that echoes, or refuses authorities with port 401.
    async fn start() -> Self {
        let seen = Rc::new(Seen::default());
        let handler = {
            let seen = seen.clone();
            move |request: ConnectRequest| {
                let seen = seen.clone();
                async move {
                    seen.outer_authority.replace(request.authority().map(str::to_owned));
                    let stream = request.accept(None).unwrap();
                    tokio::select! {
                        () = destination(stream, &seen) => {}
                        () = seen.cut.notified() => {}
                    }
                }
            }
        };
        let server = TlsServer::start(handler).await;
        assert!(seen.certificate.set(server.ca.issue(&remote_id())).is_ok());
        Self { server, seen }
    }

    async fn open(&self, expected: &[Identity], authority: &str) -> Result<Nested, NestedError> {
        let pool = self.server.pool();
        let outer = pool.open(&self.server.key(), connect_to(authority)).await.unwrap();
        let mut request = connect_to(authority);
        request.headers_mut().insert(FORWARDED_NETWORK, "n1".parse().unwrap());
        let cert = self.server.ca.issue(&client_id());
        let opened = nested::open(outer.stream, &cert, expected, request, &Settings::default()).await;
        // The outer tunnel lives as long as its pool.
        std::mem::forget(pool);
        opened
    }
}

async fn destination(stream: H2Stream, seen: &Rc<Seen>) {
    let config = seen.certificate.get().unwrap().server_config();
    let Ok(accepted) = tls::accept(stream, config).await else { return };
    seen.client.replace(accepted.peer);
    let mut connection = ServerConnection::handshake(accepted.stream, &Settings::default()).await.unwrap();
    let orderly = loop {
        let next = tokio::select! {
            next = connection.next() => next,
            () = seen.stall.notified() => std::future::pending().await,
        };
        match next {
            Some(Ok(request)) => {
                seen.inner_authority.replace(request.authority().map(str::to_owned));
                seen.inner_headers.replace(request.headers().clone());
                if request.authority().unwrap().ends_with(":401") {
                    request.reject(StatusCode::UNAUTHORIZED);
                    continue;
                }
                let baggage = Baggage { namespace: Some("far".into()), ..Baggage::default() };
                let stream = request.accept(baggage.encode()).unwrap();
                spawn_local(async move {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    // What a server does whose connection has ended: close its direction, too.
    drop(connection);
    seen.orderly.set(Some(orderly));
    seen.ended.notify_one();
}

fn driven(nested: Nested) -> (H2Stream, JoinHandle<Result<(), HboneError>>) {
    let driver: NestedDriver = nested.driver;
    (nested.stream, spawn_local(driver))
}

#[tokio::test]
async fn hbone_row_17_both_tunnels_carry_one_connection() {
    local(async {
        let gateway = Gateway::start().await;
        let nested = gateway.open(&[remote_id()], SERVICE).await.unwrap();
        let seen = &gateway.seen;
        assert_eq!(seen.outer_authority.borrow().as_deref(), Some(SERVICE));
        assert_eq!(seen.inner_authority.borrow().as_deref(), Some(SERVICE));
        assert_eq!(seen.inner_headers.borrow().get("x-forwarded-network").unwrap(), "n1");
        assert_eq!(*seen.client.borrow(), Some(client_id()), "the inner tunnel proves the source itself");
        assert_eq!(nested.peer, Some(remote_id()));
        assert_eq!(Baggage::decode(&nested.headers).unwrap().namespace.as_deref(), Some("far"));
        let (mut stream, _driver) = driven(nested);
        assert_eq!(say(&mut stream, "hello").await, "hello");
    })
    .await;
}

#[tokio::test]
async fn bytes_survive_two_layers_of_flow_control() {
    local(async {
        const TOTAL: usize = 12 << 20;
        let gateway = Gateway::start().await;
        let (stream, _driver) = driven(gateway.open(&[remote_id()], SERVICE).await.unwrap());
        let (mut read, mut write) = tokio::io::split(stream);
        let sent: Vec<u8> = (0..TOTAL).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let bytes = sent.clone();
        let writing = spawn_local(async move {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == sent);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_connection_is_the_orderly_end_of_the_inner_tunnel() {
    local(async {
        let gateway = Gateway::start().await;
        let (mut stream, driver) = driven(gateway.open(&[remote_id()], SERVICE).await.unwrap());
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "bye");
        drop(stream);
        let ended = tokio::time::timeout(Duration::from_secs(1), driver).await.expect("no need to wait");
        assert!(ended.unwrap().is_ok());
        gateway.seen.ended.notified().await;
        assert_eq!(gateway.seen.orderly.get(), Some(true));
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_say_farewell_is_not_waited_for() {
    local(async {
        let gateway = Gateway::start().await;
        let (mut stream, driver) = driven(gateway.open(&[remote_id()], SERVICE).await.unwrap());
        assert_eq!(say(&mut stream, "hello").await, "hello");
        gateway.seen.stall.notify_one();
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        drop(stream);
        let ended = tokio::time::timeout(Duration::from_secs(5), driver).await;
        assert!(begun.elapsed() >= Duration::from_secs(2), "it had its time");
        assert!(ended.is_ok(), "bounded, whatever the peer does");
    })
    .await;
}

#[tokio::test]
async fn another_identity_than_expected_is_refused_and_the_gateway_stays_usable() {
    local(async {
        let gateway = Gateway::start().await;
        let other: Identity = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
        let error = gateway.open(&[other], SERVICE).await.unwrap_err();
        let words = "TLS with cart.shop.svc.cluster.local:80 behind the gateway failed: server certificate is for \
                     spiffe://cluster.local/ns/shop/sa/remote, wanted spiffe://cluster.local/ns/shop/sa/other";
        assert_eq!(error.to_string(), words);
        let error = gateway.open(&[], SERVICE).await.unwrap_err();
        assert!(matches!(error, NestedError::Tls { .. }), "an empty list matches nobody: {error}");
        assert!(gateway.open(&[remote_id()], SERVICE).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn the_destinations_refusal_comes_through() {
    local(async {
        let gateway = Gateway::start().await;
        let error = gateway.open(&[remote_id()], "cart.shop.svc.cluster.local:401").await.unwrap_err();
        assert!(
            matches!(error, NestedError::Open(OpenError::Refused { status: StatusCode::UNAUTHORIZED, .. })),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_outer_stream_that_breaks_ends_the_connection() {
    local(async {
        let gateway = Gateway::start().await;
        let (mut stream, driver) = driven(gateway.open(&[remote_id()], SERVICE).await.unwrap());
        assert_eq!(say(&mut stream, "hello").await, "hello");
        gateway.seen.cut.notify_one();
        assert!(stream.read(&mut [0; 8]).await.is_err(), "not taken for an ordinary end of data");
        drop(stream);
        let _ = tokio::time::timeout(Duration::from_secs(1), driver).await.expect("nothing is left to wait for");
    })
    .await;
}

#[tokio::test]
async fn a_driver_that_is_dropped_cuts_the_connection() {
    local(async {
        let gateway = Gateway::start().await;
        let nested = gateway.open(&[remote_id()], SERVICE).await.unwrap();
        let mut stream = nested.stream;
        drop(nested.driver);
        assert!(stream.read(&mut [0; 8]).await.is_err());
        gateway.seen.ended.notified().await;
    })
    .await;
}
