//! Many connections: idle ones, ones that do not finish their handshake, ones that do nothing else.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rustls::pki_types::{DnsName, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Flood, Progress, flood};
use crate::peer::{Attack, PREFACE, SETTINGS, frame};

pub(super) const FLOODS: &[Flood] = &[
    flood!("idle sockets", None, 64, idle_sockets),
    flood!("hellos that trickle", None, 96, trickled_hellos),
    flood!("handshakes that stall", Some("did not go on"), 96, stalled_handshakes),
    flood!("handshakes and nothing else", None, 96, handshakes),
    flood!("connections and nothing else", None, 64, connections),
    flood!("garbage instead of TLS", Some("TLS handshake failed"), 64, garbage),
    flood!("tunnels and nothing else", None, 96, idle_tunnels),
];

/// More sockets than may be without proof at once.
async fn idle_sockets(attack: Attack, progress: Progress) {
    collect(&attack, &progress, 1_500, async |nth| attack.tcp(nth).await.ok()).await;
}

/// Hellos byte by byte.
async fn trickled_hellos(attack: Attack, progress: Progress) {
    let hello = hello(&attack);
    let mut clients: Vec<(TcpStream, usize)> = Vec::new();
    let mut nth = 0;
    while progress.go_on() {
        if clients.len() < 500 {
            nth += 1;
            if let Ok(client) = attack.tcp(nth).await {
                clients.push((client, 0));
                progress.round();
            }
            continue;
        }
        for (client, sent) in &mut clients {
            let next = hello.get(*sent).copied().unwrap_or_default();
            if client.write_all(&[next]).await.is_ok() {
                *sent += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A hello, and silence: from more addresses than it takes to hold every turn.
async fn stalled_handshakes(attack: Attack, progress: Progress) {
    let hello = hello(&attack);
    collect(&attack, &progress, 1_000, async |nth| {
        let mut tcp = attack.tcp(nth).await.ok()?;
        tcp.write_all(&hello).await.ok()?;
        Some(tcp)
    })
    .await;
}

async fn handshakes(attack: Attack, progress: Progress) {
    let mut nth = 0;
    while progress.go_on() {
        nth += 16;
        let many = (0..16).map(|one| attack.peer(nth + one));
        for done in join_all(many).await {
            if done.is_ok() {
                progress.round();
            }
        }
    }
}

async fn connections(attack: Attack, progress: Progress) {
    let mut nth = 0;
    while progress.go_on() {
        nth += 1;
        if attack.tcp(nth).await.is_ok() {
            progress.round();
        }
    }
}

async fn garbage(attack: Attack, progress: Progress) {
    let mut nth = 0;
    while progress.go_on() {
        nth += 1;
        if let Ok(mut tcp) = attack.tcp(nth).await {
            progress.round();
            let _ = tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        }
    }
}

/// Tunnels with nothing in them.
async fn idle_tunnels(attack: Attack, progress: Progress) {
    let opening = Bytes::from([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    collect(&attack, &progress, 400, async |nth| {
        let mut peer = attack.peer(nth).await.ok()?;
        peer.send_only(&opening).await.ok()?;
        Some(peer)
    })
    .await;
}

/// Makes and keeps as many as `max`, then holds them.
async fn collect<T>(attack: &Attack, progress: &Progress, max: usize, make: impl AsyncFn(usize) -> Option<T>) {
    let mut held = Vec::new();
    let mut nth = 0;
    while progress.go_on() {
        nth += 1;
        if held.len() >= max {
            tokio::time::sleep(Duration::from_millis(5)).await;
        } else if let Some(one) = make(nth % attack.crowd.len().max(1)).await {
            held.push(one);
            progress.round();
        }
    }
}

/// What a client of the mesh says first, word for word.
fn hello(attack: &Attack) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(config) = attack.cert.client_config(std::slice::from_ref(&attack.expected)) else { return bytes };
    let Ok(name) = DnsName::try_from_str("mesh.invalid") else { return bytes };
    let client = rustls::ClientConnection::new(config, ServerName::DnsName(name.to_owned()));
    if let Ok(mut client) = client {
        let _ = client.write_tls(&mut bytes);
    }
    bytes
}
