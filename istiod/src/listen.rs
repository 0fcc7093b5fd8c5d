//! Listening sockets and the TLS in front of gRPC.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// Binds `host:port`, or `:port` on every address of the machine.
///
/// # Errors
/// Naming the address.
pub async fn bind(addr: &str) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("listening on {addr:?}: {error}"));
    let Some(port) = addr.strip_prefix(':') else {
        return TcpListener::bind(addr).await.map_err(named);
    };
    let port: u16 = port.parse().map_err(|_| io::Error::other(format!("{addr:?}: expected host:port or :port")))?;
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await.map_err(named),
    }
}

/// Accepts connections and finishes their handshakes beside each other; a slow client holds up nobody.
pub fn tls(listener: TcpListener, config: rustls::ServerConfig) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (accepted, stream) = mpsc::channel(ACCEPTED_MAX);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), accepted));
    ReceiverStream::new(stream)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let connection = tokio::select! {
            () = accepted.closed() => return,
            connection = listener.accept() => connection,
        };
        let (tcp, peer) = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let handshake = async {
                tcp.set_nodelay(true)?;
                acceptor.accept(tcp).await
            };
            match tokio::time::timeout(HANDSHAKE, handshake).await {
                // Nobody listens any more: the connection is closed.
                Ok(Ok(tls)) => drop(accepted.send(Ok(tls)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

/// Finished handshakes that wait for the server to take them.
const ACCEPTED_MAX: usize = 64;
/// Handshakes at the same time; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 512;
/// A handshake that takes longer is abandoned.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
