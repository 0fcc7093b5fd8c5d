//! Queries on connections: several may be under way on one, and are answered as the answers come.

use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use mesh_core::drain::DrainWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Server, Step};
use crate::dns::answer::Transport;
use crate::dns::upstream::framed;
use crate::limits::{ACCEPT_PAUSE, DNS_IDLE_BUDGET, DNS_PIPELINED_MAX, DNS_QUERY_BUDGET};

/// Accepts until the drain starts.
pub(super) async fn serve(server: Rc<Server>, listener: std::net::TcpListener, watch: DrainWatch) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "DNS listener cannot be watched");
            return;
        }
    };
    let mut draining = watch.clone();
    loop {
        let next = async {
            // Never closed.
            let slot = server.connections.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            _ = draining.signaled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, client)) => {
                let (server, watch) = (server.clone(), watch.clone());
                tokio::task::spawn_local(async move {
                    let mut cut = watch.clone();
                    let ended = tokio::select! {
                        ended = Box::pin(converse(&server, stream, watch)) => ended,
                        () = cut.cut() => Ok(()),
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%error, %client, "DNS connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept of a DNS connection failed, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Until the client leaves, says nothing for too long, or one of its queries finds no name server: then it sees the
/// connection end, as if it had asked that server itself.
async fn converse(server: &Rc<Server>, mut stream: TcpStream, mut draining: DrainWatch) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut input = BytesMut::new();
    let mut waiting: FuturesUnordered<LocalBoxFuture<'_, Option<Vec<u8>>>> = FuturesUnordered::new();
    let mut listening = true;
    while listening || !waiting.is_empty() {
        let idle = waiting.is_empty();
        tokio::select! {
            Some(answer) = waiting.next(), if !idle => {
                let Some(answer) = answer else { return Ok(()) };
                timeout(DNS_QUERY_BUDGET, writer.write_all(&framed(&answer)?)).await??;
            }
            message = next_message(&mut reader, &mut input), if listening && waiting.len() < DNS_PIPELINED_MAX => {
                match message? {
                    Some(message) => waiting.push(respond(server, &message)),
                    None => listening = false,
                }
            }
            _ = draining.signaled(), if listening => listening = false,
            () = tokio::time::sleep(DNS_IDLE_BUDGET), if idle => return Ok(()),
        }
    }
    Ok(())
}

fn respond<'a>(server: &'a Rc<Server>, message: &[u8]) -> LocalBoxFuture<'a, Option<Vec<u8>>> {
    let step = server.step(message, Transport::Tcp);
    Box::pin(async move {
        let request = match step {
            Step::Answer(answer) => return Some(answer),
            Step::Ignore => return None,
            Step::Forward(request) => request,
        };
        // Bounded: what holds the places gives them back within the same time.
        let room = timeout(DNS_QUERY_BUDGET, server.forwarded.clone().acquire_owned()).await;
        let Ok(Ok(_room)) = room else {
            server.refuse_for_lack_of_room(&request);
            return None;
        };
        server.forward(&request, Transport::Tcp).await
    })
}

/// The next message; `None` at the end.
///
/// # Cancel safety
/// Cancel-safe: what was read stays in `input`.
async fn next_message(reader: &mut ReadHalf<'_>, input: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(length) = input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)))
            && input.len() >= length + 2
        {
            input.advance(2);
            return Ok(Some(input.split_to(length).freeze()));
        }
        input.reserve(READ_BYTES);
        if reader.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

/// Room for a usual query.
const READ_BYTES: usize = 512;
