//! A server that remembers every byte it got, and answers as the path says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A running server.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    heads: Arc<Mutex<Vec<String>>>,
    other: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    pub(crate) async fn start(port: u16) -> Self {
        let recorder = Self::default();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let serving = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        recorder
    }

    /// Every head so far, as it came.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The targets of every request so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        let target = |head: &String| head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.heads().iter().map(target).collect()
    }

    /// Everything so far, heads and bodies, as one text.
    pub(crate) fn all(&self) -> String {
        let bodies = String::from_utf8_lossy(&self.other.lock().unwrap()).into_owned();
        self.heads().concat() + &bodies
    }

    async fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (reading, mut writing) = stream.into_split();
        let mut reading = BufReader::with_capacity(256 << 10, reading);
        while let Some(head) = self.head(&mut reading).await {
            let continues = head.to_ascii_lowercase().contains("expect: 100-continue");
            if continues && writing.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                return;
            }
            let Some(body) = self.body(&mut reading, &head).await else { return };
            if answer(&mut writing, &head, body).await.is_none() {
                return;
            }
        }
    }

    async fn head(&self, reading: &mut BufReader<OwnedReadHalf>) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reading.read_until(b'\n', &mut head).await.ok()? == 0 {
                self.other.lock().unwrap().extend(head);
                return None;
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        self.heads.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// Reads the body and yields how long it was.
    async fn body(&self, reading: &mut BufReader<OwnedReadHalf>, head: &str) -> Option<u64> {
        let lower = head.to_ascii_lowercase();
        if let Some(length) = field(&lower, "content-length") {
            let length: u64 = length.parse().ok()?;
            return self.piece(reading, length).await.then_some(length);
        }
        if field(&lower, "transfer-encoding") != Some("chunked") {
            return Some(0);
        }
        let mut total = 0;
        loop {
            let mut line = String::new();
            reading.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let size = u64::from_str_radix(line.trim_end().split(';').next()?, 16).ok()?;
            if size == 0 {
                break;
            }
            if !self.piece(reading, size).await {
                return None;
            }
            total += size;
            reading.read_line(&mut String::new()).await.ok()?;
        }
        loop {
            let mut line = String::new();
            reading.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            if line == "\r\n" {
                return Some(total);
            }
            self.other.lock().unwrap().extend(line.as_bytes());
        }
    }

    async fn piece(&self, reading: &mut BufReader<OwnedReadHalf>, mut left: u64) -> bool {
        while left > 0 {
            let Ok(piece) = reading.fill_buf().await else { return false };
            if piece.is_empty() {
                return false;
            }
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let mut other = self.other.lock().unwrap();
            if other.len() < REMEMBERED_BYTES_MAX {
                other.extend(&piece[..taken]);
            }
            drop(other);
            reading.consume(taken);
            left -= taken as u64;
        }
        true
    }
}

/// Value of a header in a head that is lower case.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// Answers; none when the connection is over.
async fn answer(writing: &mut OwnedWriteHalf, head: &str, body: u64) -> Option<()> {
    let target = head.split(' ').nth(1)?;
    let path = target.split('?').next()?;
    let (word, argument) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    match word {
        "status" => {
            let length = if matches!(argument, "204" | "304") { "" } else { "content-length: 0\r\n" };
            send(writing, &format!("HTTP/1.1 {argument} Said So\r\netag: \"a\"\r\n{length}\r\n")).await
        }
        "hints" => {
            let hints = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
            send(writing, hints).await?;
            send(writing, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await
        }
        "trailers" => {
            let head = "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n";
            send(writing, &format!("{head}5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")).await
        }
        "chunks" => {
            send(writing, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            // Sizes in capitals, with zeros, with an extension, in pieces.
            send(writing, "5\r\nhello\r\n0000A;x=\"y\"\r\n0123").await?;
            send(writing, "456789\r\n1\r\n!\r").await?;
            send(writing, "\n0\r\n\r\n").await
        }
        "drip" => {
            send(writing, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            for _ in 0..argument.parse::<u32>().ok()? {
                send(writing, "5\r\ndrip \r\n").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            send(writing, "0\r\n\r\n").await
        }
        "download" => {
            let mut left: u64 = argument.parse().ok()?;
            send(writing, &format!("HTTP/1.1 200 OK\r\ncontent-length: {left}\r\n\r\n")).await?;
            let piece = vec![b'x'; 256 << 10];
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                writing.write_all(&piece[..now]).await.ok()?;
                left -= now as u64;
            }
            Some(())
        }
        "close" => {
            send(writing, "HTTP/1.1 200 OK\r\n\r\nuntil the end").await?;
            None
        }
        "say" => {
            // What follows in the argument, as bytes in hexadecimal.
            let digits: Vec<_> = argument.bytes().collect();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let bytes: Vec<u8> = digits.chunks(2).filter_map(byte).collect();
            writing.write_all(&bytes).await.ok()?;
            None
        }
        _ => {
            let text = format!("{head}body: {body}\n");
            let length = text.len();
            let text = if head.starts_with("HEAD ") { "" } else { &text };
            send(writing, &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}")).await
        }
    }
}

async fn send(writing: &mut OwnedWriteHalf, text: &str) -> Option<()> {
    writing.write_all(text.as_bytes()).await.ok()
}

const REMEMBERED_BYTES_MAX: usize = 1 << 20;
