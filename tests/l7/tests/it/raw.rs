//! A client that says exactly what it is told to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// Of the first response that is not interim.
    pub(crate) status: Option<u16>,
    /// All bytes.
    pub(crate) text: String,
    /// The proxy ended the connection.
    pub(crate) closed: bool,
}

impl Answer {
    pub(crate) fn of(bytes: &[u8], closed: bool) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let statuses = text.lines().filter_map(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse::<u16>().ok());
        Self { status: statuses.clone().find(|status| *status >= 200 || *status == 101), text, closed }
    }

    /// How many responses there are.
    pub(crate) fn responses(&self) -> usize {
        // Where a response begins, no space is before it as in a request.
        let begins = |at: usize| !self.text[..at].ends_with(' ');
        self.text.match_indices("HTTP/1.").filter(|found| begins(found.0)).count()
    }
}

/// Sends `request` on a connection of its own and listens until the proxy ends it or is silent.
pub(crate) async fn talk(port: u16, request: &[u8]) -> Answer {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return Answer::default() };
    // It may stop listening before the end.
    let _ = stream.write_all(request).await;
    listen(&mut stream, SILENCE).await
}

/// Listens until the other side ends, or is silent for so long.
pub(crate) async fn listen(stream: &mut TcpStream, silence: Duration) -> Answer {
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(silence, stream.read_buf(&mut seen)).await {
            Ok(Ok(0) | Err(_)) => return Answer::of(&seen, true),
            Ok(Ok(_)) => {}
            Err(_) => return Answer::of(&seen, false),
        }
    }
}

/// A plain request on a connection of its own.
pub(crate) async fn get(port: u16, path: &str) -> Answer {
    talk(port, format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n").as_bytes()).await
}

const SILENCE: Duration = Duration::from_secs(3);
