//! A connection as the chains see it: who calls, what was called, and which configuration is in force.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_core::drain::DrainWatch;

use crate::limits::DRAIN_IDLE_BUDGET;
use crate::report::End;
use crate::snapshot::{ChainHandle, Protocol};
use crate::worker::Worker;

/// What a chain needs to serve a connection.
#[derive(Clone)]
pub struct ConnectionContext {
    /// The thread that the connection lives on.
    pub worker: Rc<Worker>,
    /// Looks up the configuration that is in force: for each request, or again when it changed.
    pub chain: ChainHandle,
    /// Who calls.
    pub peer: Rc<PeerInfo>,
    /// What the bytes are, as declared or found out. Never `Detect`.
    pub protocol: Protocol,
    /// Tells when to wind down. Held for as long as the connection lives.
    pub drain: DrainWatch,
}

/// Who is at the other end, and what was asked for.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Whom the peer has proven to be.
    pub source_identity: Option<Identity>,
    /// Address of the direct peer: of the client's pod with HBONE, from the PROXY header where there is one.
    pub source_address: SocketAddr,
    /// What the client has called.
    pub destination: Destination,
    /// Who we are to this peer, where it checked: of a tunnel or a listener with the mesh's own certificate.
    pub local_identity: Option<Identity>,
    /// Came through a tunnel.
    pub via_hbone: bool,
    /// TLS that ended here, other than a tunnel's.
    pub tls: Option<TlsInfo>,
    /// Server name of TLS that is passed through.
    pub sni: Option<Arc<str>>,
    /// For metrics and logs; never for decisions.
    pub source: Arc<End>,
}

/// What the client has called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// An address.
    Address(SocketAddr),
    /// A host name and port.
    Name(Arc<str>, u16),
}

/// TLS that ended at a listener.
#[derive(Debug, Clone, Default)]
pub struct TlsInfo {
    /// Server name of the hello, lower case.
    pub sni: Option<Arc<str>>,
    /// Application protocol that was agreed on.
    pub alpn: Option<Arc<str>>,
    /// TLSv1.2 or TLSv1.3.
    pub version: &'static str,
    /// The client's certificate, DER, if it presented one.
    pub client_leaf: Option<Arc<[u8]>>,
    /// It presented the rest of these too, leaf excluded.
    pub client_rest: Arc<[Box<[u8]>]>,
    /// The client's certificate was checked against the roots.
    pub client_verified: bool,
}

impl ConnectionContext {
    /// Resolves when a connection whose client has said nothing yet is not waited for any more: the process drains, and
    /// the client has had a moment. Until then it is served, and told to go elsewhere.
    pub(crate) async fn nothing_said(&self) {
        self.drain.clone().signaled().await;
        tokio::time::sleep(DRAIN_IDLE_BUDGET).await;
    }
}

impl Destination {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// The address, where one was called.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::Name(..) => None,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl fmt::Debug for ConnectionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionContext")
            .field("peer", &self.peer)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
