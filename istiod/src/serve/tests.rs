//! The life of a connection: age, drain, and one that says nothing.

use axum::routing::get;
use mesh_core::drain::DrainSignal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

async fn start(http2: bool, max_age: Option<Duration>, patience: Option<Duration>) -> (SocketAddr, DrainSignal) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let known = async |Extension(peer): Extension<Arc<Peer>>| {
        peer.know();
        peer.addr().ip().to_string()
    };
    let server = HttpServer {
        name: "test",
        listener,
        tls: None,
        clients: None,
        plain_http2: http2,
        bounds: Bounds { patience, ..Bounds::default() },
        keepalive: (Duration::from_secs(30), Duration::from_secs(10)),
        max_age,
        router: Router::new().route("/", get(known)),
    };
    let (signal, drain) = mesh_core::drain::channel();
    tokio::spawn(server.run(drain));
    (addr, signal)
}

/// Opens a connection and says something, or nothing.
async fn open(addr: SocketAddr, said: &[u8]) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(said).await.unwrap();
    tcp
}

/// How long the other side keeps the connection open.
async fn life(mut tcp: TcpStream) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection does not end");
    started.elapsed()
}

/// An HTTP/2 client that does nothing; resolves when the connection has ended.
async fn idle_http2(addr: SocketAddr) -> impl Future<Output = Duration> {
    let tcp = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let client = hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(TokioExecutor::new(), tcp);
    let (mut requests, connection) = client.await.unwrap();
    let task = tokio::spawn(connection);
    requests.ready().await.unwrap();
    let request = http::Request::get("http://x/").body(axum::body::Body::empty()).unwrap();
    assert_eq!(requests.send_request(request).await.unwrap().status(), 200);
    let started = Instant::now();
    async move {
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("an end").unwrap().unwrap();
        drop(requests);
        started.elapsed()
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_age_give_or_take_a_tenth() {
    let (addr, _signal) = start(true, Some(Duration::from_millis(500)), None).await;
    let life = idle_http2(addr).await.await;
    assert!(life >= Duration::from_millis(300) && life < Duration::from_secs(5), "{life:?}");
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_the_server() {
    let (addr, signal) = start(true, None, None).await;
    let idle = idle_http2(addr).await;
    let (drained, life) = tokio::join!(signal.drain_within(Duration::from_secs(5)), idle);
    assert!(drained && life < Duration::from_secs(5), "{life:?}");
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stranger_is_closed_and_one_that_somebody_vouched_for_is_not() {
    let (addr, _signal) = start(false, None, Some(Duration::from_millis(300))).await;
    assert!(life(open(addr, b"").await).await < Duration::from_secs(5));
    let mut known = open(addr, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = vec![0; 1024];
    let read = known.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).ends_with("127.0.0.1"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    known.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(known.read(&mut answer).await.unwrap() > 0, "still open");
}

/// Tells when it is dropped.
struct Held(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (held, ended) = tokio::sync::oneshot::channel();
    let held = Arc::new(std::sync::Mutex::new(Some(Held(Some(held)))));
    let endless = async move || {
        let held = held.lock().unwrap().take();
        let piece = move |_| {
            let _held = &held;
            Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(&[b'x'; 65_536]))
        };
        axum::body::Body::from_stream(futures::StreamExt::map(futures::stream::repeat(()), piece))
    };
    let open = HttpServer::open("test", listener, Router::new().route("/", get(endless)));
    let server = HttpServer { keepalive: (Duration::from_millis(300), Duration::from_millis(300)), ..open };
    let (_signal, drain) = mesh_core::drain::channel();
    tokio::spawn(server.run(drain));
    let _silent = self::open(addr, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the answer is given up").unwrap();
}

/// A connection from one of the addresses of this machine.
async fn from(source: [u8; 4], to: SocketAddr, said: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let mut tcp = socket.connect(to).await.unwrap();
    tcp.write_all(said).await.unwrap();
    tcp
}

#[tokio::test]
async fn whoever_keeps_an_open_port_busy_the_probe_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let long = bytes::Bytes::from(vec![b'x'; 16 << 20]);
    let router = Router::new().route("/ready", get(async || "ready")).route("/long", get(async move || long));
    let (_signal, drain) = mesh_core::drain::channel();
    tokio::spawn(HttpServer::open("test", listener, router).run(drain));
    let probe = async |source: [u8; 4], open: usize| {
        let answered = async {
            let mut tcp = from(source, addr, b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(Duration::from_secs(5), answered).await.expect("an answer in time");
        assert!(answer.ends_with("ready"), "{answer} from {source:?} with {open} connections open");
    };
    let mut hostile = Vec::new();
    // More than there are places, of more addresses than fit; they ask for much and take nothing of it.
    for last in 2..14 {
        for _ in 0..30 {
            hostile.push(from([127, 0, 0, last], addr, b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n").await);
        }
        probe([127, 0, 0, 1], hostile.len()).await;
    }
    // An address with more than its share still gets an answer to its last question.
    for _ in 0..40 {
        hostile.push(from([127, 0, 0, 1], addr, b"").await);
    }
    probe([127, 0, 0, 1], hostile.len()).await;
}
