//! Which version of HTTP a connection begins with.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::limits::{HTTP_IDLE_BUDGET, REQUEST_HEAD_BUDGET};

/// The first bytes of a connection, and what they mean.
pub(crate) struct Begun {
    pub(crate) bytes: Bytes,
    pub(crate) is_http2: bool,
}

/// Reads until the version is certain. `None`: the client left, or said nothing for too long.
pub(crate) async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> Option<Begun> {
    let mut bytes = BytesMut::with_capacity(FIRST_READ_BYTES);
    let mut deadline = Instant::now() + HTTP_IDLE_BUDGET;
    loop {
        let read = timeout_at(deadline, io.read_buf(&mut bytes)).await.ok()?.ok()?;
        if read == 0 {
            return None;
        }
        if let Some(is_http2) = is_http2(&bytes) {
            return Some(Begun { bytes: bytes.freeze(), is_http2 });
        }
        deadline = deadline.min(Instant::now() + REQUEST_HEAD_BUDGET);
    }
}

/// `None`: too early to tell.
fn is_http2(bytes: &[u8]) -> Option<bool> {
    let common = bytes.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
    if common == PREFACE.len() {
        return Some(true);
    }
    (common < bytes.len()).then_some(false)
}

/// # Source
/// RFC 9113 section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FIRST_READ_BYTES: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn the_version_is_told_as_early_as_possible() {
        assert_eq!(is_http2(b"GET"), Some(false));
        assert_eq!(is_http2(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), None);
        assert_eq!(is_http2(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"), Some(true));
        assert_eq!(is_http2(b"PRI * HTTP/1.1"), Some(false));
        assert_eq!(is_http2(b"P"), None);
        assert_eq!(is_http2(b"PUT"), Some(false));
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces() {
        let (mut client, mut io) = tokio::io::duplex(64);
        let reading = tokio::spawn(async move { read(&mut io).await.map(|begun| (begun.is_http2, begun.bytes)) });
        for byte in PREFACE {
            client.write_all(std::slice::from_ref(byte)).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(reading.await.unwrap(), Some((true, Bytes::from_static(PREFACE))));
    }
}
