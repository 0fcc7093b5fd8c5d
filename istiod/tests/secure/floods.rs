//! Attacks before authentication: each is refused cheaply, and a node proxy elsewhere does not notice.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use istiod::listen::Bounds;
use tonic::Code;

use super::frames::{CONTINUATION, END_HEADERS, HEADERS, PING, RESET, Raw, SETTINGS, frame, request, tcp};
use super::plane::{Plane, ZTUNNEL, certify, csr};

const HOSTILE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const SIGN: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const SOON: Duration = Duration::from_secs(10);

/// Bytes of memory of this process, both ends of every connection included.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Plays an attack on one connection, and expects its end; others are served meanwhile, in about the usual memory.
async fn is_cut(name: &str, attack: &[u8]) {
    let plane = Plane::start().await;
    plane.stream(Some(ZTUNNEL), "istio-system").await.unwrap();
    let before = memory();
    let mut raw = Raw::connect(&plane, HOSTILE).await.unwrap();
    let started = Instant::now();
    let (closed, served) = tokio::join!(
        async {
            raw.write(attack).await;
            raw.is_closed(SOON).await
        },
        plane.stream(Some(ZTUNNEL), "istio-system"),
    );
    assert!(closed, "{name}: the connection is not closed");
    assert!(served.is_ok(), "{name}: {served:?}");
    assert!(started.elapsed() < SOON, "{name} took {:?}", started.elapsed());
    let grown = memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{name}: {grown} bytes more");
    assert_eq!(plane.reviews.load(Ordering::Relaxed), 2, "{name}: nobody was asked about the attacker");
}

#[tokio::test]
async fn rapid_resets_are_cut() {
    let block = request(SIGN, &[]);
    let streams = (0..20_000_u32).map(|number| 2 * number + 1);
    let attack: Vec<u8> = streams
        .flat_map(|stream| {
            let mut pair = frame(HEADERS, END_HEADERS, stream, &block);
            pair.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
            pair
        })
        .collect();
    is_cut("rapid reset", &attack).await;
}

#[tokio::test]
async fn pings_and_settings_without_end_are_cut() {
    is_cut("ping", &frame(PING, 0, 0, &[0; 8]).repeat(50_000)).await;
    is_cut("settings", &frame(SETTINGS, 0, 0, &[]).repeat(50_000)).await;
}

#[tokio::test]
async fn headers_without_end_are_cut() {
    let mut attack = frame(HEADERS, 0, 1, &request(SIGN, &[]));
    attack.extend(frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']).repeat(100_000));
    is_cut("continuation", &attack).await;
}

#[tokio::test]
async fn requests_of_a_stranger_without_end_are_cut() {
    let block = request(SIGN, &[]);
    let attack: Vec<u8> =
        (0..10_000_u32).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &block)).collect();
    is_cut("requests", &attack).await;
}

#[tokio::test]
async fn header_bombs_are_refused() {
    // One entry of the dynamic table, named thousands of times: small on the wire, large in memory.
    let mut block = request(SIGN, &[]);
    block.extend([0x40, 1, b'a', 127, 0x81, 0x1e]); // a name, and a value of 4,000 bytes, kept in the table
    block.extend([b'x'; 4000]);
    block.extend([0xbe; 12_000]);
    let plane = Plane::start().await;
    let before = memory();
    let mut raw = Raw::connect(&plane, HOSTILE).await.unwrap();
    for number in 0..20 {
        raw.write(&frame(HEADERS, END_HEADERS, 2 * number + 1, &block)).await;
    }
    assert!(!raw.read().await.is_empty(), "an answer, if only a refusal");
    assert!(memory().saturating_sub(before) < 64 << 20);
    assert!(plane.stream(Some(ZTUNNEL), "istio-system").await.is_ok());
    assert_eq!(plane.reviews.load(Ordering::Relaxed), 1);
}

const FEW: Bounds = Bounds {
    connections: 256,
    strangers: 64,
    strangers_per_source: 16,
    newest_first: false,
    handshake: Duration::from_secs(3600),
    patience: None,
};

#[tokio::test]
async fn handshakes_that_never_end_hold_up_nobody() {
    let plane = Plane::bounded(FEW).await;
    let mut open = Vec::new();
    // Many addresses, each with as many as it may have: more than there are places.
    for address in 2..12 {
        for _ in 0..16 {
            open.push(tcp(IpAddr::from([127, 0, 0, address]), plane.addr).await.unwrap());
        }
        let served = tokio::time::timeout(SOON, plane.stream(Some(ZTUNNEL), "istio-system")).await;
        assert!(served.expect("in time").is_ok(), "with {} silent connections", open.len());
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_few_and_end() {
    let plane = Plane::bounded(Bounds { patience: Some(Duration::from_millis(300)), ..FEW }).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.extend(Raw::connect(&plane, HOSTILE).await);
    }
    assert!(idle.len() <= 16 + 4, "{} idle connections of one address", idle.len());
    assert!(plane.stream(Some(ZTUNNEL), "istio-system").await.is_ok());
    for raw in &mut idle {
        assert!(raw.is_closed(SOON).await);
    }
    // One that said who it is may stay, however long it is silent.
    let channel = plane.connect(None).await.unwrap();
    let chain = certify(channel.clone(), Some(ZTUNNEL), None, &csr(), 0).await;
    assert!(chain.is_ok(), "{chain:?}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(certify(channel, Some(ZTUNNEL), None, &csr(), 0).await.is_ok(), "the same connection");
}

#[tokio::test]
async fn oversized_tokens_are_refused_unread() {
    let plane = Plane::start().await;
    let channel = plane.connect(None).await.unwrap();
    for bytes in [20 << 10, 60 << 10, 200 << 10] {
        let token = format!("istio-ca:istio-system:ztunnel:{}", "x".repeat(bytes));
        let outcome = certify(channel.clone(), Some(&token), None, &csr(), 0).await;
        assert!(outcome.is_err(), "{bytes} bytes");
    }
    assert_eq!(plane.reviews.load(Ordering::Relaxed), 0, "the API server was asked nothing");
    assert!(plane.stream(Some(ZTUNNEL), "istio-system").await.is_ok());
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}

#[tokio::test]
async fn oversized_and_deep_certificate_requests_are_refused() {
    let plane = Plane::start().await;
    let channel = plane.connect(None).await.unwrap();
    // Sequences in sequences: as deep as the bytes allow.
    let mut deep = Vec::new();
    for _ in 0..3000 {
        let length = u16::try_from(deep.len()).unwrap().to_be_bytes();
        let mut outer = vec![0x30, 0x82, length[0], length[1]];
        outer.append(&mut deep);
        deep = outer;
    }
    deep.truncate(11_000);
    let cases = [
        (pem(&deep), Code::InvalidArgument),
        (pem(&[0x30; 11_000]), Code::InvalidArgument),
        (pem(&[7; 20_000]), Code::InvalidArgument),
        ("x".repeat(200 << 10), Code::OutOfRange),
    ];
    for (csr, code) in cases {
        let started = Instant::now();
        let status = certify(channel.clone(), Some(ZTUNNEL), None, &csr, 0).await.unwrap_err();
        assert_eq!(status.code(), code, "{} bytes: {}", csr.len(), status.message());
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn messages_that_claim_to_be_huge_are_refused_by_their_length() {
    let plane = Plane::start().await;
    let before = memory();
    let mut raw = Raw::connect(&plane, HOSTILE).await.unwrap();
    raw.write(&frame(HEADERS, END_HEADERS, 1, &request(SIGN, &[]))).await;
    raw.write(&frame(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])).await;
    let mut answered = Vec::new();
    while !answered.windows(4).any(|four| four == b"grpc") && answered.len() < 4096 {
        let more = raw.read().await;
        if more.is_empty() {
            break;
        }
        answered.extend(more);
    }
    assert!(!answered.is_empty(), "it was answered");
    assert!(memory().saturating_sub(before) < 32 << 20);
    assert!(plane.stream(Some(ZTUNNEL), "istio-system").await.is_ok());
}
