//! One connection at a port of a gateway: PROXY header, server name, TLS, and on to the listener that it is for.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use mesh_core::drain::DrainWatch;
use mesh_hbone::read_ahead::ReadAhead;
use mesh_identity::peer_identity;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::accept::Accepted;
use super::hello::{self, Hello};
use super::proxy_header::{self, Header};
use super::tunnel::in_turn;
use crate::connection::{ConnectionContext, Destination, PeerInfo, TlsInfo};
use crate::detect::Replay;
use crate::heard::Heard;
use crate::limits::HELLO_BUDGET;
use crate::places::Place;
use crate::report::{Flags, Opening};
use crate::snapshot::{ChainHandle, Plain, Protocol, Secured, Socket};
use crate::worker::Worker;
use crate::{http as requests, tcp};

/// What is known of a connection before it is known whom it is for.
struct Arrival {
    worker: Rc<Worker>,
    socket: Arc<Socket>,
    place: Rc<Place>,
    /// Who opened the connection, whatever a PROXY header says.
    direct: IpAddr,
    peer: PeerInfo,
    drain: DrainWatch,
}

/// One connection from acceptance to its end.
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted, port: u16, drain: DrainWatch) {
    // The listeners of now, not those of when the port was opened.
    let Some(socket) = worker.shared.snapshots.load().sockets().get(&port).cloned() else { return };
    let Accepted { tcp, peer, local, place } = accepted;
    let called = std::net::SocketAddr::new(local.ip(), socket.called);
    let mut arrival = Arrival {
        peer: PeerInfo {
            source_identity: None,
            source_address: peer,
            destination: Destination::Address(called),
            local_identity: None,
            via_hbone: false,
            tls: None,
            sni: None,
            source: worker.report.stranger(),
        },
        worker,
        socket,
        place,
        direct: peer.ip(),
        drain,
    };
    if !arrival.socket.proxy_protocol {
        return arrival.enter(tcp).await;
    }
    match proxy_header::read(tcp).await {
        Ok((header, io)) => {
            if let Header::Proxied(source, _) = header {
                arrival.peer.source_address = mesh_core::addr::canonical(source);
            }
            Box::pin(arrival.enter(io)).await;
        }
        Err(error) => arrival.refuse(Flags::DPE, "proxy_protocol_error", &error.to_string()),
    }
}

impl Arrival {
    async fn enter<T: AsyncRead + AsyncWrite + Unpin + 'static>(self, io: T) {
        if self.socket.expects_tls() {
            return Box::pin(self.find(io)).await;
        }
        match self.socket.plain.clone() {
            Some(Plain::Http(chain)) => {
                // Whoever says something is no stranger.
                let mut silent = Some(self.place.clone());
                let io = Heard::new(io, move |_| {
                    if let Some(place) = silent.take() {
                        place.proven();
                    }
                });
                requests::serve(io, self.context(chain, Protocol::Http)).await;
            }
            Some(Plain::Bytes(chain)) => {
                // The server may speak first.
                self.place.proven();
                tcp::serve(io, self.context(chain, Protocol::Tcp)).await;
            }
            None => self.refuse(Flags::NR, "no_filter_chain", "no listener takes connections without TLS"),
        }
    }

    /// Finds the listener by the server name of the hello.
    async fn find<T: AsyncRead + AsyncWrite + Unpin + 'static>(mut self, io: T) {
        let (hello, io) = match tokio::time::timeout(HELLO_BUDGET, hello::read(io)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return self.refuse(Flags::DPE, "tls_error", &error.to_string()),
            Err(_) => return self.refuse(Flags::DPE, "tls_error", "TLS hello took too long"),
        };
        let Hello::Tls(sni) = hello else {
            return self.refuse(Flags::DPE, "tls_error", "client does not speak TLS");
        };
        let Some(secured) = self.socket.secured(sni.as_deref().unwrap_or_default()).cloned() else {
            let reason = format!("no listener is for server name {:?}", sni.as_deref().unwrap_or_default());
            self.peer.sni = sni;
            self.refuse(Flags::NR, "filter_chain_not_found", &reason);
            return say_unrecognized(io).await;
        };
        if secured.tls.is_passthrough() {
            self.place.proven();
            self.peer.sni = sni;
            let context = self.context(secured.chain, Protocol::Tls);
            return tcp::serve(io, context).await;
        }
        self.terminate(io, secured, sni).await;
    }

    async fn terminate<T>(mut self, io: Replay<T>, secured: Secured, sni: Option<Arc<str>>)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let own = &self.worker.shared.own;
        let config = match secured.tls.config(own.certificate()).await {
            Ok(config) => config,
            Err(reason) => return self.refuse(Flags::DPE, "tls_error", &reason),
        };
        let accepting = Box::pin(TlsAcceptor::from(config).accept(ReadAhead::new(io)));
        let Worker { shared, pace, .. } = &*self.worker;
        let stream = match in_turn(&shared.listener_turns, pace, self.direct, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.refuse(Flags::DPE, "tls_error", &format!("TLS handshake failed: {error}")),
            Err(reason) => return self.refuse(Flags::DPE, "tls_error", &reason),
        };
        self.place.proven();
        let session = stream.get_ref().1;
        let presented = session.peer_certificates().unwrap_or_default();
        if secured.tls.is_mesh() {
            self.peer.source_identity = peer_identity(presented);
            self.peer.local_identity = Some(own.identity().clone());
            self.peer.source = self.worker.report.source(self.peer.source_identity.as_ref(), &HeaderMap::new());
        }
        self.peer.tls = Some(TlsInfo {
            sni: sni.clone(),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into()),
            version: version(session.protocol_version()),
            client_verified: secured.tls.verifies(presented),
            client_leaf: presented.first().map(|leaf| leaf.as_ref().into()),
            client_rest: presented.iter().skip(1).map(|one: &CertificateDer<'_>| one.as_ref().into()).collect(),
        });
        let is_http = secured.chain.current().is_some_and(|chain| chain.protocol.is_http());
        if is_http {
            let chain = self.socket.https(&secured, sni);
            requests::serve(stream, self.context(chain, Protocol::Https)).await;
        } else {
            // Connections are routed by it as if TLS were not ended here.
            self.peer.sni = sni;
            tcp::serve(stream, self.context(secured.chain, Protocol::Tcp)).await;
        }
    }

    fn context(self, chain: ChainHandle, protocol: Protocol) -> ConnectionContext {
        let Self { worker, peer, drain, .. } = self;
        ConnectionContext { worker, chain, peer: Rc::new(peer), protocol, drain }
    }

    fn refuse(&self, flags: Flags, details: &str, reason: &str) {
        let opening = Opening::nowhere(Rc::new(self.peer.clone()), reason);
        self.worker.report.refused(opening, flags, details);
    }
}

/// Tells a client that nobody here has the name that it wants.
async fn say_unrecognized<T: AsyncWrite + Unpin>(mut io: T) {
    // Whether it arrives does not matter: the connection is closed.
    let _ = tokio::time::timeout(HELLO_BUDGET, io.write_all(&UNRECOGNIZED_NAME)).await;
    let _ = io.shutdown().await;
}

fn version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// A record with a fatal alert (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];
