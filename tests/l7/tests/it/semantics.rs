//! curl as the client: what a user of HTTP notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::isolate::isolated_test;
use crate::program::{run, script, told};
use crate::raw::{self, Answer, listen, talk};
use crate::recorder::Recorder;
use crate::resources::Service;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);
const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

fn url(path: &str) -> String {
    format!("http://127.0.0.1:{PORT}{path}")
}

isolated_test! {
    async fn curl_gets_heads_bodies_and_statuses_without_bodies() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        for version in VERSIONS {
            let curl = async |arguments: &[&str]| {
                told("curl", &[&["-sS", "--max-time", "10", version], arguments].concat()).await
            };
            assert!(curl(&[&url("/x?y=z")]).await.starts_with("GET /x?y=z HTTP/1.1\r\n"));
            let head = curl(&["-I", &url("/x")]).await;
            assert!(head.contains(" 200") && head.contains("content-length: "), "{head}");
            for status in ["204", "304", "404", "500", "418"] {
                let said = curl(&["-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url(&format!("/status/{status}"))]).await;
                assert_eq!(said, format!("{status} 0"));
            }
            assert!(!curl(&["-i", &url("/status/204")]).await.contains("content-length"));
            let posted = curl(&["-d", "hello", &url("/post")]).await;
            assert!(posted.contains("POST /post") && posted.contains("content-length: 5\r\n") && posted.contains("body: 5\n"), "{posted}");
            for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
                assert!(curl(&["-X", method, "-d", "hello", &url("/m")]).await.contains("body: 5\n"));
            }
            let file = script("websocket.py");
            let length = std::fs::metadata(&file).unwrap().len();
            // Of a length that is not told before.
            let chunked = curl(&["-H", "transfer-encoding: chunked", "-T", &file, &url("/up")]).await;
            assert!(chunked.contains("PUT /up") && chunked.contains(&format!("body: {length}\n")), "{chunked}");
        }
        assert!(app.heads().iter().all(|head| head.contains(" HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n") || head.contains("\r\nhost: 127.0.0.1:8080\r\n")));
    }
}

isolated_test! {
    async fn answers_without_bodies_leave_the_connection_as_it_was() {
        let _app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let urls = ["/status/204", "/a", "/status/304", "/b"].map(url);
        let urls = urls.each_ref().map(String::as_str);
        let said = told("curl", &[&["-sS", "--max-time", "10", "--http1.1", "-w", "%{num_connects} "], &urls[..]].concat()).await;
        assert!(said.starts_with("1 GET /a ") && said.contains("0 0 GET /b ") && said.ends_with("0 "), "{said}");
        // The curl of Debian 12 gives up on its second request over HTTP/2, whoever serves it.
        let said = told("nghttp", &[&["-s", "-n", "-m", "2"], &urls[..]].concat()).await;
        for (status, path) in [("204", "/status/204"), ("200", "/a"), ("304", "/status/304"), ("200", "/b")] {
            assert!(said.lines().any(|line| line.contains(&format!(" {status} ")) && line.ends_with(path)), "{said}");
        }
    }
}

isolated_test! {
    async fn curl_is_told_to_continue_by_the_upstream_and_hints_are_relayed() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let ended = run("curl", &["-sSv", "--http1.1", "--max-time", "10", "-H", "expect: 100-continue", "-d", "hello", &url("/x")]).await;
        assert!(ended.ok && ended.stderr.matches("HTTP/1.1 100 Continue").count() == 1, "{ended:?}");
        assert!(ended.stdout.contains("body: 5\n"), "{ended:?}");
        assert!(app.heads()[0].to_ascii_lowercase().contains("expect: 100-continue"), "{:?}", app.heads());
        // Hints are for browsers, and not passed on over HTTP/2: the answer alone is what others get.
        for (version, hinted) in [("--http1.1", true), ("--http2-prior-knowledge", false)] {
            let ended = run("curl", &["-sSv", version, "--max-time", "10", "-H", "accept: text/html", &url("/hints")]).await;
            assert!(ended.ok && ended.stdout == "hello", "{ended:?}");
            assert_eq!(ended.stderr.contains("< HTTP/1.1 103") && ended.stderr.contains("< link: "), hinted, "{ended:?}");
        }
    }
}

isolated_test! {
    async fn trailers_are_relayed() {
        let _app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let request = "GET /trailers HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close, te\r\n\r\n";
        let answer = talk(PORT, request.as_bytes()).await;
        assert!(answer.text.ends_with("5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer:?}");
        let said = told("nghttp", &["-v", &url("/trailers")]).await;
        assert!(said.contains("x-sum: 42") && said.contains("hello"), "{said}");
    }
}

isolated_test! {
    async fn trailers_of_requests_are_relayed() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "hello").unwrap();
        let file = path.to_str().unwrap();
        let said = told("nghttp", &["-v", "--no-content-length", "-d", file, "--trailer", "x-sum: 42", &url("/post")]).await;
        assert!(said.contains(":status: 200") && said.contains("body: 5"), "{said}");
        assert!(app.all().contains("x-sum: 42\r\n"), "{}", app.all());
    }
}

isolated_test! {
    async fn requests_in_a_row_are_answered_in_a_row() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let one = |number: u32| match number % 3 {
            0 => format!("GET /n{number} HTTP/1.1\r\nhost: x\r\n\r\n"),
            1 => format!("POST /n{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"),
            _ => format!("POST /n{number} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        };
        let requests: String = (0..30).map(one).collect();
        let last = "GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = talk(PORT, format!("{requests}{last}").as_bytes()).await;
        assert!(answer.closed && answer.responses() >= 31, "{answer:?}");
        let expected: Vec<_> = (0..30).map(|number| format!("/n{number}")).chain(["/last".to_owned()]).collect();
        assert_eq!(app.targets(), expected);
    }
}

isolated_test! {
    async fn a_slow_server_is_heard_as_it_speaks() {
        let _app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let mut client = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
        client.write_all(b"GET /drip/10 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut first = Vec::new();
        while !first.windows(4).any(|window| window == b"drip") {
            assert!(client.read_buf(&mut first).await.unwrap() > 0, "{}", String::from_utf8_lossy(&first));
        }
        let first = Answer::of(&first, false);
        assert!(first.status == Some(200) && first.text.matches("drip").count() < 10, "all at once: {first:?}");
        let rest = listen(&mut client, Duration::from_secs(5)).await;
        assert!(rest.closed && (first.text + &rest.text).matches("drip").count() == 10);
    }
}

isolated_test! {
    async fn what_the_upstream_does_not_answer_is_503() {
        let _world = World::one(APP).await;
        let answer = raw::get(PORT, "/x").await;
        assert!(answer.status == Some(503) && answer.text.contains("upstream connect error"), "{answer:?}");
    }
}
