//! TCP connections to endpoints.

use std::io;
use std::net::SocketAddr;

use mesh_sys::socket::{Keepalive, TcpConnectOptions, connect_at_once, set_reset_on_close, unconfirmed_bytes};
use tokio::net::TcpStream;

/// Connects; within one host without waiting for an event.
pub(super) async fn connect(remote: SocketAddr, keepalive: Option<Keepalive>) -> io::Result<TcpStream> {
    let options = TcpConnectOptions { mark: None, source: None, keepalive };
    let socket = options.socket(remote)?;
    let connected = connect_at_once(&socket, remote)?;
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Makes the end of a connection that is given up half-way a reset: the endpoint is told at once, and our port does not
/// wait for stragglers. Clients that leave in crowds would use up the ports otherwise.
pub(super) fn end_by_reset(tcp: &TcpStream, reset: bool) {
    if let Err(error) = set_reset_on_close(tcp, reset) {
        // It closes all the same.
        tracing::debug!(%error, "how a connection ends cannot be chosen");
    }
}

/// The same for a connection whose client broke off, unless something that the client sent before is still on its way:
/// then the endpoint gets it, and an orderly end.
pub(crate) fn break_off(tcp: &TcpStream) {
    if unconfirmed_bytes(tcp).is_ok_and(|bytes| bytes == 0) {
        end_by_reset(tcp, true);
    }
}
