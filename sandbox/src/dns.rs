//! The cluster's DNS server. `zone` turns Services and endpoints into names, `answer` answers
//! one message (both pure); this file owns the sockets.

mod answer;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::informer::Informers;
use answer::{Transport, respond};
use zone::Zone;

/// The domain of the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Bound sockets, not yet answering.
#[derive(Debug)]
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// Binds UDP and TCP on every address, in the calling thread's network namespace.
///
/// # Errors
/// The address that is taken or not there.
pub async fn bind(addresses: &[SocketAddr]) -> io::Result<Sockets> {
    let named = |address: &SocketAddr, error: io::Error| {
        io::Error::new(error.kind(), format!("binding DNS on {address}: {error}"))
    };
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for address in addresses {
        udp.push(UdpSocket::bind(address).await.map_err(|error| named(address, error))?);
        tcp.push(TcpListener::bind(address).await.map_err(|error| named(address, error))?);
    }
    Ok(Sockets { udp, tcp })
}

/// Answers for ever from what the informers see.
pub async fn serve(cache: Informers, sockets: Sockets) {
    let (zone, current) = watch::channel(Arc::new(Zone::default()));
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(cache, zone));
    for socket in sockets.udp {
        tasks.spawn(serve_udp(socket, current.clone()));
    }
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for listener in sockets.tcp {
        tasks.spawn(serve_tcp(listener, current.clone(), Arc::clone(&permits)));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a DNS task ended");
        }
    }
}

/// Recomputes the zone after each change.
async fn follow(cache: Informers, zone: watch::Sender<Arc<Zone>>) {
    cache.services.synced().await;
    cache.endpoint_slices.synced().await;
    let mut changes = (cache.services.generation(), cache.endpoint_slices.generation(), cache.namespaces.generation());
    loop {
        changes.0.borrow_and_update();
        changes.1.borrow_and_update();
        changes.2.borrow_and_update();
        let fresh = Zone::build(
            CLUSTER_DOMAIN,
            &cache.namespaces.list(),
            &cache.services.list(),
            &cache.endpoint_slices.list(),
        );
        zone.send_replace(Arc::new(fresh));
        tokio::select! {
            _ = changes.0.changed() => {}
            _ = changes.1.changed() => {}
            _ = changes.2.changed() => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

async fn serve_udp(socket: UdpSocket, zone: watch::Receiver<Arc<Zone>>) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP answer to an earlier reply: not this socket's trouble.
                tracing::trace!(%error, "DNS receive");
                continue;
            }
        };
        let Some(bytes) = buffer.get(..length) else {
            continue;
        };
        if let Some(reply) = reply(&zone, bytes, Transport::Udp) {
            let _ = socket.send_to(&reply, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: watch::Receiver<Arc<Zone>>, permits: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(SETTLE).await;
            continue;
        };
        let zone = zone.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // Ends with the peer's close, an idle time-out or the first broken frame.
            let _ = converse(stream, zone).await;
        });
    }
}

async fn converse(mut stream: TcpStream, zone: watch::Receiver<Arc<Zone>>) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE_MAX, stream.read_u16()).await??;
        let mut bytes = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE_MAX, stream.read_exact(&mut bytes)).await??;
        let Some(reply) = reply(&zone, &bytes, Transport::Tcp) else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(reply.len()) else {
            return Ok(());
        };
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&reply);
        tokio::time::timeout(IDLE_MAX, stream.write_all(&frame)).await??;
    }
}

/// The encoded answer; `None` when the bytes are not a request.
fn reply(zone: &watch::Receiver<Arc<Zone>>, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let request = Message::from_vec(bytes).ok()?;
    let zone = Arc::clone(&zone.borrow());
    respond(&zone, &request, transport, rand::random::<u32>())
}

/// Changes that come together are built into one zone.
const SETTLE: Duration = Duration::from_millis(10);
/// TCP connections at once, over all addresses.
const CONNECTIONS_MAX: usize = 128;
/// A TCP connection without a query for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Largest datagram that is read.
const MESSAGE_BYTES_MAX: usize = 4096;
