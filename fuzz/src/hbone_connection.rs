//! What a peer sends after its TLS handshake: HTTP/2 from the preface on.

use std::time::Duration;

use http::{Method, StatusCode};
use mesh_hbone::{ServerConnection, Settings};
use tokio::io::AsyncWriteExt;

/// The server ends on its own when the peer has said all, whatever that was.
pub fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    runtime.block_on(async {
        let (mut peer, io) = tokio::io::duplex(PIPE_BYTES);
        let said = async {
            // The server may hang up first.
            let _ = peer.write_all(PREFACE).await;
            let _ = peer.write_all(bytes).await;
            let _ = peer.shutdown().await;
            peer
        };
        let served = async {
            let Ok(mut connection) = ServerConnection::handshake(io, &Settings::default()).await else { return };
            while let Some(Ok(request)) = connection.next().await {
                let _ = request.authority().map(str::len);
                let status = if request.method() == Method::CONNECT { StatusCode::OK } else { StatusCode::BAD_REQUEST };
                request.reject(status);
            }
        };
        let both = async { tokio::join!(said, served) };
        tokio::time::timeout(END, both).await.expect("the server lets go of a peer that is gone");
    });
}

/// RFC 9113 section 3.4, with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const PIPE_BYTES: usize = 1 << 20;
/// Of paused time.
const END: Duration = Duration::from_secs(600);
