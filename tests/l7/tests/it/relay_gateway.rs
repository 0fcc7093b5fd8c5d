//! A gateway is no open relay either: a host, a server name or bytes that no listener is for lead nowhere.

use mesh_identity::testing::{IssueOptions, TestCa, pem};
use mesh_wire::l7::{self, Protocol, server_tls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frames::{Client, END_STREAM, End, block, headers, request};
use crate::isolate::isolated_test;
use crate::program::{run, told};
use crate::raw::talk;
use crate::recorder::Recorder;
use crate::resources::{self, Service};
use crate::world::World;

const A: Service = Service::http1("a", 9000);
const B: Service = Service::http1("b", 9001);
/// Nobody's service; something that listens on the proxy's own machine.
const TRAP: u16 = 9002;
const A_PORT: u16 = 8080;
const B_PORT: u16 = 8081;

/// Hosts that `a.example` is not.
const OTHERS: [&str; 14] = [
    "b.example",
    "b.example:8081",
    "xa.example",
    "sub.a.example",
    "a.example.evil.org",
    "a.example..",
    "b.shop.svc.cluster.local",
    "a.shop.svc.cluster.local",
    "127.0.0.1:9001",
    "127.0.0.1:9002",
    "127.0.0.1:15000",
    "localhost:15000",
    "[::1]:9002",
    "169.254.169.254",
];

/// Ways to ask for `host` over HTTP/1.
fn ways(host: &str) -> Vec<String> {
    let end = "connection: close\r\n\r\n";
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    vec![
        format!("GET /x HTTP/1.1\r\nhost: {host}\r\n{end}"),
        format!("GET /x HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: a.example\r\n{end}"),
        format!("GET http://{host}/x HTTP/1.1\r\nhost: {host}\r\n{end}"),
        format!("GET http://{host}/x HTTP/1.1\r\nhost: a.example\r\n{end}"),
        format!("GET https://{host}/x HTTP/1.1\r\nhost: a.example\r\n{end}"),
        format!("GET /x HTTP/1.1\r\nhost: {host}\r\n{upgrade}"),
        format!("GET http://{host}/x HTTP/1.1\r\nhost: a.example\r\n{upgrade}"),
        format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\nGET /x HTTP/1.1\r\nhost: {host}\r\n{end}"),
        format!("CONNECT {host} HTTP/1.1\r\nhost: a.example\r\n\r\nGET /x HTTP/1.1\r\nhost: {host}\r\n{end}"),
    ]
}

/// The same over HTTP/2.
fn ways_http2(host: &str) -> Vec<Vec<u8>> {
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/x")];
    let websocket = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", host),
        (":path", "/x"),
        ("sec-websocket-version", "13"),
    ];
    vec![
        request(1, &get),
        request(1, &[&get[..], &[("x-forwarded-host", "a.example")]].concat()),
        headers(1, 0, &block(&websocket)),
        headers(1, 0, &block(&[(":method", "CONNECT"), (":authority", host)])),
    ]
}

isolated_test! {
    async fn a_host_that_a_listener_is_not_for_is_not_found() {
        let (a, b) = (Recorder::start(A.target).await, Recorder::start(B.target).await);
        let trap = Recorder::start(TRAP).await;
        let listeners = [
            resources::listener_for("a.example", A_PORT, Protocol::Http, A),
            resources::listener_for("b.example", B_PORT, Protocol::Http, B),
        ];
        let _world = World::gateway(l7::Settings::default(), &listeners, &[A, B]).await;
        let mut faults = Vec::new();
        for host in OTHERS {
            for way in ways(host) {
                let answer = talk(A_PORT, way.as_bytes()).await;
                if !matches!(answer.status, Some(400 | 404)) || answer.responses() > 1 {
                    faults.push(format!("{way:?}: {answer:?}"));
                }
            }
            for way in ways_http2(host) {
                let mut client = Client::open(A_PORT).await;
                client.send(&way).await;
                let end = client.end(1).await;
                if !matches!(end, End::Status(400 | 404) | End::Reset(1..)) {
                    faults.push(format!("{host}, HTTP/2: {end:?}"));
                }
            }
        }
        let reached = [&a, &b, &trap].map(Recorder::all).concat();
        assert!(faults.is_empty() && reached.is_empty(), "{}\nreached: {reached}", faults.join("\n"));
        for host in ["a.example", "A.Example", "a.example:80", "a.example:8081", "a.example."] {
            let answer = talk(A_PORT, ways(host)[0].as_bytes()).await;
            assert_eq!(answer.status, Some(200), "{host}: {answer:?}");
        }
        assert_eq!((a.targets().len(), b.targets().len()), (5, 0));
    }
}

isolated_test! {
    async fn a_listener_for_every_host_sends_to_its_backend_and_nowhere_else() {
        let (a, b) = (Recorder::start(A.target).await, Recorder::start(B.target).await);
        let trap = Recorder::start(TRAP).await;
        let all = resources::listener_for("", A_PORT, Protocol::Http, A);
        let _world = World::gateway(l7::Settings::default(), &[all], &[A, B]).await;
        for host in OTHERS {
            for way in ways(host) {
                let answer = talk(A_PORT, way.as_bytes()).await;
                // The recorder refuses no request; CONNECT, two dots and what is no upgrade do not get that far.
                assert!(matches!(answer.status, Some(200 | 400 | 404)), "{way:?}: {answer:?}");
            }
        }
        assert!(a.targets().len() > 5 * OTHERS.len() && a.targets().iter().all(|target| target == "/x"));
        assert!(a.heads().iter().all(|head| !head.starts_with("CONNECT")), "{:?}", a.heads());
        assert_eq!(b.all() + &trap.all(), "");
    }
}

fn certificate(ca: &TestCa, name: &str) -> l7::KeyPair {
    let options = IssueOptions { uris: vec![], dns_names: vec![name.into()], ..IssueOptions::default() };
    let issued = ca.issue_with(&options);
    l7::KeyPair { chain: pem(issued.leaf()).into_bytes(), key: issued.key_pem().into_bytes() }
}

isolated_test! {
    async fn a_server_name_that_no_listener_is_for_gets_no_handshake() {
        let (a, b) = (Recorder::start(A.target).await, Recorder::start(B.target).await);
        let ca = TestCa::new();
        let dir = tempfile::tempdir().unwrap();
        let roots = dir.path().join("roots.pem");
        std::fs::write(&roots, ca.root_pem()).unwrap();
        let terminate =
            |name: &str| l7::ServerTls { certificates: vec![certificate(&ca, name)], ..l7::ServerTls::default() };
        let passthrough = l7::ServerTls { mode: server_tls::Mode::Passthrough.into(), ..l7::ServerTls::default() };
        let https = resources::listener_for("a.example", 8443, Protocol::Https, A);
        let bytes = resources::listener_for("bytes.example", 8443, Protocol::Tls, B);
        let through = resources::listener_for("through.example", 8444, Protocol::Tls, B);
        let listeners = [
            l7::Listener { tls: Some(terminate("a.example")), ..https },
            l7::Listener { tls: Some(terminate("bytes.example")), ..bytes },
            l7::Listener { tls: Some(passthrough), ..through },
        ];
        let world = World::gateway(l7::Settings::default(), &listeners, &[A, B]).await;
        let curl = async |host: &str, port: u16, more: &[&str]| {
            let resolve = format!("{host}:{port}:127.0.0.1");
            let url = format!("https://{host}:{port}/x");
            let fixed =
                ["-sS", "--max-time", "10", "--cacert", roots.to_str().unwrap(), "--resolve", &resolve, "-w", "%{http_code} %{http_version}"];
            run("curl", &[&fixed[..], more, &[url.as_str()]].concat()).await
        };
        for version in ["--http1.1", "--http2"] {
            let served = curl("a.example", 8443, &[version, "-o", "/dev/null"]).await;
            let expected = if version == "--http2" { "200 2" } else { "200 1.1" };
            assert!(served.ok && served.stdout == expected, "{served:?}");
            for host in ["b.example", "a.shop.svc.cluster.local", "sub.a.example"] {
                let refused = curl(host, 8443, &["-k", version]).await;
                assert!(!refused.ok && refused.stdout == "000 0", "{host}: {refused:?}");
                let header = format!("host: {host}");
                let answer = curl("a.example", 8443, &[version, "-o", "/dev/null", "-H", &header]).await;
                assert!(answer.stdout.starts_with("404 ") || answer.stdout.starts_with("421 "), "{host}: {answer:?}");
            }
        }
        let before = a.targets().len();
        // A client that names no server at all, and one that does not speak TLS.
        let nameless = told("sh", &["-c", "curl -sSk --max-time 10 https://127.0.0.1:8443/x 2>&1 || true"]).await;
        assert!(nameless.contains("curl: ("), "{nameless}");
        for port in [8443, 8444] {
            let answer = talk(port, b"GET /x HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
            assert!(answer.status.is_none() && answer.closed, "{port}: {answer:?}");
        }
        assert_eq!((a.targets().len(), b.all()), (before, String::new()));
        // What is passed through gets there whole, and only by its name.
        for host in ["other.example", "b.shop.svc.cluster.local"] {
            let refused = curl(host, 8444, &["-k"]).await;
            assert!(!refused.ok && b.all().is_empty(), "{host}: {refused:?}");
        }
        curl("through.example", 8444, &["-k", "--max-time", "1"]).await;
        world.eventually("the hello is passed through", async || b.all().contains("through.example")).await;
        // Bytes after a handshake are bytes: whatever they say, they go to their backend.
        let served = curl("bytes.example", 8443, &["--http1.1", "-o", "/dev/null", "-H", "host: 127.0.0.1:9000"]).await;
        assert_eq!(served.stdout, "200 1.1");
        assert_eq!((a.targets().len(), b.targets()), (before, vec!["/x".to_owned()]));
    }
}

isolated_test! {
    async fn bytes_of_a_listener_for_bytes_go_to_its_backend_whatever_they_say() {
        let (a, b) = (Recorder::start(A.target).await, Recorder::start(B.target).await);
        let bytes = resources::listener_for("", A_PORT, Protocol::Tcp, A);
        let world = World::gateway(l7::Settings::default(), &[bytes], &[A, B]).await;
        let sayings = [
            "CONNECT 127.0.0.1:9001 HTTP/1.1\r\nhost: 127.0.0.1:9001\r\n\r\n",
            "GET http://127.0.0.1:9001/x HTTP/1.1\r\nhost: b.example\r\n\r\n",
            "PROXY TCP4 127.0.0.1 127.0.0.1 4000 9001\r\n\r\n",
        ];
        for (number, saying) in sayings.iter().enumerate() {
            let mut client = TcpStream::connect(("127.0.0.1", A_PORT)).await.unwrap();
            client.write_all(saying.as_bytes()).await.unwrap();
            world.eventually("it got there", async || a.heads().len() > number).await;
        }
        assert_eq!(a.heads(), sayings);
        assert_eq!(b.all(), "");
    }
}

isolated_test! {
    async fn one_connection_may_not_speak_for_the_host_of_another_listener() {
        let (a, b) = (Recorder::start(A.target).await, Recorder::start(B.target).await);
        let listeners = [
            resources::listener_for("a.example", A_PORT, Protocol::Http, A),
            resources::listener_for("b.example", B_PORT, Protocol::Http, B),
        ];
        let _world = World::gateway(l7::Settings::default(), &listeners, &[A, B]).await;
        let get = |host| [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/x")];
        let mut client = Client::open(A_PORT).await;
        client.send(&request(1, &get("a.example"))).await;
        assert_eq!(client.end(1).await, End::Status(200));
        client.send(&request(3, &get("b.example"))).await;
        assert_eq!(client.end(3).await, End::Status(404));
        client.send(&headers(5, END_STREAM, &block(&get("a.example")))).await;
        assert_eq!(client.end(5).await, End::Status(200));
        let pipelined = "GET /x HTTP/1.1\r\nhost: a.example\r\n\r\nGET /x HTTP/1.1\r\nhost: b.example\r\nconnection: close\r\n\r\n";
        let answer = talk(A_PORT, pipelined.as_bytes()).await;
        assert!(answer.status == Some(200) && answer.text.contains("HTTP/1.1 404 "), "{answer:?}");
        assert_eq!((a.targets().len(), b.all()), (3, String::new()));
    }
}
