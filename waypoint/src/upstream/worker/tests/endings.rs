//! How connections end: in order, or with a reset when they were given up.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_wire::l7;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::fixture::*;
use crate::upstream::*;

/// What an endpoint saw at the end of one connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Ordered,
    Reset,
}

/// The bytes up to the end, and the end.
async fn end_of(tcp: &mut TcpStream) -> (Vec<u8>, End) {
    let mut seen = Vec::new();
    match tcp.read_to_end(&mut seen).await {
        Ok(_) => (seen, End::Ordered),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (seen, End::Reset),
        Err(error) => panic!("{error}"),
    }
}

/// Says `answer` to each head, and tells how each connection ends.
async fn observed(answer: &'static [u8]) -> (std::net::SocketAddr, mpsc::Receiver<End>) {
    let (told, ends) = mpsc::channel(16);
    let address = by_hand(move |mut tcp, _| {
        let told = told.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tcp.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return told.try_send(End::Ordered).unwrap();
                    }
                    Err(_) => return told.try_send(End::Reset).unwrap(),
                }
                if head.ends_with(b"\r\n\r\n") {
                    tcp.write_all(answer).await.unwrap();
                    // Bytes that we have not read would make the other side's end a reset, too.
                    head.clear();
                }
            }
        }
    })
    .await;
    (address, ends)
}

/// A body that says `first`, and then whatever is sent.
fn streamed() -> (mpsc::Sender<Result<Bytes, BoxError>>, Request<RequestBody>) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let frames = tokio_stream::StreamExt::map(frames, |bytes: Result<Bytes, BoxError>| bytes.map(Frame::data));
    let body = RequestBody::Boxed(Box::pin(StreamBody::new(frames)));
    (sender, Request::post("http://a/").body(body).unwrap())
}

const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun";
const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole";

#[tokio::test]
async fn a_request_that_is_given_up_resets_its_connection() {
    worker(async {
        // Before its answer, by whoever waits and by the time that it may take.
        let (address, mut ends) = observed(b"").await;
        let silent = upstream(vec![at(address)], |_| ());
        let waiting = tokio::time::timeout(Duration::from_millis(30), silent.send(post("all of it")));
        assert!(waiting.await.is_err());
        assert_eq!(ends.recv().await, Some(End::Reset));
        let context = PickContext { timeout: Some(Duration::from_millis(30)), ..PickContext::default() };
        silent.upstreams.request(&silent.cluster, post(""), &context).await.unwrap_err();
        assert_eq!(ends.recv().await, Some(End::Reset));
        // In the middle of its body.
        let (sender, request) = streamed();
        let failing = async {
            sender.send(Ok("first".into())).await.unwrap();
            sender.send(Err("the client has left".into())).await.unwrap();
        };
        let (sent, ()) = tokio::join!(silent.send(request), failing);
        sent.unwrap_err();
        assert_eq!(ends.recv().await, Some(End::Reset));
        // In the middle of its answer, with and without more to send.
        let (address, mut ends) = observed(BEGUN).await;
        let slow = upstream(vec![at(address)], |_| ());
        let mut body = slow.send(post("")).await.unwrap().response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        drop(body);
        assert_eq!(ends.recv().await, Some(End::Reset));
        let (sender, request) = streamed();
        drop(slow.send(request).await.unwrap());
        assert_eq!(ends.recv().await, Some(End::Reset));
        drop(sender);
        let (sender, request) = streamed();
        let reply = slow.send(request).await.unwrap();
        sender.send(Err("the client has left".into())).await.unwrap();
        let mut body = reply.response.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        drop(body);
        assert_eq!(ends.recv().await, Some(End::Reset));
        assert_eq!((slow.gauge("upstream_rq_active"), slow.gauge("upstream_cx_active")), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_has_done_its_work_ends_in_order() {
    worker(async {
        // The last request that it may serve.
        let (address, mut ends) = observed(WHOLE).await;
        let last = upstream(vec![at(address)], pool(|pool| pool.max_requests_per_connection = 1));
        assert_eq!(last.exchange("").await.unwrap(), "whole");
        assert_eq!(ends.recv().await, Some(End::Ordered));
        // Idle, when its endpoint is not wanted any more.
        let idle = upstream(vec![at(address)], |_| ());
        assert_eq!(idle.exchange("").await.unwrap(), "whole");
        drop(idle);
        assert_eq!(ends.recv().await, Some(End::Ordered));
        // Answered before it was sent to its end: the rest is nothing that the endpoint waits for.
        let early = upstream(vec![at(address)], |_| ());
        let (sender, request) = streamed();
        let reply = early.send(request).await.unwrap();
        assert_eq!(reply.response.into_body().collect().await.unwrap().to_bytes(), "whole");
        drop(sender);
        assert_eq!(ends.recv().await, Some(End::Ordered));
        // All of the answer is here, but for who wanted it.
        let (address, mut ends) = observed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
        let unread = upstream(vec![at(address)], |_| ());
        drop(unread.send(post("")).await.unwrap());
        assert_eq!(ends.recv().await, Some(End::Ordered));
    })
    .await;
}

#[tokio::test]
async fn what_the_endpoint_has_ended_is_not_reset() {
    worker(async {
        let (told, mut ends) = mpsc::channel(16);
        let address = by_hand(move |mut tcp, _| {
            let told = told.clone();
            async move {
                tcp.shutdown().await.unwrap();
                told.try_send(end_of(&mut tcp).await).unwrap();
            }
        })
        .await;
        let upstream = upstream(vec![at(address)], |_| ());
        upstream.send(post("all of it")).await.unwrap_err();
        let (seen, end) = ends.recv().await.unwrap();
        assert!(end == End::Ordered && (seen.is_empty() || seen.ends_with(b"all of it")), "{end:?} {seen:?}");
    })
    .await;
}

#[tokio::test]
async fn what_a_client_broke_off_is_reset_when_all_that_it_said_has_arrived() {
    worker(async {
        let (listener, address) = listen().await;
        let upstream = upstream(vec![at(address)], |_| ());
        let context = PickContext::default();
        let (mut io, _) = upstream.upstreams.connect(&upstream.cluster, &context).await.unwrap();
        let (mut tcp, _) = listener.accept().await.unwrap();
        io.write_all(b"heard").await.unwrap();
        io.break_off();
        assert_eq!(end_of(&mut tcp).await, (b"heard".to_vec(), End::Reset));
        // More than the endpoint's system takes before it is read.
        let (mut io, _) = upstream.upstreams.connect(&upstream.cluster, &context).await.unwrap();
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut sent = 0;
        let sending = async {
            loop {
                sent += io.write(&[7; 64 << 10]).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(100), sending).await.is_err(), "nobody reads");
        io.break_off();
        let (seen, end) = end_of(&mut tcp).await;
        assert_eq!((seen.len(), end), (sent, End::Ordered));
    })
    .await;
}

#[tokio::test]
async fn a_tls_handshake_that_is_given_up_is_reset_and_one_that_fails_ends_in_order() {
    worker(async {
        let (told, mut ends) = mpsc::channel(16);
        let address = by_hand(move |mut tcp, number| {
            let told = told.clone();
            async move {
                let mut hello = [0; 5];
                tcp.read_exact(&mut hello).await.unwrap();
                if number > 0 {
                    tcp.write_all(b"this is no TLS").await.unwrap();
                }
                told.try_send(end_of(&mut tcp).await.1).unwrap();
            }
        })
        .await;
        let upstream = upstream(vec![at(address)], |backend| {
            let mode = l7::client_tls::Mode::Simple.into();
            backend.policy.as_mut().unwrap().tls = Some(l7::ClientTls { mode, ..l7::ClientTls::default() });
        });
        let waiting = tokio::time::timeout(Duration::from_millis(30), upstream.send(post("")));
        assert!(waiting.await.is_err());
        assert_eq!(ends.recv().await, Some(End::Reset));
        let failure = upstream.exchange("").await.unwrap_err();
        assert!(failure.error.body_text().contains("TLS error"), "{failure}");
        assert_eq!(ends.recv().await, Some(End::Ordered));
    })
    .await;
}
