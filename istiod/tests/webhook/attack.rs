//! Clients that mean no good. Nobody proves who they are on this port, so each must be cheap to refuse, and others served.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Plane, Tls, review};

/// Attackers come from this address, honest clients from 127.0.0.1.
const ATTACKER: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(30);

fn head(more: &str) -> String {
    format!("POST /validate HTTP/1.1\r\nhost: istiod\r\ncontent-type: application/json\r\n{more}\r\n")
}

/// Everything until the server closes.
async fn rest(tls: &mut Tls) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut bytes)).await;
    drop(read.expect("the server closes the connection"));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let plane = Plane::start().await;
    let mut tls = plane.tls("http/1.1", ATTACKER).await.unwrap();
    let started = Instant::now();
    tls.write_all(head("content-length: 1000000000\r\n").as_bytes()).await.unwrap();
    let mut start = [0; 12];
    tls.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_at_the_bound() {
    let plane = Plane::start().await;
    let mut tls = plane.tls("http/1.1", ATTACKER).await.unwrap();
    tls.write_all(head("transfer-encoding: chunked\r\n").as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, " ".repeat(64 << 10));
    let mut sent = 0;
    while tls.write_all(chunk.as_bytes()).await.is_ok() && sent < 100 << 20 {
        sent += 64 << 10;
    }
    // What the kernels buffer on both sides comes on top of the bound.
    assert!(sent < 20 << 20, "{sent} bytes were taken");
    assert!(rest(&mut tls).await.starts_with("HTTP/1.1 413") || plane.registry.encode().contains("status=\"413\"} 1"));
    plane.assert_serves("after a body without end").await;
}

#[tokio::test]
async fn deep_and_wide_json_costs_little() {
    let plane = Plane::start().await;
    let deep = format!("{}{}", "{\"a\":".repeat(500_000), "1");
    let wide = format!("[{}0]", "0,".repeat(1_500_000));
    for (body, part) in [(deep, "nested deeper"), (wide, "values")] {
        let started = Instant::now();
        let (status, text) = plane.review("h2", &body).await.unwrap();
        assert!(status == 400 && text.as_str().unwrap().contains(part), "{status} {text}");
        assert!(started.elapsed() < Duration::from_secs(5), "{part} took {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn clients_that_do_not_go_on_are_cut() {
    let plane = Plane::start().await;
    for (what, sent, answer) in [
        ("a body that never comes", head("content-length: 100\r\n"), "HTTP/1.1 408"),
        ("half a head", "POST /validate HTTP/1.1\r\nhost".to_owned(), ""),
        ("nothing at all", String::new(), ""),
    ] {
        let mut tls = plane.tls("http/1.1", ATTACKER).await.unwrap();
        tls.write_all(sent.as_bytes()).await.unwrap();
        let text = rest(&mut tls).await;
        assert!(text.starts_with(answer), "{what}: {text}");
    }
    let mut silent = plane.tls("h2", ATTACKER).await.unwrap();
    rest(&mut silent).await;
    let mut tcp = plane.tcp(ATTACKER).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut Vec::new())).await;
    assert!(read.is_ok(), "a client that never greets is cut");
}

#[tokio::test]
async fn a_head_without_end_is_cut() {
    let plane = Plane::start().await;
    let mut tls = plane.tls("http/1.1", ATTACKER).await.unwrap();
    tls.write_all(b"POST /validate HTTP/1.1\r\n").await.unwrap();
    let line = format!("x: {}\r\n", "a".repeat(1000));
    let mut sent = 0;
    while tls.write_all(line.as_bytes()).await.is_ok() && sent < 100 << 20 {
        sent += line.len();
    }
    assert!(sent < 20 << 20, "{sent} bytes were taken");
    plane.assert_serves("after a head without end").await;
}

#[tokio::test]
async fn one_address_does_not_take_every_place() {
    let plane = Plane::start().await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(plane.tcp(ATTACKER).await.unwrap());
    }
    plane.assert_serves("with 300 silent connections from one address").await;
    // With ever more addresses the oldest make room.
    for last in 3..=12 {
        for _ in 0..60 {
            open.push(plane.tcp(last).await.unwrap());
        }
    }
    plane.assert_serves("with 900 silent connections from eleven addresses").await;
}

#[tokio::test]
async fn slow_large_bodies_leave_room_for_small_ones() {
    let plane = Plane::start().await;
    let mut open = Vec::new();
    for last in 2..=13 {
        let mut tls = plane.tls("http/1.1", last).await.unwrap();
        tls.write_all(head("content-length: 3000000\r\n").as_bytes()).await.unwrap();
        drop(tls.write_all(&vec![b' '; 2_900_000]).await);
        open.push(tls);
    }
    plane.assert_serves("with twelve large bodies on the way").await;
    let plane_metrics = || plane.registry.encode();
    let deadline = Instant::now() + PATIENCE;
    while !plane_metrics().contains("status=\"503\"}") {
        assert!(Instant::now() < deadline, "all bodies together are bounded: {}", plane_metrics());
        tokio::task::yield_now().await;
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Heads of `POST /validate` in HPACK without indexing.
fn request_head() -> Vec<u8> {
    let mut block = vec![0x83, 0x87]; // :method POST, :scheme https
    for (name, value) in [(":path", "/validate"), (":authority", "istiod"), ("content-type", "application/json")] {
        block.push(0x00);
        block.push(u8::try_from(name.len()).unwrap());
        block.extend(name.as_bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    block
}

/// Sends frames until the server has had enough; fails if it never has. Reads along, so that answers do not stop the server.
async fn flood(plane: &Plane, what: &str, mut next: impl FnMut(u32) -> Vec<u8>) {
    let tls = plane.tls("h2", ATTACKER).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(tls);
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while reading.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    let started = Instant::now();
    writing.write_all(PREFACE).await.unwrap();
    let (mut sent, mut round) = (0_usize, 0);
    loop {
        let mut batch = Vec::new();
        while batch.len() < 16 << 10 {
            batch.extend(next(round));
            round += 1;
        }
        if writing.write_all(&batch).await.is_err() || reader.is_finished() {
            break;
        }
        sent += batch.len();
        assert!(sent < 200 << 20 && started.elapsed() < PATIENCE, "{what}: {sent} bytes in {round} frames were taken");
        if round % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    plane.assert_serves(what).await;
}

#[tokio::test]
async fn floods_of_frames_end_the_connection() {
    let plane = Plane::start().await;
    flood(&plane, "PING", |_| frame(6, 0, 0, &[7; 8])).await;
    flood(&plane, "SETTINGS", |_| frame(4, 0, 0, &[])).await;
    flood(&plane, "WINDOW_UPDATE", |_| frame(8, 0, 0, &[0, 0, 0, 1])).await;
    flood(&plane, "PRIORITY", |round| frame(2, 0, round * 2 + 1, &[0, 0, 0, 0, 1])).await;
    flood(&plane, "unknown frames", |_| frame(0x77, 0, 0, &[0; 100])).await;
    let head = request_head();
    flood(&plane, "requests that are taken back", |round| {
        let stream = round * 2 + 1;
        let mut both = frame(1, 4, stream, &head);
        both.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
        both
    })
    .await;
    flood(&plane, "requests without a body, never ended", |round| frame(1, 4, round * 2 + 1, &head)).await;
    let opening = std::sync::atomic::AtomicBool::new(true);
    flood(&plane, "CONTINUATION", |_| {
        let first = opening.swap(false, std::sync::atomic::Ordering::Relaxed);
        if first { frame(1, 0, 1, &head) } else { frame(9, 0, 1, &[0x00, 0x01, b'a', 0x01, b'b']) }
    })
    .await;
    let opening = std::sync::atomic::AtomicBool::new(true);
    flood(&plane, "empty DATA", |_| {
        let first = opening.swap(false, std::sync::atomic::Ordering::Relaxed);
        if first { frame(1, 4, 1, &head) } else { frame(0, 0, 1, &[]) }
    })
    .await;
}

#[tokio::test]
async fn many_reviews_at_once_are_answered_or_refused_and_none_hangs() {
    let plane = Plane::start().await;
    let running: Vec<_> = (0..20).map(|_| plane.connect_http2()).collect();
    let mut answers = Vec::new();
    for sender in running {
        let mut sender = sender.await;
        for _ in 0..50 {
            let answer = sender.send_request(super::client::request(review("{}")));
            answers.push(tokio::spawn(answer));
        }
    }
    let mut fine = 0;
    for answer in answers {
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap().unwrap();
        assert!(matches!(answer.status().as_u16(), 200 | 503), "{}", answer.status());
        fine += usize::from(answer.status() == 200);
    }
    assert_eq!(fine, 1000, "honest load is served");
}
