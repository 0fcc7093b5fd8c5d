//! A WebSocket server and client of others.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::frames::{Client, DATA, End, block, frame, headers};
use crate::isolate::isolated_test;
use crate::program::{python, python_there, script, serve, told};
use crate::raw::listen;
use crate::resources::Service;
use crate::world::{PORT, World};

const ECHO: Service = Service::http1("echo", 9300);

isolated_test! {
    with python_there();
    async fn waypoint_row_14_frames_of_every_size_flow_both_ways() {
        let script = script("websocket.py");
        let _server = serve(&python(), &[&script, "serve", &ECHO.target.to_string()], ECHO.target).await;
        let _world = World::one(ECHO).await;
        let said = told(&python(), &[&script, "talk", &PORT.to_string()]).await;
        assert_eq!(said, "text\nbinary\nfragments\nmany\nserver first\nclose 4001 over\nrefused 403\n");
    }
}

isolated_test! {
    async fn websocket_over_http_2_becomes_an_upgrade_and_early_bytes_wait() {
        let listener = TcpListener::bind(("127.0.0.1", ECHO.target)).await.unwrap();
        let _world = World::one(ECHO).await;
        let mut client = Client::open(PORT).await;
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "x"),
            (":path", "/up"),
            ("sec-websocket-version", "13"),
        ];
        client.send(&[headers(1, 0, &block(&fields)), frame(DATA, 0, 1, b"early")].concat()).await;
        let (mut app, _) = listener.accept().await.unwrap();
        let seen = listen(&mut app, Duration::from_secs(1)).await.text;
        let lower = seen.to_ascii_lowercase();
        assert!(seen.starts_with("GET /up HTTP/1.1\r\n") && seen.ends_with("\r\n\r\n"), "{seen}");
        assert!(lower.contains("upgrade: websocket\r\n") && lower.contains("sec-websocket-key: "), "{seen}");
        let key = seen.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("sec-websocket-key: ").map(str::len));
        assert_eq!(key, Some(24), "{seen}");
        let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
        app.write_all(accepted.as_bytes()).await.unwrap();
        assert_eq!(client.end(1).await, End::Status(200));
        assert_eq!(client.data(1, 5).await, b"hello");
        assert_eq!(listen(&mut app, Duration::from_secs(1)).await.text, "early");
    }
}
