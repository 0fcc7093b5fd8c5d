//! What policies do to connections, new ones and open ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_wire::security::{self, Authorization, Clause, Match, Rule, StringMatch};
use mesh_wire::workload as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Enrolled, Mesh, log_line, workload};

fn principal(text: &str) -> StringMatch {
    StringMatch { match_type: Some(security::string_match::MatchType::Exact(text.to_owned())) }
}

fn policy(name: &str, action: security::Action, matches: Match) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: security::Scope::Namespace.into(),
        action: action.into(),
        rules: vec![Rule { clauses: vec![Clause { matches: vec![matches] }] }],
        ..Authorization::default()
    }
}

fn deny_web() -> Authorization {
    let web = Match { principals: vec![principal("cluster.local/ns/shop/sa/web")], ..Match::default() };
    policy("no-web", security::Action::Deny, web)
}

isolated_test! {
    async fn hbone_row_15_a_denied_connection_gets_no_byte_and_the_log_names_the_rule() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        mesh.policy(deny_web());
        assert_eq!(mesh.web.ask(mesh.vip, "let me in").await.unwrap_or_default(), "");
        let web = mesh.web.v4.to_string();
        let line = log_line(&["direction=inbound", &web, "connection complete"]).await;
        assert!(line.contains("denied by policy shop/no-web"), "{line}");
        let line = log_line(&["connection denied", &web]).await;
        assert!(line.contains("shop/no-web"), "{line}");
        log_line(&["direction=outbound", &web, "peer answered 401"]).await;
        let metrics = mesh.cart_node.registry.encode();
        let failed = metrics.lines().find(|line| {
            line.starts_with("istio_tcp_connections_failed_total") && line.contains("response_flags=\"DENY\"")
        });
        assert!(failed.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    }
}

isolated_test! {
    async fn policy_row_17_a_policy_change_ends_the_connections_it_denies_and_no_others() {
        let mut mesh = Mesh::start(BOTH).await;
        let listener = mesh.cart.listen(SocketAddr::new("::".parse().unwrap(), APP_PORT));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        let mut denied = mesh.web.connect(mesh.vip).await.unwrap();
        let mut allowed = mesh.cart.connect(mesh.vip).await.unwrap();
        for stream in [&mut denied, &mut allowed] {
            stream.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        }
        let pushed = Instant::now();
        mesh.policy(deny_web());
        assert_eq!(denied.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection was not ended");
        assert!(pushed.elapsed() < Duration::from_secs(1), "{:?}", pushed.elapsed());
        allowed.write_all(b"y").await.unwrap();
        assert_eq!(allowed.read_u8().await.unwrap(), b'y');
        log_line(&[&mesh.web.v4.to_string(), "policy change: explicitly denied by policy shop/no-web"]).await;
        // Who, to whom and by which rule is recorded as for a connection that is refused.
        log_line(&["connection denied", &mesh.web.v4.to_string(), "shop/no-web"]).await;
        let metrics = mesh.cart_node.registry.encode();
        let closed = metrics.lines().find(|line| {
            line.starts_with("istio_tcp_connections_closed_total") && line.contains("response_flags=\"DENY\"")
        });
        assert!(closed.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    }
}

/// A connection from `web` that the application of `cart` answers.
async fn talk(mesh: &Mesh) -> TcpStream {
    let listener = mesh.cart.listen(SocketAddr::new("::".parse().unwrap(), APP_PORT));
    let mut stream = mesh.web.connect(mesh.vip).await.unwrap();
    let (application, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let (mut read, mut write) = application.into_split();
        tokio::io::copy(&mut read, &mut write).await
    });
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    stream
}

isolated_test! {
    async fn policy_row_17_a_policy_that_is_newly_attached_ends_open_connections_too() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.policy(Authorization { scope: security::Scope::WorkloadSelector.into(), ..deny_web() });
        let mut open = talk(&mesh).await;
        let attached = Instant::now();
        mesh.tell(BOTH, &["shop/no-web"]);
        assert_eq!(open.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection was not ended");
        assert!(attached.elapsed() < Duration::from_secs(1), "{:?}", attached.elapsed());
        log_line(&[&mesh.web.v4.to_string(), "policy change: explicitly denied by policy shop/no-web"]).await;
    }
}

isolated_test! {
    async fn a_workload_that_becomes_somebody_else_ends_its_tunnels() {
        let mut mesh = Mesh::start(BOTH).await;
        let mut open = talk(&mesh).await;
        let mut renamed = workload(&mesh.cart, true, &[]);
        renamed.trust_domain = "elsewhere".into();
        mesh.cart_node.tell([wire::address::Type::Workload(renamed)]);
        assert_eq!(open.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection was not ended");
        let parts = ["direction=inbound", &mesh.web.v4.to_string(), "identity change: the tunnel was accepted as"];
        let line = log_line(&parts).await;
        assert!(line.contains("spiffe://elsewhere/ns/shop/sa/cart"), "{line}");
    }
}

isolated_test! {
    async fn policy_row_18_a_policy_of_another_namespace_denies_nothing_here() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        mesh.policy(Authorization {
            namespace: "other".into(),
            rules: vec![Rule { clauses: vec![] }],
            ..policy("all", security::Action::Deny, Match::default())
        });
        assert!(mesh.web.ask(mesh.vip, "hello").await.unwrap().ends_with("said hello"));
    }
}

isolated_test! {
    async fn policy_row_16_where_the_controller_does_not_promise_it_an_unknown_policy_is_left_out() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        mesh.cart_node.shared.promises.negotiate(Some("policyBeforeTraffic=reference"));
        mesh.tell(BOTH, &["shop/p1"]);
        assert!(mesh.web.ask(mesh.vip, "hello").await.unwrap().ends_with("said hello"));
        log_line(&["policies that the workload names are not known", "shop/p1"]).await;
        mesh.cart_node.shared.promises.negotiate(None);
        assert_eq!(mesh.web.ask(mesh.vip, "hello").await.unwrap_or_default(), "");
    }
}

isolated_test! {
    async fn strict_mode_refuses_plaintext_and_takes_tunnels() {
        let mut outside = Mesh::start(Enrolled { web: false, cart: true }).await;
        let mut inside = Mesh::start(BOTH).await;
        for mesh in [&mut outside, &mut inside] {
            mesh.cart.serve_echo(APP_PORT);
            // What the control plane makes of STRICT: whoever has no identity is denied.
            let presence = StringMatch { match_type: Some(security::string_match::MatchType::Presence(())) };
            let anonymous = Match { not_principals: vec![presence], ..Match::default() };
            mesh.policy(policy("strict", security::Action::Deny, anonymous));
        }
        assert_eq!(outside.web.ask(outside.app(), "plain").await.unwrap_or_default(), "");
        let line = log_line(&["direction=inbound", &outside.web.v4.to_string(), "connection complete"]).await;
        assert!(line.contains("shop/strict"), "{line}");
        let answer = inside.web.ask(inside.vip, "tunnelled").await.unwrap();
        assert_eq!(answer, format!("{} said tunnelled", inside.web.v4));
    }
}

isolated_test! {
    async fn a_policy_that_is_named_but_unknown_refuses_until_it_arrives() {
        let mut mesh = Mesh::start(BOTH).await;
        mesh.cart.serve_echo(APP_PORT);
        mesh.tell(BOTH, &["shop/late"]);
        assert_eq!(mesh.web.ask(mesh.vip, "too early").await.unwrap_or_default(), "");
        log_line(&["direction=inbound", &mesh.web.v4.to_string(), "policy shop/late"]).await;
        let web = Match { principals: vec![principal("cluster.local/ns/shop/sa/web")], ..Match::default() };
        let late = Authorization {
            scope: security::Scope::WorkloadSelector.into(),
            ..policy("late", security::Action::Allow, web)
        };
        mesh.policy(late);
        assert!(mesh.web.ask(mesh.vip, "in time").await.unwrap().ends_with("said in time"));
    }
}
