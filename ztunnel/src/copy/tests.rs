//! The relay between real sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A connected pair: the application's end and the relay's.
async fn pair() -> (TcpStream, TcpSide) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, TcpSide::new(far))
}

#[derive(Default)]
struct Counted(std::sync::atomic::AtomicU64, std::sync::atomic::AtomicU64);

impl Meter for Counted {
    fn moved(&self, to_server: u64, to_client: u64) {
        self.0.fetch_add(to_server, std::sync::atomic::Ordering::SeqCst);
        self.1.fetch_add(to_client, std::sync::atomic::Ordering::SeqCst);
    }
}

/// An application on each side of a running relay; the task yields what was counted.
async fn relayed() -> (TcpStream, TcpStream, tokio::task::JoinHandle<(io::Result<()>, u64, u64)>) {
    let ((client, client_side), (server, server_side)) = (pair().await, pair().await);
    let task = tokio::spawn(async move {
        let mut relay = Relay::new(client_side, server_side);
        let counted = Counted::default();
        let ended = relay.run(&counted).await;
        (ended, counted.0.into_inner(), counted.1.into_inner())
    });
    (client, server, task)
}

#[tokio::test]
async fn each_direction_closes_by_itself() {
    let (mut client, mut server, relay) = relayed().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    server.write_all(b"long answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "long answer");
    let (ended, up, down) = relay.await.unwrap();
    ended.unwrap();
    assert_eq!((up, down), (8, 11));
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back_and_loses_nothing() {
    let (mut client, mut server, relay) = relayed().await;
    let total = 32 << 20;
    let writer = tokio::spawn(async move {
        let block: Vec<u8> = (0..64 << 10).map(|n| (n % 253) as u8).collect();
        for _ in 0..total / block.len() {
            client.write_all(&block).await.unwrap();
        }
        client.shutdown().await.unwrap();
        client
    });
    let mut received = 0;
    let mut block = vec![0; 64 << 10];
    loop {
        let count = server.read(&mut block).await.unwrap();
        if count == 0 {
            break;
        }
        for (offset, byte) in block[..count].iter().enumerate() {
            assert_eq!(usize::from(*byte), ((received + offset) % (64 << 10)) % 253);
        }
        received += count;
    }
    assert_eq!(received, total);
    drop(server);
    writer.await.unwrap();
    relay.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn a_reset_on_either_side_ends_the_connection_without_an_error() {
    for reset_by_client in [true, false] {
        let (client, server, relay) = relayed().await;
        let (gone, mut stays) = if reset_by_client { (client, server) } else { (server, client) };
        gone.set_zero_linger().unwrap();
        drop(gone);
        // The other end does nothing at all, and still the connection ends.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), relay).await;
        ended.expect("the relay waits for an end that is gone").unwrap().0.unwrap();
        assert_eq!(stays.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn what_came_before_a_reset_is_still_delivered() {
    let ((mut client, client_side), (mut server, server_side)) = (pair().await, pair().await);
    server.write_all(b"413 too large").await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    let mut relay = Relay::new(client_side, server_side);
    relay.run(&Counted::default()).await.unwrap();
    drop(relay);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "413 too large");
}

#[tokio::test]
async fn reads_grow_with_traffic_and_an_idle_side_holds_no_buffer() {
    let (mut client, mut side) = pair().await;
    let sender = tokio::spawn(async move {
        client.write_all(&vec![1; 8 << 20]).await.unwrap();
        client
    });
    let mut received = 0;
    while received < 8 << 20 {
        received += poll_fn(|cx| side.poll_read(cx)).await.unwrap().unwrap().len();
    }
    let _client = sender.await.unwrap();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(side.poll_read(&mut cx).is_pending());
    assert_eq!(side.buffer.capacity(), 0);
}

#[test]
fn an_idle_relay_is_small() {
    assert!(
        size_of::<Relay<TcpSide, mesh_hbone::H2Stream>>() <= 512,
        "{}",
        size_of::<Relay<TcpSide, mesh_hbone::H2Stream>>()
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_does_not_outlive_its_peer_for_the_sake_of_a_deaf_one() {
    let ((client, client_side), (server, server_side)) = (pair().await, pair().await);
    // More than socket buffers and the relay hold.
    let flood = tokio::spawn(async move {
        let mut client = client;
        while tokio::time::timeout(std::time::Duration::from_millis(100), client.write_all(&[7; 65_536])).await.is_ok()
        {
        }
        // A reset, which the relay finds out when it writes.
        client.set_zero_linger().unwrap();
    });
    let mut relay = Relay::new(client_side, server_side);
    let counted = Counted::default();
    let mut server = server;
    let speaks = async {
        flood.await.unwrap();
        // The application goes on speaking, but never listens.
        while server.write_all(b"hello").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        _ = relay.run(&counted) => {}
        () = speaks => {}
        () = tokio::time::sleep(std::time::Duration::from_secs(60)) => panic!("the relay goes on for ever"),
    }
}

/// A connected pair of which little fits in between.
async fn narrow_pair() -> (TcpStream, TcpSide) {
    let listening = tokio::net::TcpSocket::new_v4().unwrap();
    listening.set_send_buffer_size(4 << 10).unwrap();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let near = tokio::net::TcpSocket::new_v4().unwrap();
    near.set_recv_buffer_size(4 << 10).unwrap();
    let near = near.connect(listener.local_addr().unwrap()).await.unwrap();
    (near, TcpSide::new(listener.accept().await.unwrap().0))
}

/// Serves a tunnel: each request goes to the next of `targets`.
async fn serve(io: tokio::io::DuplexStream, mut targets: Vec<TcpSide>) {
    let settings = mesh_hbone::Settings::default();
    let mut tunnel = mesh_hbone::ServerConnection::handshake(io, &settings).await.unwrap();
    while let Some(request) = tunnel.next().await {
        let stream = request.expect("the tunnel lives").accept(None).unwrap();
        let target = targets.remove(0);
        drop(tokio::spawn(async move { Relay::new(stream, target).run(&Counted::default()).await }));
    }
}

#[tokio::test]
async fn an_application_that_does_not_read_small_frames_costs_its_neighbours_on_the_tunnel_nothing() {
    let ((mut deaf, deaf_side), (mut lively, lively_side)) = (narrow_pair().await, narrow_pair().await);
    let (near, far) = tokio::io::duplex(1 << 20);
    let serving = tokio::spawn(serve(far, vec![deaf_side, lively_side]));
    let (send, connection) = h2::client::handshake(near).await.unwrap();
    let driving = tokio::spawn(connection);
    let open = async || {
        let request = http::Request::builder().method("CONNECT").uri("10.0.0.1:80").body(()).unwrap();
        let (response, stream) = send.clone().ready().await.unwrap().send_request(request, false).unwrap();
        assert_eq!(response.await.expect("the tunnel lives").status(), 200);
        stream
    };
    let mut small = open().await;
    let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    for byte in &sent {
        small.send_data(bytes::Bytes::copy_from_slice(&[*byte]), false).unwrap();
    }
    small.send_data(bytes::Bytes::new(), true).unwrap();
    // Whatever was sent before is there when this has been answered.
    let mut neighbour = open().await;
    neighbour.send_data("hello".into(), true).unwrap();
    let mut greeting = String::new();
    lively.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "hello");
    let mut received = Vec::new();
    deaf.read_to_end(&mut received).await.unwrap();
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    serving.abort();
    driving.abort();
}

#[tokio::test]
async fn an_end_that_comes_while_the_application_does_not_read_is_passed_on_after_all_else() {
    let (mut slow, slow_side) = narrow_pair().await;
    let (near, far) = tokio::io::duplex(1 << 20);
    let serving = tokio::spawn(serve(far, vec![slow_side]));
    let (mut send, connection) = h2::client::handshake(near).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = http::Request::builder().method("CONNECT").uri("10.0.0.1:80").body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    for _ in 0..20 {
        stream.send_data(bytes::Bytes::from_static(&[7; 16 << 10]), false).unwrap();
    }
    stream.send_data(bytes::Bytes::new(), false).unwrap();
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    // By now nothing more fits anywhere.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let mut received = Vec::new();
    let all = tokio::time::timeout(std::time::Duration::from_secs(10), slow.read_to_end(&mut received));
    all.await.expect("the end never comes").unwrap();
    assert_eq!(received.len(), 20 * (16 << 10));
    serving.abort();
    driving.abort();
}

#[test]
fn small_pieces_become_one_and_large_ones_stay_what_they_are() {
    use bytes::Bytes;
    let lengths = |sent: &[usize]| {
        let mut pending = std::collections::VecDeque::new();
        let whole = Bytes::from((0..sent.iter().sum::<usize>()).map(|n| n as u8).collect::<Vec<_>>());
        let mut rest = whole.clone();
        for length in sent {
            side::push(&mut pending, rest.split_to(*length));
        }
        assert_eq!(pending.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>(), whole);
        pending.iter().map(Bytes::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&[1]), [1]);
    assert_eq!(lengths(&[1, 2, 3]), [6]);
    assert_eq!(lengths(&[1000, 1, 2, 1000, 3]), [1000, 3, 1000, 3]);
    assert_eq!(lengths(&[1, 1000]), [1, 1000]);
    assert_eq!(lengths(&[255; 66]), [16_320, 510]);
}
