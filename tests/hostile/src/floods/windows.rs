//! Peers that make the proxy hold bytes: windows that never open, sockets that nobody reads, applications that do not
//! listen, frames that never end.

use std::time::Duration;

use super::{Flood, Progress, flood};
use crate::peer::{Attack, DATA, INITIAL_WINDOW_SIZE, Peer, WINDOW_UPDATE, connect, frame};
use crate::pod::{DEAF_PORT, TALK_PORT};

pub(super) const FLOODS: &[Flood] = &[
    flood!("windows that never open", None, 160, closed_windows),
    flood!("answers that nobody reads", None, 160, unread_answers),
    flood!("uploads that nobody reads", None, 160, unread_uploads),
    flood!("uploads over many tunnels", None, 240, many_uploads),
    flood!("uploads that break off", None, 160, broken_uploads),
    flood!("frames that never end", None, 64, endless_frames),
];

/// 200 downloads, of which the proxy may pass on nothing.
async fn closed_windows(attack: Attack, progress: Progress) {
    let authority = format!("{}:{TALK_PORT}", attack.upstream.ip());
    hold(attack, progress, 1, &[(INITIAL_WINDOW_SIZE, 0)], async |peer| {
        for id in (1..400).step_by(2) {
            peer.send(&connect(id, &authority, &[])).await?;
        }
        Ok(())
    })
    .await;
}

/// 200 downloads with open windows into a socket that is not read.
async fn unread_answers(attack: Attack, progress: Progress) {
    let authority = format!("{}:{TALK_PORT}", attack.upstream.ip());
    hold(attack, progress, 1, &[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)], async |peer| {
        for id in (1..400).step_by(2) {
            peer.send_only(&connect(id, &authority, &[])).await?;
        }
        Ok(())
    })
    .await;
}

/// Uploads that fill every window there is, to an application that does not read.
async fn unread_uploads(attack: Attack, progress: Progress) {
    let authority = format!("{}:{DEAF_PORT}", attack.upstream.ip());
    hold(attack, progress, 4, &[], async |peer| {
        // The connection's own credit comes after the preface.
        while peer.next_frame().await?.0 != WINDOW_UPDATE {}
        // 4 MB a stream, 16 MB a connection: no more comes after that.
        for id in (1..9_u32).step_by(2) {
            peer.send(&connect(id, &authority, &[])).await?;
            let piece = frame(DATA, 0, id, &[7; 16 << 10]);
            for _ in 0..250 {
                peer.send(&piece).await?;
            }
        }
        Ok(())
    })
    .await;
}

/// The same over 200 tunnels from one address: each gets as much as it is allowed.
async fn many_uploads(attack: Attack, progress: Progress) {
    let authority = format!("{}:{DEAF_PORT}", attack.upstream.ip());
    let piece = |id| frame(DATA, 0, id, &[7; PIECE_BYTES]);
    let from_one = |_| 0;
    hold_from(attack, progress, 200, &[], from_one, async |peer| {
        let more = loop {
            if let (WINDOW_UPDATE, payload) = peer.next_frame().await? {
                break payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            }
        };
        let pieces = (DEFAULT_WINDOW_BYTES + more as usize) / PIECE_BYTES;
        for nth in 0..pieces {
            let id = 1 + 2 * (nth % 4) as u32;
            if nth < 4 {
                peer.send(&connect(id, &authority, &[])).await?;
            }
            peer.send(&piece(id)).await?;
        }
        Ok(())
    })
    .await;
}

/// Uploads to an application that does not read, left behind one after the other.
async fn broken_uploads(attack: Attack, progress: Progress) {
    let authority = format!("{}:{DEAF_PORT}", attack.upstream.ip());
    let piece = frame(DATA, 0, 1, &[7; 16 << 10]);
    while progress.go_on() {
        let round = async {
            let mut peer = attack.opened(0, &[]).await?;
            peer.send(&connect(1, &authority, &[])).await?;
            while peer.next_frame().await?.0 != WINDOW_UPDATE {}
            for _ in 0..60 {
                peer.send(&piece).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        if round.await.is_ok() {
            progress.round();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The largest frame but its last byte, on many connections.
async fn endless_frames(attack: Attack, progress: Progress) {
    let authority = format!("{}:{DEAF_PORT}", attack.upstream.ip());
    hold(attack, progress, 32, &[], async |peer| {
        peer.send(&connect(1, &authority, &[])).await?;
        let whole = frame(DATA, 0, 1, &vec![7; 1 << 20]);
        peer.send(whole.split_last().map_or(&[], |(_, rest)| rest)).await
    })
    .await;
}

/// Makes `count` connections, does `fill` on each, and holds them until the end.
async fn hold(
    attack: Attack,
    progress: Progress,
    count: usize,
    settings: &[(u16, u32)],
    fill: impl AsyncFn(&mut Peer) -> std::io::Result<()>,
) {
    hold_from(attack, progress, count, settings, |nth| nth, fill).await;
}

/// [`hold`], each from the address of the crowd that `from` picks.
async fn hold_from(
    attack: Attack,
    progress: Progress,
    count: usize,
    settings: &[(u16, u32)],
    from: impl Fn(usize) -> usize,
    fill: impl AsyncFn(&mut Peer) -> std::io::Result<()>,
) {
    let mut peers = Vec::new();
    while progress.go_on() {
        if peers.len() < count
            && let Ok(mut peer) = attack.opened(from(peers.len()), settings).await
        {
            progress.round();
            // Without credit it would wait for ever.
            let filled = tokio::time::timeout(Duration::from_secs(2), fill(&mut peer)).await;
            if !matches!(filled, Ok(Err(_))) {
                peers.push(peer);
            }
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

const PIECE_BYTES: usize = 8 << 10;
/// What a peer may send on a connection before it is given more.
const DEFAULT_WINDOW_BYTES: usize = 65_535;
