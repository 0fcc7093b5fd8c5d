//! Peers that send what no client needs. Frames are written by hand: no library would send them.

use std::time::Duration;

use http::{Method, StatusCode};
use mesh_hbone::{HboneError, ServerConnection, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::spawn_local;

use crate::fixture::{echo, local};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// `:method CONNECT`, `:authority 10.1.0.77:8080`, as literals that no table remembers.
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x0e10.1.0.77:8080";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What a client sends first, with one open stream.
fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, CONNECT)].concat()
}

/// How the server's side ended, and the error code of the GOAWAY that the client got, if any.
struct End {
    error: Option<HboneError>,
    go_away: Option<u32>,
}

/// Sends `opening` and then every piece until the server has had enough or there are no more.
async fn flood(opening: Vec<u8>, pieces: impl Iterator<Item = Vec<u8>>) -> End {
    let (mut client, io) = tokio::io::duplex(1 << 20);
    let server = spawn_local(serve(io));
    client.write_all(&opening).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(client);
    let reader = spawn_local(async move {
        let mut answers = Vec::new();
        let _ = reading.read_to_end(&mut answers).await;
        answers
    });
    for piece in pieces {
        if writing.write_all(&piece).await.is_err() {
            break;
        }
    }
    let _ = writing.shutdown().await;
    drop(writing);
    let error = server.await.unwrap();
    End { error, go_away: go_away(&reader.await.unwrap()) }
}

async fn serve(io: DuplexStream) -> Option<HboneError> {
    let mut connection = match ServerConnection::handshake(io, &Settings::default()).await {
        Ok(connection) => connection,
        Err(error) => return Some(error),
    };
    loop {
        match connection.next().await? {
            Ok(request) if request.method() != Method::CONNECT => request.reject(StatusCode::BAD_REQUEST),
            Ok(request) => drop(spawn_local(echo(request))),
            Err(error) => return Some(error),
        }
    }
}

fn go_away(mut answers: &[u8]) -> Option<u32> {
    while let Some((head, rest)) = answers.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, next) = rest.split_at_checked(length)?;
        if head[3] == GO_AWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        answers = next;
    }
    None
}

/// The words of the refusal; the peer must have been told to calm down.
async fn refused(opening: Vec<u8>, piece: Vec<u8>) -> String {
    // Packed, as a hostile peer would.
    let End { error, go_away } = flood(opening, std::iter::repeat_n(piece.repeat(64), 4_000)).await;
    let error = error.expect("the server took it all");
    assert!(error.is_misbehaviour(), "{error}");
    assert_eq!(go_away, Some(ENHANCE_YOUR_CALM), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_flood_of_frames_ends_the_connection_with_the_reason() {
    local(async {
        let table = [
            (frame(PING, 0, 0, &[7; 8]), "PING"),
            (frame(PING, 1, 0, &[7; 8]), "PING"),
            (frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), "SETTINGS"),
            (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), "WINDOW_UPDATE"),
            (frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), "WINDOW_UPDATE"),
            (frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]), "frames without use"),
            (frame(99, 0, 0, &[1]), "frames without use"),
        ];
        for (piece, words) in table {
            let said = refused(opening(), piece.clone()).await;
            assert!(said.contains("peer sent too many") && said.contains(words), "{said}");
        }
    })
    .await;
}

#[tokio::test]
async fn empty_data_ends_the_connection_whether_padded_or_not() {
    local(async {
        for piece in [frame(DATA, 0, 1, &[]), frame(DATA, PADDED, 1, &[200; 201])] {
            let said = refused(opening(), piece).await;
            // The library has a bound of its own for the plain form.
            assert!(said.contains("empty DATA") || said.contains("HTTP/2"), "{said}");
        }
    })
    .await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    local(async {
        let streams = (0..100_000_u32).map(|nth| {
            let id = nth * 2 + 1;
            [frame(HEADERS, END_HEADERS, id, CONNECT), frame(RESET, 0, id, &[0, 0, 0, 8])].concat()
        });
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let End { error, go_away } = flood(opening, streams).await;
        assert!(error.unwrap().is_misbehaviour());
        assert_eq!(go_away, Some(ENHANCE_YOUR_CALM));
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_no_connect_are_answered_until_there_are_too_many() {
    local(async {
        // `:method GET`, `:scheme https`, `:path /` from the static table; `:authority x` as a literal.
        let get = [0x82, 0x87, 0x84, 0x01, 0x01, b'x'];
        let streams = |count: u32| (0..count).map(move |nth| frame(HEADERS, END_HEADERS | 1, nth * 2 + 1, &get));
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let End { error, go_away } = flood(opening.clone(), streams(20)).await;
        assert!(
            error.as_ref().is_none_or(|error| !error.is_misbehaviour()),
            "a mistaken client is no flood: {error:?}"
        );
        assert_ne!(go_away, Some(ENHANCE_YOUR_CALM));
        let End { error, .. } = flood(opening, streams(200_000)).await;
        assert!(error.unwrap().to_string().contains("too many requests that are no CONNECT"));
    })
    .await;
}

#[tokio::test]
async fn header_bytes_are_bounded_across_continuations() {
    local(async {
        // A header block that never ends, in small frames and in large ones.
        let field = |bytes: usize| {
            let length = u8::try_from(bytes).unwrap();
            [&[0, 1, b'x', length][..], &vec![b'y'; bytes]].concat()
        };
        for piece in [field(10), field(100).repeat(100)] {
            let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0, 1, CONNECT)].concat();
            let said = refused(opening, frame(CONTINUATION, 0, 1, &piece)).await;
            assert!(said.contains("HTTP/2") || said.contains("CONTINUATION"), "{said}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_with_too_many_headers_gets_no_stream() {
    local(async {
        // Past the bound, but not far enough to end the connection.
        let fields = [0, 1, b'x', 1, b'y'].repeat(3_000);
        let request = frame(HEADERS, END_HEADERS, 1, &[CONNECT, &fields].concat());
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat();
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let server = spawn_local(serve(io));
        client.write_all(&opening).await.unwrap();
        let mut answers = Vec::new();
        // Its own answer: 431, or a reset.
        while !kinds_of(&answers).iter().any(|kind| [HEADERS, RESET].contains(kind)) {
            assert!(client.read_buf(&mut answers).await.unwrap() > 0, "the connection ended");
        }
        drop(client);
        server.await.unwrap();
    })
    .await;
}

fn kinds_of(mut answers: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((head, rest)) = answers.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((_, next)) = rest.split_at_checked(length) else { break };
        kinds.push(head[3]);
        answers = next;
    }
    kinds
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    local(async {
        let streams = (0..250_u32).map(|nth| frame(HEADERS, END_HEADERS, nth * 2 + 1, CONNECT));
        let all: Vec<u8> = streams.flatten().collect();
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[]), &all].concat();
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let server = spawn_local(serve(io));
        client.write_all(&opening).await.unwrap();
        client.write_all(&frame(PING, 0, 0, &[1; 8])).await.unwrap();
        let mut answers = Vec::new();
        while kinds_of(&answers).iter().filter(|kind| **kind == RESET).count() < 50 {
            assert!(client.read_buf(&mut answers).await.unwrap() > 0, "the connection ended");
        }
        drop(client);
        server.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_finishes_its_preface_is_given_up() {
    local(async {
        let (mut client, io) = tokio::io::duplex(1 << 10);
        let server = spawn_local(serve(io));
        let started = tokio::time::Instant::now();
        for byte in PREFACE.iter().take(20) {
            client.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            if server.is_finished() {
                break;
            }
        }
        assert!(matches!(server.await.unwrap(), Some(HboneError::HandshakeTimeout(_))));
        assert!(started.elapsed() <= Duration::from_secs(11));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_ends_is_given_up_like_a_silent_peer() {
    local(async {
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let server = spawn_local(serve(io));
        client.write_all(&opening()).await.unwrap();
        // A megabyte is announced and trickles in; no answer to a ping fits in between.
        client.write_all(&[0x0f, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]).await.unwrap();
        let started = tokio::time::Instant::now();
        while !server.is_finished() {
            let _ = client.write_all(&[0]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(matches!(server.await.unwrap(), Some(HboneError::PingTimeout(_))));
        assert!(started.elapsed() <= Duration::from_secs(32));
    })
    .await;
}

#[tokio::test]
async fn what_a_busy_client_sends_is_no_flood() {
    local(async {
        let pieces = (0..2_000_u32).map(|nth| {
            let id = nth * 2 + 3;
            // A stream of a few bytes, now and then a ping and an abort.
            let mut bytes = [frame(HEADERS, END_HEADERS, id, CONNECT), frame(DATA, 0, id, b"hello")].concat();
            bytes.extend(frame(DATA, 1, id, &[]));
            if nth % 10 == 0 {
                bytes.extend(frame(PING, 0, 0, &[0; 8]));
                bytes.extend(frame(RESET, 0, id, &[0, 0, 0, 8]));
            }
            bytes
        });
        let paced = pieces.collect::<Vec<_>>();
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let server = spawn_local(serve(io));
        client.write_all(&opening()).await.unwrap();
        let mut answers = Vec::new();
        for piece in paced.chunks(50) {
            client.write_all(&piece.concat()).await.unwrap();
            client.write_all(&frame(PING, 0, 0, &[9; 8])).await.unwrap();
            // Waits for that ping, as a client that has so many streams open must wait for some to end.
            let before = kinds_of(&answers).iter().filter(|kind| **kind == PING).count();
            while kinds_of(&answers).iter().filter(|kind| **kind == PING).count() <= before + 4 {
                assert!(client.read_buf(&mut answers).await.unwrap() > 0, "the connection ended");
            }
        }
        assert_eq!(go_away(&answers), None);
        drop(client);
        let ended = server.await.unwrap();
        assert!(!ended.as_ref().is_some_and(HboneError::is_misbehaviour), "{ended:?}");
    })
    .await;
}
