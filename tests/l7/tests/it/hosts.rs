//! One form of the host for policy, route and upstream, whichever way it is said.

use mesh_wire::l7::{self, Protocol};

use crate::frames::{Client, End, request};
use crate::isolate::isolated_test;
use crate::raw::talk;
use crate::recorder::Recorder;
use crate::resources::{self, Service};
use crate::world::{PORT, World};

const OPEN: Service = Service::http1("open", 9000);
const SECRET: Service = Service::http1("secret", 9001);
/// A listener where nobody may call `secret.example`; on [`PORT`] everybody may.
const GUARDED: u16 = 8081;

/// A listener that sends `secret.example` to one service and every other host to the other.
fn listener(port: u16) -> l7::Listener {
    let listener = resources::listener_for("", port, Protocol::Http, OPEN);
    let mut table = resources::listener(port, &[OPEN, SECRET], None).http.unwrap();
    let entry = l7::HttpEntry { r#match: Some(l7::HttpMatch::default()), rule: 1 };
    table.hosts.push(l7::VirtualHost { hostnames: vec!["secret.example".into()], entries: vec![entry] });
    l7::Listener { backends: vec![OPEN.backend(), SECRET.backend()], http: Some(table), ..listener }
}

/// Requests that name `secret.example`, each in another way.
fn secrets() -> Vec<String> {
    let lines = [
        "GET /x HTTP/1.1\r\nhost: secret.example",
        "GET /x HTTP/1.1\r\nHOST:secret.example",
        "GET /x HTTP/1.1\r\nhost: \t secret.example \t ",
        "GET /x HTTP/1.1\r\nhost: SECRET.Example",
        "GET http://secret.example/x HTTP/1.1\r\nhost: secret.example",
        "GET http://secret.example/x HTTP/1.1\r\nhost: open.example",
        "GET http://Secret.EXAMPLE/x HTTP/1.1\r\nhost: open.example",
        "GET HTTP://secret.example/x HTTP/1.1\r\nhost: open.example",
        "GET /x HTTP/1.1\r\nhost: secret.example\r\nx-forwarded-host: open.example\r\nforwarded: host=open.example",
    ];
    lines.map(|line| format!("{line}\r\nconnection: close\r\n\r\n")).to_vec()
}

isolated_test! {
    async fn hosts_are_the_same_for_policy_route_and_upstream() {
        let (open, secret) = (Recorder::start(OPEN.target).await, Recorder::start(SECRET.target).await);
        let operation = l7::AuthorizationOperation { hosts: vec!["secret.example".into()], ..Default::default() };
        let mut deny = resources::deny(&[]);
        deny.rules = vec![l7::AuthorizationRule { to: vec![operation], ..l7::AuthorizationRule::default() }];
        let guarded = l7::Listener { authorizations: vec![deny], ..listener(GUARDED) };
        let _world = World::gateway(l7::Settings::default(), &[listener(PORT), guarded], &[OPEN, SECRET]).await;
        for request in secrets() {
            let before = secret.heads().len();
            let answer = talk(PORT, request.as_bytes()).await;
            assert_eq!(answer.status, Some(200), "{request:?}: {answer:?}");
            let heads = secret.heads().split_off(before);
            assert!(heads.len() == 1 && heads[0].to_ascii_lowercase().contains("\r\nhost: secret.example\r\n"), "{heads:?}");
            assert_eq!(talk(GUARDED, request.as_bytes()).await.status, Some(403), "{request:?}");
        }
        for authority in ["secret.example", "SECRET.example"] {
            for (port, status) in [(PORT, 200), (GUARDED, 403)] {
                for more in [&[][..], &[("x-forwarded-host", "open.example")]] {
                    let get = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/x")];
                    let mut client = Client::open(port).await;
                    client.send(&request(1, &[&get[..], more].concat())).await;
                    assert_eq!(client.end(1).await, End::Status(status), "{authority} at {port}");
                }
            }
        }
        assert_eq!(secret.heads().len(), secrets().len() + 4);
        assert!(open.heads().is_empty(), "{:?}", open.heads());
        // Whoever names another host is not taken for this one because of what else is said.
        let harmless = "GET http://open.example/x HTTP/1.1\r\nhost: secret.example\r\nconnection: close\r\n\r\n";
        assert_eq!(talk(GUARDED, harmless.as_bytes()).await.status, Some(200));
        assert!(open.heads()[0].contains("\r\nhost: open.example\r\n") && !open.heads()[0].contains("secret"));
    }
}

isolated_test! {
    async fn methods_and_header_values_are_the_same_for_policy_and_upstream() {
        let app = Recorder::start(OPEN.target).await;
        let methods = l7::AuthorizationOperation { methods: vec!["DELETE".into()], ..Default::default() };
        let mut by_method = resources::deny(&[]);
        by_method.rules = vec![l7::AuthorizationRule { to: vec![methods], ..l7::AuthorizationRule::default() }];
        let role = l7::AuthorizationCondition {
            key: "request.headers[x-role]".into(),
            values: vec!["admin".into()],
            ..l7::AuthorizationCondition::default()
        };
        let mut by_role = resources::deny(&[]);
        by_role.name = "role".into();
        by_role.rules = vec![l7::AuthorizationRule { when: vec![role], ..l7::AuthorizationRule::default() }];
        let guarded = l7::Listener {
            authorizations: vec![by_method, by_role],
            ..resources::listener_for("", PORT, Protocol::Http, OPEN)
        };
        let _world = World::gateway(l7::Settings::default(), &[guarded], &[OPEN]).await;
        for (head, status) in [
            ("DELETE /x HTTP/1.1\r\nhost: x", 403),
            // What some frameworks take for another method is a header like any other here, and stays one.
            ("POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 0", 200),
            ("delete /x HTTP/1.1\r\nhost: x", 400),
            ("GET /x HTTP/1.1\r\nhost: x\r\nx-role: admin", 403),
            ("GET /x HTTP/1.1\r\nhost: x\r\nX-ROLE:admin", 403),
            ("GET /x HTTP/1.1\r\nhost: x\r\nx-role: \t admin \t", 403),
            ("GET /x HTTP/1.1\r\nhost: x\r\nx-role: user", 200),
        ] {
            let answer = talk(PORT, format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await;
            assert_eq!(answer.status, Some(status), "{head:?}: {answer:?}");
        }
        assert_eq!(app.heads().len(), 2, "{:?}", app.heads());
        assert!(app.heads().iter().all(|head| !head.starts_with("DELETE") && !head.contains("admin")));
    }
}
