use std::convert::Infallible;

use http_body_util::{BodyExt, Full, StreamBody};

use super::*;

type Pieces = Vec<Result<Frame<Bytes>, Infallible>>;

fn body(pieces: &[&'static [u8]], trailers: bool) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
    let mut frames: Pieces = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece)))).collect();
    if trailers {
        frames.push(Ok(Frame::trailers(HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]))));
    }
    StreamBody::new(futures::stream::iter(frames))
}

fn keep() -> UploadOptions {
    UploadOptions { keep: Some(Rc::default()), ..UploadOptions::default() }
}

#[tokio::test]
async fn each_attempt_sends_the_whole_body() {
    let upload = Upload::new(body(&[b"ab", b"c"], true), keep());
    for _ in 0..3 {
        assert!(upload.can_replay());
        let whole = upload.body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["etag"], "x");
        assert_eq!(whole.to_bytes(), "abc");
    }
    assert_eq!(upload.counts().0, 3, "received once");
}

#[tokio::test]
async fn an_attempt_goes_on_where_the_last_one_stopped_reading() {
    let upload = Upload::new(body(&[b"ab", b"cd", b"ef"], false), keep());
    let mut first = upload.body();
    first.frame().await.unwrap().unwrap();
    let second = upload.body();
    assert!(matches!(first.frame().await.unwrap().unwrap_err(), UploadError::Superseded));
    assert_eq!(second.collect().await.unwrap().to_bytes(), "abcdef");
}

#[tokio::test]
async fn resilience_row_12_more_than_the_bound_is_not_replayed() {
    let exact = Bytes::from(vec![1; REPLAY_BYTES_MAX]);
    let upload = Upload::new(Full::new(exact.clone()), keep());
    upload.body().collect().await.unwrap();
    assert!(upload.can_replay());
    let frames: Pieces = vec![Ok(Frame::data(exact)), Ok(Frame::data(Bytes::from_static(b"x")))];
    let upload = Upload::new(StreamBody::new(futures::stream::iter(frames)), keep());
    let passed = upload.body().collect().await.unwrap().to_bytes().len();
    assert_eq!(passed, REPLAY_BYTES_MAX + 1, "it is sent all the same");
    assert!(!upload.can_replay());
}

#[tokio::test]
async fn nothing_is_kept_once_the_response_is_there() {
    let upload = Upload::new(body(&[b"ab", b"cd"], false), keep());
    let mut reader = upload.body();
    reader.frame().await.unwrap().unwrap();
    upload.settle();
    assert_eq!(reader.collect().await.unwrap().to_bytes(), "cd");
    assert!(!upload.can_replay() && upload.0.borrow().kept.is_none());
}

#[tokio::test]
async fn a_replay_under_way_is_not_cut_off_by_the_response() {
    let upload = Upload::new(body(&[b"ab", b"cd", b"ef"], false), keep());
    let mut first = upload.body();
    first.frame().await.unwrap().unwrap();
    first.frame().await.unwrap().unwrap();
    let second = upload.body();
    upload.settle();
    assert_eq!(second.collect().await.unwrap().to_bytes(), "abcdef");
}

#[tokio::test]
async fn a_client_that_waits_is_not_read_before_the_gate_opens() {
    let upload = Upload::new(body(&[b"ab"], false), UploadOptions { gated: true, ..UploadOptions::default() });
    let mut reader = upload.body();
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), reader.frame()).await.is_err());
    upload.open();
    assert_eq!(reader.collect().await.unwrap().to_bytes(), "ab");
}

#[tokio::test]
async fn the_end_is_told_when_the_last_byte_was_received() {
    let upload = Upload::new(Full::new(Bytes::from_static(b"abc")), keep());
    let poll = || upload.poll_received(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!poll());
    upload.body().frame().await.unwrap().unwrap();
    assert!(poll(), "the length says that this was all");
}

#[tokio::test]
async fn copies_get_what_is_received_once() {
    let mut options = keep();
    let copy = options.copies.add();
    let upload = Upload::new(body(&[b"ab", b"c"], false), options);
    upload.body().collect().await.unwrap();
    upload.body().collect().await.unwrap();
    assert_eq!(copy.collect().await.unwrap().to_bytes(), "abc");
}

#[tokio::test]
async fn nothing_of_a_body_that_was_sent_is_kept_while_its_response_goes_on() {
    let upload = Upload::new(body(&[b"ab", b"cd"], false), keep());
    upload.body().collect().await.unwrap();
    assert!(upload.0.borrow().kept.is_some());
    upload.settle();
    assert!(upload.0.borrow().kept.is_none());
}

#[tokio::test]
async fn pieces_of_any_size_are_replayed_as_they_came() {
    let piece = |n: usize| Bytes::from(vec![n as u8; if n.is_multiple_of(50) { 3_000 } else { n % 7 + 1 }]);
    let frames: Pieces = (0..10_000).map(|n| Ok(Frame::data(piece(n)))).collect();
    let expected: Vec<u8> = (0..10_000).flat_map(piece).collect();
    let upload = Upload::new(StreamBody::new(futures::stream::iter(frames)), keep());
    for stop in [1, 700, 5_000] {
        let mut attempt = upload.body();
        for _ in 0..stop {
            attempt.frame().await.unwrap().unwrap();
        }
    }
    assert!(upload.can_replay());
    assert!(upload.body().collect().await.unwrap().to_bytes() == expected);
}

#[tokio::test]
async fn trailers_say_nothing_that_headers_decide() {
    let names = ["grpc-checksum", "authorization", "x-forwarded-client-cert", "X-Envoy-Original-Path", "host"];
    let trailers = names.map(|name| (name.parse().unwrap(), "x".parse().unwrap()));
    let frames: Pieces = vec![Ok(Frame::trailers(HeaderMap::from_iter(trailers)))];
    let upload = Upload::new(StreamBody::new(futures::stream::iter(frames)), keep());
    let seen = upload.body().collect().await.unwrap();
    let seen: Vec<_> = seen.trailers().unwrap().keys().cloned().collect();
    assert_eq!(seen, ["grpc-checksum"]);
}
