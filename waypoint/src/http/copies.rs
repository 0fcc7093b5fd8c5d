//! Copies of a request body for mirrors: each has a bounded queue, and loses the request when it cannot keep up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::limits::MIRROR_BYTES_MAX;

/// Whoever gets a copy.
#[derive(Default)]
pub(crate) struct Copies(Vec<Rc<RefCell<Queue>>>);

/// The body of a mirrored request. Lives on the worker of its original.
pub(crate) struct CopyBody(Rc<RefCell<Queue>>);

/// Why a copy ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// It took the copy too long to be sent.
    #[error("mirror is more than {MIRROR_BYTES_MAX} bytes behind")]
    Behind,
    /// The original ended early.
    #[error("request that is mirrored ended early")]
    Original,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Behind,
    Original,
}

impl Copies {
    /// One more.
    pub(crate) fn add(&mut self) -> CopyBody {
        let queue = Rc::<RefCell<Queue>>::default();
        self.0.push(queue.clone());
        CopyBody(queue)
    }

    pub(crate) fn data(&mut self, data: &Bytes) {
        for queue in &self.0 {
            let mut queue = queue.borrow_mut();
            if queue.end.is_some() {
                continue;
            }
            if queue.bytes + data.len() > MIRROR_BYTES_MAX {
                queue.pieces = VecDeque::new();
                queue.finish(End::Behind);
            } else {
                queue.bytes += data.len();
                queue.pieces.push_back(data.clone());
                queue.wake();
            }
        }
    }

    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        for queue in &self.0 {
            queue.borrow_mut().trailers = Some(trailers.clone());
        }
    }

    pub(crate) fn end(&mut self) {
        self.finish(End::Whole);
    }

    pub(crate) fn fail(&mut self) {
        self.finish(End::Original);
    }

    fn finish(&mut self, end: End) {
        for queue in self.0.drain(..) {
            queue.borrow_mut().finish(end);
        }
    }
}

impl Drop for Copies {
    /// An original that nobody reads any more.
    fn drop(&mut self) {
        self.fail();
    }
}

impl Queue {
    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.end = Some(End::Behind);
        queue.pieces = VecDeque::new();
    }
}

impl Body for CopyBody {
    type Data = Bytes;
    type Error = CopyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CopyError>>> {
        let mut queue = self.0.borrow_mut();
        if let Some(piece) = queue.pieces.pop_front() {
            queue.bytes -= piece.len();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(match queue.end {
            None => {
                queue.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(End::Whole) => queue.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            Some(End::Behind) => Some(Err(CopyError::Behind)),
            Some(End::Original) => Some(Err(CopyError::Original)),
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn each_copy_is_whole() {
        let mut copies = Copies::default();
        let (first, second) = (copies.add(), copies.add());
        copies.data(&Bytes::from_static(b"ab"));
        copies.data(&Bytes::from_static(b"c"));
        copies.trailers(&HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]));
        copies.end();
        for copy in [first, second] {
            let whole = copy.collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["etag"], "x");
            assert_eq!(whole.to_bytes(), "abc");
        }
    }

    #[tokio::test]
    async fn a_copy_that_falls_behind_is_given_up_at_the_bound() {
        let mut copies = Copies::default();
        let mut copy = copies.add();
        copies.data(&Bytes::from(vec![0; MIRROR_BYTES_MAX]));
        assert_eq!(copy.frame().await.unwrap().unwrap().into_data().unwrap().len(), MIRROR_BYTES_MAX);
        copies.data(&Bytes::from(vec![0; MIRROR_BYTES_MAX]));
        copies.data(&Bytes::from_static(b"x"));
        assert!(matches!(copy.frame().await.unwrap().unwrap_err(), CopyError::Behind));
    }

    #[tokio::test]
    async fn a_copy_ends_with_its_original() {
        let mut copies = Copies::default();
        let mut copy = copies.add();
        drop(copies);
        assert!(matches!(copy.frame().await.unwrap().unwrap_err(), CopyError::Original));
    }
}
