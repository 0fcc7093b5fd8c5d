//! Upgrades: a request that becomes a stream of bytes, with HTTP/1.1 upstream and either version to the client.
//!
//! # Source
//! RFC 9110 section 7.8, RFC 6455, RFC 8441 (WebSocket over HTTP/2).

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::response::Parts;
use http::{Method, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::connection::Connection;
use super::forward::{self, Route};
use super::judged::Judged;
use super::local::Local;
use super::outgoing::Outgoing;
use super::record::Record;
use crate::heard::Heard;
use crate::report::Flags;
use crate::upstream::{ReplyBody, UpstreamIo};

/// What an upstream said to an upgrade.
pub(crate) enum Opened {
    /// Yes.
    Granted { head: Parts, pending: Pending },
    /// Something else, which the client gets.
    Refused { head: Parts, body: ReplyBody },
}

/// A stream to the upstream, until the client's side is free.
pub(crate) struct Pending {
    upstream: UpstreamIo,
    judged: Box<Judged>,
    /// Of HTTP/2: gives the client's side.
    client: Option<OnUpgrade>,
}

/// A stream to the upstream whose client's side is whatever carried the request.
pub(crate) struct Tunnel {
    upstream: UpstreamIo,
    judged: Box<Judged>,
    connection: Rc<Connection>,
    record: Box<Record>,
}

/// Asks the upstream.
///
/// # Errors
/// The answer to the client where there is no upstream.
pub(crate) async fn open(
    route: &Route<'_>,
    mut outgoing: Outgoing,
    client: Option<OnUpgrade>,
    judged: Box<Judged>,
    record: &mut Record,
) -> Result<Opened, Local> {
    let over_http2 = outgoing.is_http2();
    if over_http2 {
        outgoing.set_method(Method::GET);
        let key = u128::from(route.connection.random()) << 64 | u128::from(route.connection.random());
        let key = HeaderValue::try_from(STANDARD.encode(key.to_be_bytes()));
        outgoing.headers.extend(key.map(|key| (SEC_WEBSOCKET_KEY, key)));
        outgoing.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        outgoing.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    outgoing.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let reply = forward::without_body(route, outgoing, record).await?;
    let (mut head, body) = reply.response.into_parts();
    let Some(upstream) = reply.upgraded else {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let local = Local::new(StatusCode::BAD_GATEWAY, "upgrade_failed").flags(Flags::UPE);
            return Err(local.close());
        }
        if over_http2 && head.status.is_success() {
            // To a client of HTTP/2 it would mean that the upgrade was granted.
            let local = Local::new(StatusCode::BAD_GATEWAY, "upgrade_refused");
            return Err(local.body("upstream did not upgrade").flags(Flags::UPE));
        }
        return Ok(Opened::Refused { head, body });
    };
    head.version = Version::HTTP_11;
    if over_http2 {
        head.status = StatusCode::OK;
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
            head.headers.remove(name);
        }
    }
    head.headers.remove(&KEEP_ALIVE);
    let client = client.filter(|_| over_http2);
    Ok(Opened::Granted { head, pending: Pending { upstream, judged, client } })
}

impl Pending {
    /// The answer is on its way: the bytes follow.
    pub(crate) fn hand_over(self, connection: &Rc<Connection>, record: Box<Record>) {
        let tunnel = Tunnel { upstream: self.upstream, judged: self.judged, connection: connection.clone(), record };
        match self.client {
            // The server lets go of the stream once the answer is written.
            None => *connection.upgraded.borrow_mut() = Some(tunnel),
            Some(client) => {
                let passed_on = connection.passed_on();
                tokio::task::spawn_local(async move {
                    match client.await {
                        Ok(upgraded) => {
                            let count = move |read| passed_on.set(passed_on.get() + read as u64);
                            relay(Heard::new(TokioIo::new(upgraded), count), Bytes::new(), tunnel).await;
                        }
                        // The client has left.
                        Err(_) => tunnel.upstream.break_off(),
                    }
                });
            }
        }
    }
}

/// Passes bytes on until both sides have ended, the process does, or policies that change no longer allow the request
/// that it was.
pub(crate) async fn relay<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, early: Bytes, tunnel: Tunnel) {
    let Tunnel { mut upstream, judged, connection, mut record } = tunnel;
    let mut drain = connection.context.drain.clone();
    let ended = tokio::select! {
        moved = both_ways(&mut io, &mut upstream, &early) => moved,
        () = drain.cut() => Ok((0, 0)),
        denial = judged.denied_later(&connection) => {
            record.denial.clone_from(&denial.denial);
            return record.cut(Flags::LR, denial.details.clone());
        }
    };
    match ended {
        Ok((received, sent)) => {
            (record.body_received, record.body_sent) = (received, sent);
            record.finish();
        }
        Err(error) => {
            record.cut(Flags::UC, format!("upgraded_stream_broke|{error}"));
            upstream.break_off();
        }
    }
}

async fn both_ways<A, B>(client: &mut A, upstream: &mut B, early: &[u8]) -> std::io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    upstream.write_all(early).await?;
    let (received, sent) = copy_bidirectional(client, upstream).await?;
    Ok((received + early.len() as u64, sent))
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
