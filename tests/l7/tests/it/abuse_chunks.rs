//! Chunks that are none: the request never completes, and nothing after it is a request.

use futures::future::join_all;

use crate::isolate::isolated_test;
use crate::raw::{self, talk};
use crate::recorder::Recorder;
use crate::resources::Service;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);

isolated_test! {
    async fn chunks_that_are_none_end_the_connection() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10));
        let cases = [
            ("size that is no number", "zz\r\nhello\r\n0\r\n\r\n"),
            ("negative size", "-5\r\nhello\r\n0\r\n\r\n"),
            ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
            ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
            ("space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
            ("no size", "\r\nhello\r\n0\r\n\r\n"),
            ("size beyond any number", "fffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
            ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
            ("bare CR after the size", "5\rhello\r\n0\r\n\r\n"),
            ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
            ("no end of the data", "5\r\nhello0\r\n\r\n"),
            ("more data than said", "3\r\nhello\r\n0\r\n\r\n"),
            ("bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
            ("bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
            ("NUL in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
            ("extension without end", extension.as_str()),
            ("trailer without colon", "5\r\nhello\r\n0\r\na\r\n\r\n"),
            ("trailer folded", "5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n"),
            ("trailer with bare LF", "5\r\nhello\r\n0\r\na: b\nc: d\r\n\r\n"),
        ];
        let send = async |(number, (_, body)): (usize, &(&str, &str))| {
            let head = format!("POST /n{number} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
            let more = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
            talk(PORT, format!("{head}{body}{more}").as_bytes()).await
        };
        let answers = join_all(cases.iter().enumerate().map(send)).await;
        for ((name, _), answer) in cases.iter().zip(&answers) {
            assert!(answer.closed && matches!(answer.status, None | Some(400)), "{name}: {answer:?}");
            assert!(answer.responses() <= 1, "{name}: {answer:?}");
        }
        assert!(!app.all().contains("smuggled"), "{}", app.all());
        // A body that came in part may be there, one that is complete may not.
        assert_eq!(raw::get(PORT, "/fine").await.status, Some(200));
    }
}

isolated_test! {
    async fn chunks_of_every_shape_arrive_as_one_body() {
        let app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let body = "5\r\nhello\r\n0000A\r\n0123456789\r\n1;name=\"value\"\r\n!\r\n0\r\nx-sum: 42\r\n\r\n";
        let head = "POST /chunks-in HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\ntrailer: x-sum\r\n";
        let answer = talk(PORT, format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await;
        assert_eq!(answer.status, Some(200), "{answer:?}");
        assert!(answer.text.contains("body: 16\n"), "{answer:?}");
        assert!(app.all().contains("x-sum: 42\r\n"), "trailers are relayed: {}", app.all());
        assert!(!app.heads()[0].contains("content-length"), "{:?}", app.heads());
    }
}

isolated_test! {
    async fn answers_of_every_shape_arrive() {
        let _app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let answer = raw::get(PORT, "/chunks").await;
        let body = answer.text.split_once("\r\n\r\n").unwrap().1;
        let body: String = body.split("\r\n").skip(1).step_by(2).collect();
        assert_eq!((answer.status, body.as_str()), (Some(200), "hello0123456789!"), "{answer:?}");
        let answer = raw::get(PORT, "/close").await;
        assert!(answer.status == Some(200) && answer.text.contains("until the end"), "{answer:?}");
    }
}

isolated_test! {
    async fn answers_that_can_be_understood_in_two_ways_are_not_handed_on() {
        let _app = Recorder::start(APP.target).await;
        let _world = World::one(APP).await;
        let cases = [
            ("no answer", "SSH-2.0-OpenSSH\r\n\r\n"),
            ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
            ("control character", "HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 0\r\n\r\n"),
            ("name that is none", "HTTP/1.1 200 OK\r\na b: c\r\ncontent-length: 0\r\n\r\n"),
            ("no status", "HTTP/1.1 OK\r\n\r\n"),
            ("nothing", ""),
        ];
        for (name, bytes) in cases {
            let hex: String = bytes.bytes().map(|byte| format!("{byte:02x}")).collect();
            let answer = raw::get(PORT, &format!("/say/{hex}")).await;
            assert!(matches!(answer.status, Some(502 | 503)), "{name}: {answer:?}");
        }
    }
}
