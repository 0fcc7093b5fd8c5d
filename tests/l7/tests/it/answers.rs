//! Upstreams that answer as they should not: the wrong bytes never become the answer to somebody else's request.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::isolate::isolated_test;
use crate::program::run;
use crate::raw::{self, listen, talk};
use crate::resources::Service;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);

/// A server that answers whatever comes: HEAD, and paths that begin with a digit, with `odd`; all else properly.
async fn server(odd: &'static str) {
    let listener = TcpListener::bind(("127.0.0.1", APP.target)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, odd));
        }
    });
}

async fn answer(mut stream: TcpStream, odd: &'static str) {
    let mut seen = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut seen).await {
        let said = String::from_utf8_lossy(&seen[..read]);
        let strange = said.starts_with("HEAD") || said.contains(" /0");
        let text = if strange { odd } else { "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine" };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Asks so that the odd answer comes, then others ask on the connections that are there.
async fn poisons_nobody(odd: &'static str, request: &str) {
    server(odd).await;
    let _world = World::one(APP).await;
    for _ in 0..10 {
        let answer = talk(PORT, format!("{request}host: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(!answer.text.contains("poison"), "{answer:?}");
        for _ in 0..3 {
            let answer = raw::get(PORT, "/1").await;
            assert!(answer.status == Some(200) && answer.text.ends_with("fine"), "{answer:?}");
        }
    }
}

isolated_test! {
    async fn a_body_after_head_is_nobodys() {
        poisons_nobody("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", "HEAD /0 HTTP/1.1\r\n").await;
    }
}

isolated_test! {
    async fn an_answer_after_head_is_nobodys() {
        let odd = "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        poisons_nobody(odd, "HEAD /0 HTTP/1.1\r\n").await;
    }
}

isolated_test! {
    async fn a_body_after_204_is_nobodys() {
        poisons_nobody("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", "GET /0 HTTP/1.1\r\n").await;
    }
}

isolated_test! {
    async fn a_body_after_304_is_nobodys() {
        let odd = "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\npoison";
        poisons_nobody(odd, "GET /0 HTTP/1.1\r\n").await;
    }
}

isolated_test! {
    async fn what_follows_the_last_chunk_is_nobodys() {
        let odd = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        poisons_nobody(odd, "GET /0 HTTP/1.1\r\n").await;
    }
}

isolated_test! {
    async fn a_switch_that_nobody_asked_for_is_an_error() {
        server("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw").await;
        let _world = World::one(APP).await;
        let answer = raw::get(PORT, "/0").await;
        assert!(matches!(answer.status, Some(502 | 503)) && !answer.text.contains("raw"), "{answer:?}");
    }
}

isolated_test! {
    async fn of_several_100_one_is_relayed_at_most() {
        let again = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                     HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
        server(again).await;
        let _world = World::one(APP).await;
        let answer = talk(PORT, b"GET /0 HTTP/1.1\r\nhost: x\r\naccept: text/html\r\nconnection: close\r\n\r\n").await;
        assert!(answer.status == Some(200) && answer.text.ends_with("done"), "{answer:?}");
        assert!(answer.text.matches("HTTP/1.1 100").count() <= 1, "{answer:?}");
        assert_eq!(answer.text.matches("HTTP/1.1 103").count(), 1, "{answer:?}");
    }
}

isolated_test! {
    async fn a_body_that_the_upstream_does_not_want_is_not_asked_for() {
        server("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n").await;
        let _world = World::one(APP).await;
        let mut client = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
        let head = "POST /0 HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = listen(&mut client, Duration::from_secs(3)).await;
        assert!(answer.status == Some(417) && !answer.text.contains("100 Continue"), "{answer:?}");
        // Whatever is sent now is a body or nothing; it is no request.
        let _ = client.write_all(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let more = listen(&mut client, Duration::from_secs(1)).await;
        assert_eq!(more.responses(), 0, "{more:?}");
        for _ in 0..5 {
            assert!(raw::get(PORT, "/1").await.text.ends_with("fine"));
        }
    }
}

isolated_test! {
    async fn a_body_that_ends_early_is_not_taken_for_all() {
        server("HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf").await;
        let _world = World::one(APP).await;
        let ended = run("curl", &["-sS", "--max-time", "2", &format!("http://127.0.0.1:{PORT}/0")]).await;
        assert!(!ended.ok && !ended.stderr.is_empty(), "{ended:?}");
    }
}
