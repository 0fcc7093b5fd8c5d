//! A client that writes HTTP/2 by hand, as no library would.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::plane::Plane;

pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block of a gRPC request, and more headers.
pub(crate) fn request(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x87]; // POST, https
    block.push(0x04); // :path
    text(path, &mut block);
    block.push(0x01); // :authority
    text("istiod", &mut block);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(more) {
        block.push(0x00);
        text(name, &mut block);
        text(value, &mut block);
    }
    block
}

/// A length with a prefix of seven bits, and the bytes.
fn text(text: &str, block: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        block.push(u8::try_from(length).unwrap());
    }
    block.extend(text.as_bytes());
}

/// A TCP connection from an address of this machine.
pub(crate) async fn tcp(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// A hostile client.
pub(crate) struct Raw(TlsStream<TcpStream>);

impl Raw {
    /// After its handshake and the beginning of HTTP/2.
    pub(crate) async fn connect(plane: &Plane, from: IpAddr) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(plane.root_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp(from, plane.addr).await?).await?;
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        tls.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        tls.flush().await?;
        Ok(Self(tls))
    }

    /// Writes as much as the other side takes; what it does not take is its right.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(Duration::from_secs(5), async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        })
        .await;
    }

    /// Reads until the connection ends; tells whether it does in time.
    pub(crate) async fn is_closed(&mut self, within: Duration) -> bool {
        let mut buffer = vec![0; 16 << 10];
        let end = async { while let Ok(1..) = self.0.read(&mut buffer).await {} };
        tokio::time::timeout(within, end).await.is_ok()
    }

    /// Reads once.
    pub(crate) async fn read(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 64 << 10];
        let read = tokio::time::timeout(Duration::from_secs(5), self.0.read(&mut buffer)).await;
        buffer.truncate(read.ok().and_then(Result::ok).unwrap_or_default());
        buffer
    }
}
