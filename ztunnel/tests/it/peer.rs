//! A tunnel server that is no proxy of ours: it keeps what it was asked and does what the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use mesh_core::Identity;
use mesh_hbone::{H2Stream, ServerConnection, Settings, tls};
use mesh_identity::testing::TestCa;
use mesh_sys::socket::TcpListenOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pod::Pod;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Option<Identity>,
    /// Which TLS connection it came on, from 1.
    pub(crate) connection: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) struct Peer {
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What becomes of an accepted stream.
#[derive(Clone)]
pub(crate) enum Then {
    /// Answers `<name> heard <question>` once the question is over.
    Answer(&'static str),
    /// Passes the bytes on to the address, from within the pod.
    Forward(Arc<mesh_sys::netns::NetNs>, SocketAddr),
}

impl Peer {
    /// Serves tunnels at `addr` in the pod as `identity`.
    pub(crate) fn serve(pod: &Pod, addr: SocketAddr, ca: &TestCa, identity: &str, then: Then) -> Self {
        let options = TcpListenOptions { reuse_port: true, ..TcpListenOptions::new(addr) };
        let listener = TcpListener::from_std(pod.netns.run(|| options.bind()).unwrap().unwrap()).unwrap();
        let cert = ca.issue(&identity.parse().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let peer = Self { asked: asked.clone() };
        tokio::spawn(async move {
            let mut connection = 0;
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                connection += 1;
                tokio::spawn(serve_tunnel(tcp, cert.clone(), asked.clone(), connection, then.clone()));
            }
        });
        peer
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn only(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }
}

async fn serve_tunnel(
    tcp: TcpStream,
    cert: Arc<mesh_identity::WorkloadCert>,
    asked: Arc<Mutex<Vec<Asked>>>,
    connection: usize,
    then: Then,
) {
    let Ok(accepted) = tls::accept(tcp, cert.server_config()).await else { return };
    let client = accepted.peer;
    let mut h2 = ServerConnection::handshake(accepted.stream, &Settings::default()).await.unwrap();
    while let Some(Ok(request)) = h2.next().await {
        asked.lock().unwrap().push(Asked {
            authority: request.authority().unwrap_or_default().to_owned(),
            headers: request.headers().clone(),
            client: client.clone(),
            connection,
        });
        let stream = request.accept(None).unwrap();
        tokio::spawn(serve_stream(stream, then.clone()));
    }
}

async fn serve_stream(mut stream: H2Stream, then: Then) -> std::io::Result<()> {
    match then {
        Then::Answer(name) => {
            let mut question = String::new();
            stream.read_to_string(&mut question).await?;
            stream.write_all(format!("{name} heard {question}").as_bytes()).await?;
            stream.shutdown().await
        }
        Then::Forward(netns, to) => {
            // Marked, so that rules of the pod leave it alone.
            let options = mesh_sys::socket::TcpConnectOptions { mark: Some(1337), ..Default::default() };
            let socket = netns.run(|| options.socket(to))??;
            let mut onward = tokio::net::TcpSocket::from_std_stream(socket.into()).connect(to).await?;
            tokio::io::copy_bidirectional(&mut stream, &mut onward).await.map(drop)
        }
    }
}
