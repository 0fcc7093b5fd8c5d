//! A connection that moves from one thread's event queue to another's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection that one runtime has accepted and another serves: events wake only the thread that it is at.
///
/// Between [`Roaming::leave`] and [`Roaming::arrive`] reads and writes fail.
#[derive(Debug)]
pub struct Roaming(Place);

#[derive(Debug)]
enum Place {
    At(TcpStream),
    Between(std::net::TcpStream),
    /// An event queue would not let it go, or not take it.
    Lost,
}

impl Roaming {
    /// At the runtime that `tcp` belongs to.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self(Place::At(tcp))
    }

    /// Leaves the event queue. What the system has received stays with the connection.
    ///
    /// # Errors
    /// The system's; the connection is closed.
    pub fn leave(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, Place::Lost) {
            Place::At(tcp) => Place::Between(tcp.into_std()?),
            elsewhere => elsewhere,
        };
        Ok(())
    }

    /// Joins the event queue of the runtime that this is called on.
    ///
    /// # Errors
    /// The system's; the connection is closed.
    pub fn arrive(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, Place::Lost) {
            Place::Between(tcp) => Place::At(TcpStream::from_std(tcp)?),
            elsewhere => elsewhere,
        };
        Ok(())
    }

    fn with<T>(
        self: Pin<&mut Self>,
        io: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.get_mut().0 {
            Place::At(tcp) => io(Pin::new(tcp)),
            Place::Between(_) | Place::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Roaming {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_read(cx, out))
    }
}

impl AsyncWrite for Roaming {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|tcp| tcp.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|tcp| tcp.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap()
    }

    #[test]
    fn what_one_runtime_accepted_another_serves() {
        let (first, second) = (runtime(), runtime());
        let (mut roaming, mut client) = first.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (Roaming::new(listener.accept().await.unwrap().0), client)
        });
        first.block_on(async {
            io::Write::write_all(&mut client, b"ab").unwrap();
            assert_eq!(roaming.read_u8().await.unwrap(), b'a');
            roaming.leave().unwrap();
            assert_eq!(roaming.read_u8().await.unwrap_err().kind(), io::ErrorKind::NotConnected);
            assert_eq!(roaming.write_u8(1).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
        });
        // Nothing of it is left with the first.
        drop(first);
        second.block_on(async {
            roaming.arrive().unwrap();
            assert_eq!(roaming.read_u8().await.unwrap(), b'b', "what had arrived before is seen");
            client.set_nonblocking(true).unwrap();
            let mut client = TcpStream::from_std(client).unwrap();
            let (read, ()) = tokio::join!(roaming.read_u8(), async { client.write_all(b"c").await.unwrap() });
            assert_eq!(read.unwrap(), b'c', "what arrives later wakes");
            roaming.write_u8(7).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), 7);
        });
    }
}
