//! What comes after a request that wants to become something else.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::isolate::isolated_test;
use crate::raw::{self, listen, talk};
use crate::recorder::Recorder;
use crate::resources::Service;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
const WEBSOCKET: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

isolated_test! {
    async fn nothing_follows_a_refused_upgrade_or_connect() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let upgrade = |to: &str| format!("GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {to}\r\n\r\n{SMUGGLED}");
        for other in ["foo", "TLS/1.0", "websocket, foo"] {
            let answer = talk(PORT, upgrade(other).as_bytes()).await;
            assert!(answer.status == Some(403) && answer.closed && answer.responses() == 1, "{other}: {answer:?}");
        }
        for target in ["x:80", "127.0.0.1:9000", "169.254.169.254:80", "x"] {
            let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n{SMUGGLED}");
            let answer = talk(PORT, request.as_bytes()).await;
            assert!(matches!(answer.status, Some(400 | 404)), "{target}: {answer:?}");
            assert!(answer.closed && answer.responses() == 1, "{target}: {answer:?}");
        }
        assert!(app.heads().is_empty(), "{:?}", app.heads());
    }
}

isolated_test! {
    async fn an_offer_of_http_2_is_passed_over() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let request = "GET /x HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\n\
                       http2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
        let answer = talk(PORT, request.as_bytes()).await;
        assert_eq!(answer.status, Some(200), "{answer:?}");
        let head = app.heads().concat();
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    }
}

isolated_test! {
    async fn bytes_before_an_upgrade_is_accepted_never_become_a_request() {
        // This one says no to every upgrade, and would take what follows for a request.
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let request = format!("GET /no-upgrade HTTP/1.1\r\nhost: x\r\n{WEBSOCKET}\r\n{SMUGGLED}");
        let answer = talk(PORT, request.as_bytes()).await;
        assert!(answer.status == Some(200) && answer.closed && answer.responses() == 1, "{answer:?}");
        assert_eq!(app.targets(), ["/no-upgrade"]);
        assert!(!app.all().contains("smuggled"), "{}", app.all());
    }
}

isolated_test! {
    async fn bytes_before_an_upgrade_is_accepted_wait_for_it() {
        let listener = TcpListener::bind(("127.0.0.1", APP.target)).await.unwrap();
        let _world = World::one(APP).await;
        let mut client = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
        let request = format!("GET /up HTTP/1.1\r\nhost: x\r\n{WEBSOCKET}\r\nearly");
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut app, _) = listener.accept().await.unwrap();
        let seen = listen(&mut app, Duration::from_secs(1)).await.text;
        assert!(seen.ends_with("\r\n\r\n") && !seen.contains("early"), "{seen}");
        let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
        app.write_all(accepted.as_bytes()).await.unwrap();
        let mut five = [0; 5];
        app.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"early");
        let answer = listen(&mut client, Duration::from_secs(1)).await;
        assert!(answer.status == Some(101) && answer.text.ends_with("\r\n\r\nhello"), "{answer:?}");
        drop(app);
        assert!(listen(&mut client, Duration::from_secs(5)).await.closed, "the end goes through");
    }
}

isolated_test! {
    async fn an_answer_without_being_asked_is_nobodys() {
        // One that answers twice: the second answer must not go to the next client.
        let listener = TcpListener::bind(("127.0.0.1", APP.target)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut seen = [0; 4096];
                    while stream.read(&mut seen).await.is_ok_and(|read| read > 0) {
                        let one = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                        let two = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
                        if stream.write_all(format!("{one}{two}").as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let _world = World::one(APP).await;
        for _ in 0..20 {
            let answer = raw::get(PORT, "/x").await;
            assert!(answer.text.ends_with("hello") && !answer.text.contains("poison"), "{answer:?}");
        }
    }
}
