use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_good_request_passes_byte_for_byte() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, watch) = Guard::new(io, Bytes::from_static(b"GET / HT"));
    client.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut seen = Vec::new();
    guard.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(watch.fault().is_none());
}

#[tokio::test]
async fn a_bad_request_ends_in_bytes_that_no_parser_takes_and_then_in_an_error() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, watch) = Guard::new(io, Bytes::new());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\nEvil: b\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let error = guard.read_to_end(&mut seen).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(seen.starts_with(b"GET / HTTP/1.1\r\n") && seen.ends_with(POISON), "{}", seen.escape_ascii());
    assert!(!seen.windows(4).any(|window| window == b"Evil"));
    assert_eq!(watch.fault(), Some(Fault::BareLineFeed));
}

#[tokio::test]
async fn small_reads_get_all_of_the_poison_too() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, _watch) = Guard::new(io, Bytes::new());
    client.write_all(b"\nGET").await.unwrap();
    let mut seen = Vec::new();
    let mut one = [0];
    while let Ok(1) = guard.read(&mut one).await {
        seen.push(one[0]);
    }
    assert_eq!(seen, POISON);
}

#[tokio::test]
async fn bytes_after_an_upgrade_wait_until_it_is_granted() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, watch) = Guard::new(io, Bytes::new());
    let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(&[head.as_slice(), b"raw\n\0"].concat()).await.unwrap();
    let mut seen = vec![0; 100];
    let read = guard.read(&mut seen).await.unwrap();
    assert_eq!(&seen[..read], head);
    let waiting = tokio::time::timeout(Duration::from_millis(1), guard.read(&mut seen)).await;
    assert!(waiting.is_err(), "read on");
    assert!(watch.is_holding());
    assert_eq!(guard.into_parts().1, "raw\n\0");
}

#[tokio::test]
async fn a_client_that_leaves_before_its_upgrade_is_granted_is_missed() {
    let (mut client, io) = tokio::io::duplex(64 << 10);
    let (mut guard, _watch) = Guard::new(io, Bytes::new());
    let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut seen = vec![0; 100];
    assert_eq!(guard.read(&mut seen).await.unwrap(), head.len());
    let leaving = async {
        client.write_all(&[7; 5_000]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(guard.read(&mut seen), leaving);
    assert_eq!(read.unwrap(), 0, "the end");
    assert!(guard.into_parts().1 == vec![7; 5_000]);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_refused_in_the_end() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, watch) = Guard::new(io, Bytes::new());
    let mut seen = [0; 16];
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(guard.read(&mut seen).await.unwrap(), 16);
    tokio::time::advance(REQUEST_HEAD_BUDGET - Duration::from_millis(5)).await;
    client.write_all(b"a").await.unwrap();
    assert_eq!((guard.read(&mut seen).await.unwrap(), watch.fault()), (1, None), "still in time");
    tokio::time::advance(Duration::from_millis(10)).await;
    client.write_all(b"b").await.unwrap();
    assert!(guard.read(&mut seen).await.unwrap() > 0, "poison");
    assert_eq!(watch.fault(), Some(Fault::Slow));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_within_a_head_is_refused_too() {
    for (begun, fault) in [(b"G".as_slice(), Some(Fault::Slow)), (b"\r\n", None), (b"\r", None)] {
        let (mut client, io) = tokio::io::duplex(4096);
        let (mut guard, watch) = Guard::new(io, Bytes::new());
        client.write_all(begun).await.unwrap();
        let mut seen = Vec::new();
        let reading = tokio::time::timeout(REQUEST_HEAD_BUDGET * 2, guard.read_to_end(&mut seen));
        assert!(reading.await.expect("waits for ever").is_err());
        assert_eq!(watch.fault(), fault, "{}", begun.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_between_requests_is_not_slow() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, watch) = Guard::new(io, Bytes::new());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = [0; 100];
    assert!(guard.read(&mut seen).await.unwrap() > 0);
    let reading = tokio::time::timeout(REQUEST_HEAD_BUDGET * 2, guard.read(&mut seen));
    assert!(reading.await.is_err());
    assert!(watch.fault().is_none());
}

#[tokio::test]
async fn interim_responses_go_out_between_responses_only() {
    let (mut client, io) = tokio::io::duplex(4096);
    let (mut guard, watch) = Guard::new(io, Bytes::new());
    assert!(watch.interim(b"103"));
    guard.flush().await.unwrap();
    guard.write_all(b"part").await.unwrap();
    assert!(!watch.interim(b"103"), "in the middle of a response");
    guard.flush().await.unwrap();
    assert!(watch.interim(b"103"));
    guard.write_all(b"next").await.unwrap();
    drop(guard);
    let mut seen = String::new();
    client.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "103part103next");
}
