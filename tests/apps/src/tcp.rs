//! The raw TCP side of `echo`, and the clients that go with it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::pattern::{CHUNK_BYTES, Digest, Pattern};
use crate::whoami::WhoAmI;

/// What a raw port does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends everything back; when the client half-closes, says `bye` with what it saw, then closes.
    Mirror,
    /// Speaks first: one line with what it saw, then as `Mirror`.
    Banner,
    /// Takes bytes until the client half-closes, answers one line `<sha256> <count>`, then sends as many
    /// bytes of the pattern with seed 2.
    Digest,
}

/// Serves one raw port for the life of the process.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, behaviour: Behaviour, me: WhoAmI) -> Result<()> {
    loop {
        let (stream, peer) = listener.accept().await.context("accept")?;
        let me = me.clone();
        tokio::spawn(async move {
            // A client that goes away is no fault of the server.
            let _ = answer(stream, peer, behaviour, &me).await;
        });
    }
}

async fn answer(mut stream: TcpStream, peer: SocketAddr, behaviour: Behaviour, me: &WhoAmI) -> Result<()> {
    stream.set_nodelay(true)?;
    let source = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    match behaviour {
        Behaviour::Banner => {
            stream.write_all(format!("hello {source} from {}\n", me.pod).as_bytes()).await?;
            mirror(&mut stream, source).await
        }
        Behaviour::Mirror => mirror(&mut stream, source).await,
        Behaviour::Digest => digest(&mut stream).await,
    }
}

async fn mirror(stream: &mut TcpStream, source: SocketAddr) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        stream.write_all(buffer.get(..count).unwrap_or_default()).await?;
    }
    stream.write_all(format!("bye {source}\n").as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

async fn digest(stream: &mut TcpStream) -> Result<()> {
    let (digest, count) = read_digest(stream, u64::MAX).await?;
    stream.write_all(format!("{digest} {count}\n").as_bytes()).await?;
    send_pattern(stream, 2, count).await?;
    Ok(stream.shutdown().await?)
}

async fn read_digest(stream: &mut (impl AsyncReadExt + Unpin), most: u64) -> Result<(String, u64)> {
    let (mut digest, mut count) = (Digest::default(), 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    while count < most {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        digest.update(buffer.get(..read).unwrap_or_default());
        count += read as u64;
    }
    Ok((digest.finish(), count))
}

async fn send_pattern(stream: &mut (impl AsyncWriteExt + Unpin), seed: u64, bytes: u64) -> Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        pattern.fill(&mut chunk);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        stream.write_all(chunk.get(..take).unwrap_or_default()).await?;
        left -= take as u64;
    }
    Ok(())
}

/// Client of [`Behaviour::Digest`]: sends `bytes` bytes, half-closes, checks the answer, takes as many back and
/// checks those.
///
/// # Errors
/// When a byte is lost, doubled or changed in either direction.
pub async fn check_digest(target: &str, bytes: u64) -> Result<()> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    let (read, mut write) = stream.into_split();
    send_pattern(&mut write, 1, bytes).await.context("sending")?;
    write.shutdown().await.context("half-closing")?;
    let mut read = BufReader::with_capacity(CHUNK_BYTES, read);
    let mut line = String::new();
    read.read_line(&mut line).await.context("reading the answer")?;
    let want = format!("{} {bytes}\n", Pattern::new(1).digest(bytes));
    ensure!(line == want, "the server saw {line:?}, sent was {want:?}");
    let (digest, count) = read_digest(&mut read, u64::MAX).await.context("reading back")?;
    ensure!(count == bytes, "{count} bytes came back, wanted {bytes}");
    ensure!(digest == Pattern::new(2).digest(bytes), "bytes that came back are not those that were sent");
    Ok(())
}

/// Client of [`Behaviour::Mirror`]: sends a line, half-closes, and returns all that comes back.
///
/// # Errors
/// As the connection gives them.
pub async fn half_close(target: &str, text: &str) -> Result<String> {
    let mut stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Client of [`Behaviour::Banner`]: returns the line that the server says first, without having sent a byte.
///
/// # Errors
/// As the connection gives them.
pub async fn banner(target: &str) -> Result<String> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    ensure!(!line.is_empty(), "the server closed without a word");
    Ok(line)
}

/// Opens `count` connections to [`Behaviour::Mirror`], holds all of them open at once, then uses each.
///
/// # Errors
/// When any connection cannot be opened or does not answer.
pub async fn many(target: &str, count: usize) -> Result<()> {
    let opens = (0..count).map(|_| TcpStream::connect(target));
    let streams = futures::future::try_join_all(opens).await.context("opening")?;
    let uses = streams.into_iter().enumerate().map(|(index, mut stream)| async move {
        let word = format!("connection {index}\n");
        stream.write_all(word.as_bytes()).await?;
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).await.with_context(|| format!("connection {index}"))?;
        ensure!(answer == word.as_bytes(), "connection {index} answered {answer:?}");
        anyhow::Ok(stream)
    });
    // All stay open until the last has answered.
    let open = futures::future::try_join_all(uses).await?;
    ensure!(open.len() == count, "{} of {count} connections answered", open.len());
    Ok(())
}
