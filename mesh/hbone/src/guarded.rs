//! A byte stream whose incoming frames are counted.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::frames::{Frames, Kind};
use crate::hygiene::{Flood, Hygiene, Speaker};

/// Sits between HTTP/2 and TLS. After a [`Flood`] it hands out nothing any more; whoever drives the connection looks at
/// [`Guarded::verdict`] and ends it.
///
/// Frames also cost the task's share of its thread, requests more than others: a peer with many small frames or long
/// headers must not keep the worker's other connections waiting longer than one with few large frames of data.
pub struct Guarded<T> {
    io: T,
    frames: Frames,
    hygiene: Hygiene,
    since: Instant,
    /// [`Frame::cost`](crate::frames::Frame::cost) of what was handed out and not yet paid for.
    owed: u32,
    pace: Option<Pace>,
    /// Read and not yet handed out: frames that are worth more than one turn of the task.
    waiting: BytesMut,
    verdict: Verdict,
}

/// Whether the peer has been found to flood, and how much it has sent.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    flood: OnceLock<Flood>,
    data_bytes: AtomicU64,
    /// Requests that may still be handed out, or [`NO_GATE`].
    requests_left: AtomicU32,
}

impl Default for Seen {
    fn default() -> Self {
        Self { flood: OnceLock::new(), data_bytes: AtomicU64::new(0), requests_left: AtomicU32::new(NO_GATE) }
    }
}

impl Verdict {
    /// What it floods us with, if it does.
    #[must_use]
    pub fn flood(&self) -> Option<Flood> {
        self.0.flood.get().copied()
    }

    /// Bytes of content that were read so far.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.0.data_bytes.load(Ordering::Relaxed)
    }

    /// From now on only so many more requests are handed out: the library decodes all that it can read before it shows
    /// the first of them, of which each may be the last that the peer is allowed. Whoever drives the connection allows
    /// more when it has seen these.
    pub(crate) fn allow_requests(&self, count: u32) {
        self.0.requests_left.store(count, Ordering::Relaxed);
    }

    /// Nothing is handed out until more requests are allowed; nobody is woken then.
    pub(crate) fn is_shut(&self) -> bool {
        self.0.requests_left.load(Ordering::Relaxed) == 0
    }

    /// Counts one, and tells whether there may be more.
    fn request(&self) -> bool {
        let left = self.0.requests_left.load(Ordering::Relaxed);
        if left != NO_GATE {
            self.0.requests_left.store(left.saturating_sub(1), Ordering::Relaxed);
        }
        left > 1
    }
}

/// How fast the peer of a tunnel may be. Whoever sends more small frames than any tunnel has use for keeps a worker busy
/// until the budgets end that: it waits in between instead, for its own connection alone.
struct Pace {
    /// [`Frame::cost`](crate::frames::Frame::cost) since `began`.
    spent: u32,
    began: Instant,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new() -> Self {
        Self { spent: 0, began: Instant::now(), rest: None }
    }

    /// Waits where too much was spent in too short a time.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.spent < COST_PER_ROUND {
            return Poll::Ready(());
        }
        let over = self.began + ROUND;
        if self.rest.is_some() || Instant::now() < over {
            let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(over)));
            ready!(rest.as_mut().poll(cx));
        }
        *self = Self::new();
        Poll::Ready(())
    }
}

impl<T> Guarded<T> {
    /// Guards what a server of tunnels reads.
    #[must_use]
    pub fn server(io: T) -> Self {
        Self::new(io, Frames::after_preface(), Speaker::Tunnel)
    }

    /// Guards what a server of applications' own requests reads.
    #[must_use]
    pub fn application(io: T) -> Self {
        Self::new(io, Frames::after_preface(), Speaker::Application)
    }

    fn new(io: T, frames: Frames, speaker: Speaker) -> Self {
        let hygiene = Hygiene::of(speaker);
        Self {
            io,
            frames,
            hygiene,
            since: Instant::now(),
            owed: 0,
            pace: (speaker == Speaker::Tunnel).then(Pace::new),
            waiting: BytesMut::new(),
            verdict: Verdict::default(),
        }
    }

    /// For whoever drives the connection.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// Counts frames until they are worth a turn, and tells how many bytes may be handed out.
    fn count(&mut self, bytes: &[u8]) -> Result<usize, Flood> {
        let Self { frames, hygiene, since, owed, pace, verdict, .. } = self;
        frames.feed(bytes, |frame| {
            *owed = owed.saturating_add(frame.cost());
            if let Some(pace) = pace {
                pace.spent = pace.spent.saturating_add(frame.cost());
            }
            if frame.kind == Kind::Data {
                verdict.0.data_bytes.fetch_add(frame.bytes.into(), Ordering::Relaxed);
            }
            hygiene.received(frame, || since.elapsed())?;
            let more = frame.kind != Kind::Headers || verdict.request();
            Ok(if more && *owed < COST_AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })
    }

    /// Takes what the reader may have from what was read before.
    fn hand_out_waiting(&mut self, out: &mut ReadBuf<'_>) -> Result<(), Flood> {
        let waiting = std::mem::take(&mut self.waiting);
        let part = waiting.len().min(out.remaining());
        let passed = self.count(waiting.get(..part).unwrap_or_default())?;
        out.put_slice(waiting.get(..passed).unwrap_or_default());
        if passed < waiting.len() {
            self.waiting = waiting;
            self.waiting.advance(passed);
        }
        Ok(())
    }

    /// Counts what was just read, and keeps what is too much for one turn.
    fn hand_out_new(&mut self, out: &mut ReadBuf<'_>, before: usize) -> Result<(), Flood> {
        let new = out.filled().get(before..).unwrap_or_default();
        let passed = self.count(new)?;
        self.waiting.extend_from_slice(new.get(passed..).unwrap_or_default());
        out.set_filled(before + passed);
        Ok(())
    }

    /// Pays for what was read, or lets other tasks run first.
    fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.owed >= COST_PER_UNIT {
            let Poll::Ready(turn) = coop::poll_proceed(cx) else {
                // Whoever waits for this processor has most likely not had so much of it.
                std::thread::yield_now();
                return Poll::Pending;
            };
            turn.made_progress();
            self.owed -= COST_PER_UNIT;
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.verdict.flood().is_some() || this.verdict.is_shut() {
            return Poll::Pending;
        }
        ready!(this.poll_pay(cx));
        if let Some(pace) = &mut this.pace {
            ready!(pace.poll_rest(cx));
        }
        let before = out.filled().len();
        let counted = if this.waiting.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
            this.hand_out_new(out, before)
        } else {
            this.hand_out_waiting(out)
        };
        if let Err(flood) = counted {
            // The driver notices in this very poll, so that nobody needs to be woken.
            let _ = this.verdict.0.flood.set(flood);
            out.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.hygiene.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.hygiene.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Any number of requests.
const NO_GATE: u32 = u32::MAX;
/// What one unit of a task's turn pays for; it has 128 of them.
const COST_PER_UNIT: u32 = 2;
/// The library handles all that one read gives it before it asks for more, so that this bounds what it does in a row.
const COST_AT_ONCE: u32 = 64;
/// What a tunnel may cost in each [`ROUND`]: 256,000 small frames a second, or 32,000 requests, several times what a
/// worker gets through when they are of use.
const COST_PER_ROUND: u32 = 2_048;
const ROUND: Duration = Duration::from_millis(8);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pings(count: usize) -> Vec<u8> {
        [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(count)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_untouched_until_there_are_too_many_frames() {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut guarded = Guarded::new(io, Frames::at_once(), Speaker::Tunnel);
        let verdict = guarded.verdict();
        let few = pings(900);
        peer.write_all(&few).await.unwrap();
        let mut read = vec![0; few.len()];
        guarded.read_exact(&mut read).await.unwrap();
        assert!(read == few && verdict.flood().is_none());
        let flood = pings(200);
        peer.write_all(&flood).await.unwrap();
        let mut read = vec![0; flood.len()];
        let all = tokio::time::timeout(Duration::from_secs(1), guarded.read_exact(&mut read)).await;
        assert!(all.is_err(), "handed out in spite of the flood");
        assert!(verdict.flood().unwrap().to_string().contains("PING"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_of_small_frames_is_paced_and_one_of_large_frames_is_not() {
        for (speaker, length, frames, least, most) in [
            (Speaker::Tunnel, 1_u8, 20_000, 60, 100),
            (Speaker::Tunnel, 200, 1_500, 0, 0),
            (Speaker::Application, 1, 20_000, 0, 0),
        ] {
            let (mut peer, io) = tokio::io::duplex(1 << 20);
            let mut guarded = Guarded::new(io, Frames::at_once(), speaker);
            let frame = [&[0, 0, length, 0, 0, 0, 0, 0, 1][..], &vec![7; length.into()]].concat();
            peer.write_all(&frame.repeat(frames)).await.unwrap();
            let began = Instant::now();
            guarded.read_exact(&mut vec![0; frame.len() * frames]).await.unwrap();
            let took = began.elapsed().as_millis();
            assert!((least..=most).contains(&took), "{speaker:?}, {frames} frames of {length} bytes took {took} ms");
        }
    }

    #[tokio::test]
    async fn what_one_read_hands_out_is_bounded_by_what_it_costs() {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut guarded = Guarded::new(io, Frames::at_once(), Speaker::Tunnel);
        let sent: Vec<u8> = (0..500_u32).flat_map(|n| [0, 0, 1, 0, 0, 0, 0, 0, 1, (n % 251) as u8]).collect();
        peer.write_all(&sent).await.unwrap();
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let mut piece = vec![0; 16 << 10];
            let count = guarded.read(&mut piece).await.unwrap();
            assert!((1..=COST_AT_ONCE as usize * 10).contains(&count), "{count} bytes at once");
            received.extend_from_slice(&piece[..count]);
        }
        assert!(received == sent);
        assert_eq!(guarded.waiting.capacity(), 0, "memory is kept");
        let bulk = [&[0, 0x40, 0, 0, 0, 0, 0, 0, 1][..], &[7; 0x4000]].concat();
        peer.write_all(&bulk).await.unwrap();
        let mut piece = vec![0; 64 << 10];
        assert_eq!(guarded.read(&mut piece).await.unwrap(), bulk.len(), "few large frames are handed out at once");
    }

    #[tokio::test]
    async fn no_more_requests_are_handed_out_than_were_allowed() {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut guarded = Guarded::new(io, Frames::at_once(), Speaker::Tunnel);
        let verdict = guarded.verdict();
        let request = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82];
        peer.write_all(&request.repeat(9)).await.unwrap();
        let mut read = [0; 90];
        verdict.allow_requests(3);
        assert_eq!(guarded.read(&mut read).await.unwrap(), 29, "up to the head of the third");
        assert!(verdict.is_shut());
        assert!(futures::poll!(std::pin::pin!(guarded.read(&mut read))).is_pending());
        verdict.allow_requests(5);
        assert_eq!(guarded.read(&mut read).await.unwrap(), 50, "and up to that of the eighth");
        verdict.allow_requests(5);
        assert_eq!(guarded.read(&mut read).await.unwrap(), 11);
        assert!(!verdict.is_shut());
    }

    #[tokio::test]
    async fn many_frames_let_other_tasks_run_in_between() {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut guarded = Guarded::new(io, Frames::at_once(), Speaker::Tunnel);
        // DATA of one byte: always allowed, never free.
        let frames = [0, 0, 1, 0, 0, 0, 0, 0, 1, 7].repeat(20_000);
        peer.write_all(&frames).await.unwrap();
        let others = std::rc::Rc::new(std::cell::Cell::new(0));
        let counting = others.clone();
        tokio::task::LocalSet::new()
            .run_until(async move {
                let other = tokio::task::spawn_local(async move {
                    loop {
                        counting.set(counting.get() + 1);
                        tokio::task::yield_now().await;
                    }
                });
                let mut left = frames.len();
                let mut piece = [0; 1000];
                while left > 0 {
                    left -= guarded.read(&mut piece).await.unwrap();
                }
                other.abort();
            })
            .await;
        assert!(others.get() >= 20_000 / 2 / 128, "others had {} turns", others.get());
    }
}
