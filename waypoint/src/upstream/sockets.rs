//! TCP connections to endpoints.

use std::io;
use std::net::SocketAddr;

use mesh_sys::socket::{Keepalive, TcpConnectOptions, connect_at_once};
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
