//! The hello of a TLS client, read without taking it from the stream: which server name it wants.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::detect::Replay;
use crate::limits::{HELLO_BYTES_MAX, READ_BYTES_MIN};

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// TLS, and the server name that is wanted, in lower case.
    Tls(Option<Arc<str>>),
    /// Something else, or nothing.
    Other,
}

/// Reads a hello; the stream is given back whole.
///
/// # Errors
/// Reading failed.
pub async fn read<T: AsyncRead + Unpin>(mut io: T) -> io::Result<(Hello, Replay<T>)> {
    let mut first = BytesMut::new();
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    let hello = loop {
        first.reserve(READ_BYTES_MIN);
        if first.len() >= HELLO_BYTES_MAX || io.read_buf(&mut first).await? == 0 {
            break Hello::Other;
        }
        // The first byte of a record tells already.
        if first.first() != Some(&HANDSHAKE_RECORD) {
            break Hello::Other;
        }
        let mut fresh = first.get(seen..).unwrap_or_default();
        while !fresh.is_empty() && acceptor.read_tls(&mut fresh).is_ok_and(|read| read > 0) {}
        seen = first.len();
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => break Hello::Tls(accepted.client_hello().server_name().map(name)),
            Err(_) => break Hello::Other,
        }
    };
    Ok((hello, Replay::new(first, io)))
}

fn name(text: &str) -> Arc<str> {
    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase().into()
}

/// RFC 8446 section 5.1.
const HANDSHAKE_RECORD: u8 = 0x16;

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn the_name_is_found_however_the_hello_is_split_and_nothing_is_taken() {
        let bytes = client_hello("Shop.example.com");
        assert!(bytes.len() > 1_000, "a post-quantum hello");
        for piece in [1, 7, 600, bytes.len()] {
            let (mut client, server) = tokio::io::duplex(piece);
            let sent = bytes.clone();
            let writing = tokio::spawn(async move {
                client.write_all(&sent).await.unwrap();
                client.write_all(b"more").await.unwrap();
            });
            let (hello, mut replay) = read(server).await.unwrap();
            assert_eq!(hello, Hello::Tls(Some("shop.example.com".into())), "in pieces of {piece}");
            let mut all = Vec::new();
            replay.read_to_end(&mut all).await.unwrap();
            writing.await.unwrap();
            assert!(all == [bytes.as_slice(), b"more"].concat());
        }
    }

    #[tokio::test]
    async fn an_address_is_no_name_and_other_bytes_are_no_hello() {
        for (bytes, expected) in [
            (client_hello("10.0.0.1"), Hello::Tls(None)),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Hello::Other),
            (vec![HANDSHAKE_RECORD, 3, 1, 0, 5, 99, 0, 0, 1, 0], Hello::Other),
            (Vec::new(), Hello::Other),
        ] {
            let (mut client, server) = tokio::io::duplex(4096);
            client.write_all(&bytes).await.unwrap();
            drop(client);
            assert_eq!(read(server).await.unwrap().0, expected);
        }
    }
}
