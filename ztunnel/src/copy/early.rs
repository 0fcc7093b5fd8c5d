//! What an application says before its connection has reached the destination.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::limits::EARLY_BYTES_MAX;

/// The application's first bytes, once they are there; `None` at the end of data or after a failure, which the relay
/// will find out for itself.
pub(crate) fn poll_first(client: &TcpStream, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    loop {
        if ready!(client.poll_read_ready(cx)).is_err() {
            return Poll::Ready(None);
        }
        let mut buffer = BytesMut::with_capacity(EARLY_BYTES_MAX);
        match client.try_read_buf(&mut buffer) {
            Ok(count) if count > 0 => return Poll::Ready(Some(compact(&buffer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return Poll::Ready(None),
        }
    }
}

/// Waiting costs no more memory than the bytes themselves.
fn compact(buffer: &BytesMut) -> Bytes {
    Bytes::copy_from_slice(buffer)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn the_first_bytes_are_taken_up_to_the_bound_and_the_rest_is_left() {
        let (mut near, far) = pair().await;
        near.write_all(&[7; EARLY_BYTES_MAX + 1]).await.unwrap();
        let mut left = EARLY_BYTES_MAX + 1;
        while left > 0 {
            let first = poll_fn(|cx| poll_first(&far, cx)).await.unwrap();
            assert!(first.len() <= EARLY_BYTES_MAX);
            left -= first.len();
        }
        drop(near);
        assert_eq!(poll_fn(|cx| poll_first(&far, cx)).await, None);
    }
}
