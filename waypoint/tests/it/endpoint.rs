//! Endpoints: a tunnel server as a node proxy has it, with an application behind it that tells what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::Identity;
use mesh_hbone::{ServerConnection, Settings, tls};
use mesh_identity::{CertSource as _, FakeCa, TlsPolicy};
use mesh_sys::socket::TcpListenOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a tunnel was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) authority: String,
    pub(crate) client: Option<Identity>,
}

/// A running endpoint.
#[derive(Clone)]
pub(crate) struct Endpoint {
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What the application does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Application {
    /// Answers each HTTP/1.1 request with the head that it saw, after a while.
    Http(Duration),
    /// Says its name and then everything that it hears.
    Bytes(&'static str),
    /// Grants an upgrade to WebSocket, and then says everything that it hears.
    WebSocket,
    /// Never reads anything.
    Deaf,
}

impl Endpoint {
    /// A node proxy for a workload of namespace `shop` at `ip`.
    pub(crate) async fn start(ip: &str, account: &str, application: Application) -> Self {
        let addr: SocketAddr = format!("{ip}:15008").parse().unwrap();
        let listener = TcpListener::from_std(TcpListenOptions::new(addr).bind().unwrap()).unwrap();
        let identity: Identity = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        let cert = authority().issue(identity).await.unwrap();
        let config = cert.server_config();
        let settings = match application {
            // Nor does its node proxy keep much for it.
            Application::Deaf => {
                Settings { stream_window: 64 << 10, connection_window: 64 << 10, ..Settings::default() }
            }
            _ => Settings::default(),
        };
        let endpoint = Self { asked: Arc::default() };
        let asked = endpoint.asked.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (config, asked, settings) = (config.clone(), asked.clone(), settings.clone());
                tokio::task::spawn_local(async move {
                    let Ok(accepted) = tls::accept(tcp, config).await else { return };
                    let client = accepted.peer.clone();
                    let mut h2 = ServerConnection::handshake(accepted.stream, &settings).await.unwrap();
                    while let Some(Ok(request)) = h2.next().await {
                        let authority = request.authority().unwrap_or_default().to_owned();
                        asked.lock().unwrap().push(Asked { authority, client: client.clone() });
                        // Its client may have left.
                        let Ok(stream) = request.accept(None) else { continue };
                        tokio::task::spawn_local(serve(stream, application));
                    }
                });
            }
        });
        endpoint
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// An application that is called without a tunnel.
pub(crate) async fn plain(addr: &str, application: Application) {
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::task::spawn_local(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(serve(tcp, application));
        }
    });
}

/// The authority that the proxy uses too.
pub(crate) fn authority() -> FakeCa {
    FakeCa::new(Duration::from_secs(3600), TlsPolicy::default()).unwrap()
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, application: Application) {
    let _ = match application {
        Application::Http(pause) => answer(&mut io, pause).await,
        Application::Bytes(name) => echo(&mut io, name).await,
        Application::Deaf => std::future::pending().await,
        Application::WebSocket => upgrade(&mut io).await,
    };
}

async fn answer<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, pause: Duration) -> std::io::Result<()> {
    let mut seen = Vec::new();
    loop {
        while !seen.windows(4).any(|part| part == b"\r\n\r\n") {
            if io.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        }
        tokio::time::sleep(pause).await;
        let head = String::from_utf8_lossy(&seen).into_owned();
        seen.clear();
        io.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len()).as_bytes()).await?;
    }
}

async fn upgrade<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T) -> std::io::Result<()> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(io.read_u8().await?);
    }
    io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n").await?;
    io.write_all(b"Sec-WebSocket-Accept: x\r\n\r\n").await?;
    let mut piece = [0; 1024];
    loop {
        let read = io.read(&mut piece).await?;
        if read == 0 {
            return io.shutdown().await;
        }
        io.write_all(&piece[..read]).await?;
    }
}

async fn echo<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, name: &str) -> std::io::Result<()> {
    io.write_all(format!("{name}: ").as_bytes()).await?;
    let mut piece = [0; 1024];
    loop {
        let read = io.read(&mut piece).await?;
        if read == 0 {
            return io.shutdown().await;
        }
        io.write_all(&piece[..read]).await?;
    }
}
