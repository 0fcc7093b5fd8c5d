//! Floods of frames, on as few connections as the proxy allows.

use std::time::Duration;

use super::{Flood, Progress, flood};
use crate::peer::{
    Attack, CONTINUATION, DATA, END_HEADERS, HEADERS, PADDED, PING, PRIORITY, Peer, RESET, SETTINGS, WINDOW_UPDATE,
    connect, frame,
};
use crate::pod::ECHO_PORT;

pub(super) const FLOODS: &[Flood] = &[
    flood!("PING frames", Some("too many PING frames"), 48, pings),
    flood!("SETTINGS frames", Some("too many SETTINGS frames"), 48, settings),
    flood!("WINDOW_UPDATE frames", Some("too many WINDOW_UPDATE frames"), 48, window_updates),
    flood!("empty DATA frames", Some("tunnel was closed"), 48, empty_data),
    flood!("DATA frames of padding", Some("tunnel was closed"), 48, padding),
    flood!("PRIORITY frames", Some("too many frames without use"), 48, priorities),
    flood!("frames of unknown type", Some("too many frames without use"), 48, unknown),
    flood!("rapid resets", Some("tunnel was closed"), 64, rapid_resets),
    flood!("endless CONTINUATION", Some("tunnel was closed"), 48, continuations),
    flood!("headers beyond the bound", Some("tunnel was closed"), 64, large_headers),
    flood!("requests that are no CONNECT", Some("is not CONNECT"), 64, wrong_requests),
    flood!("DATA of one byte", None, 64, tiny_data),
];

async fn pings(attack: Attack, progress: Progress) {
    repeat(attack, progress, Vec::new(), frame(PING, 0, 0, &[7; 8])).await;
}

async fn settings(attack: Attack, progress: Progress) {
    repeat(attack, progress, Vec::new(), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])).await;
}

async fn window_updates(attack: Attack, progress: Progress) {
    repeat(attack, progress, Vec::new(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
}

async fn empty_data(attack: Attack, progress: Progress) {
    let opening = connect(1, &echo(&attack), &[]);
    repeat(attack, progress, opening, frame(DATA, 0, 1, &[])).await;
}

async fn padding(attack: Attack, progress: Progress) {
    let opening = connect(1, &echo(&attack), &[]);
    repeat(attack, progress, opening, frame(DATA, PADDED, 1, &[30; 31])).await;
}

async fn priorities(attack: Attack, progress: Progress) {
    repeat(attack, progress, Vec::new(), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9])).await;
}

async fn unknown(attack: Attack, progress: Progress) {
    repeat(attack, progress, Vec::new(), frame(0xbe, 0, 0, &[1; 10])).await;
}

async fn tiny_data(attack: Attack, progress: Progress) {
    let opening = connect(1, &echo(&attack), &[]);
    repeat(attack, progress, opening, frame(DATA, 0, 1, b"x")).await;
}

async fn continuations(attack: Attack, progress: Progress) {
    let start = frame(HEADERS, 0, 1, b"\x02\x07CONNECT");
    repeat(attack, progress, start, frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'])).await;
}

async fn rapid_resets(attack: Attack, progress: Progress) {
    let authority = echo(&attack);
    streams(attack, progress, move |id| [connect(id, &authority, &[]), frame(RESET, 0, id, &[0, 0, 0, 8])].concat())
        .await;
}

async fn large_headers(attack: Attack, progress: Progress) {
    let authority = echo(&attack);
    let fields = [0, 1, b'x', 1, b'y'].repeat(20_000);
    streams(attack, progress, move |id| connect(id, &authority, &fields)).await;
}

async fn wrong_requests(attack: Attack, progress: Progress) {
    // `:method GET`, `:scheme https`, `:path /` from the static table; `:authority x` as a literal.
    let block = [0x82, 0x87, 0x84, 0x01, 0x01, b'x'];
    streams(attack, progress, move |id| frame(HEADERS, END_HEADERS | 1, id, &block)).await;
}

/// Sends `opening` and then `piece` for ever, over and over.
async fn repeat(attack: Attack, progress: Progress, opening: Vec<u8>, piece: Vec<u8>) {
    let many = piece.repeat(PACKED_BYTES / piece.len().max(1) + 1);
    rounds(attack, progress, async |peer, progress| {
        peer.send(&opening).await?;
        while progress.go_on() {
            peer.send(&many).await?;
        }
        Ok(())
    })
    .await;
}

/// Sends what `stream` makes for one stream after the other.
async fn streams(attack: Attack, progress: Progress, stream: impl Fn(u32) -> Vec<u8>) {
    rounds(attack, progress, async |peer, progress| {
        let mut ids = (1_u32..).step_by(2);
        while progress.go_on() {
            let mut packed = Vec::new();
            while packed.len() < PACKED_BYTES {
                packed.extend(stream(ids.next().unwrap_or(1)));
            }
            peer.send(&packed).await?;
        }
        Ok(())
    })
    .await;
}

/// A connection, and another when it is closed.
async fn rounds(attack: Attack, progress: Progress, flood: impl AsyncFn(&mut Peer, &Progress) -> std::io::Result<()>) {
    let mut nth = 0;
    while progress.go_on() {
        nth += 1;
        if let Ok(mut peer) = attack.opened(nth, &[]).await {
            progress.round();
            // Thrown out: that is what this is about.
            let _ = flood(&mut peer, &progress).await;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn echo(attack: &Attack) -> String {
    format!("{}:{ECHO_PORT}", attack.upstream.ip())
}

/// Frames of one write.
const PACKED_BYTES: usize = 16 << 10;
