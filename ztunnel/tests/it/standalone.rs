//! The program with nothing of ours around it: one workload and a file, or pods of a scripted node agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::{Agent, Town, add, ask, del, keep, snapshot_sent, workload};
use crate::isolate::isolated_test;
use crate::pod::Pod;
use crate::proxy::{Proxy, repository, run};

const SOCKS: &str = "127.0.0.1:15080";

#[test]
fn ops_row_3_and_4_contradictions_end_the_start() {
    let (code, said) = run(&[], &[("LOCAL_XDS", "{}"), ("LOCAL_XDS_PATH", "/x")]);
    assert!(code == Some(1) && said.contains("LOCAL_XDS and LOCAL_XDS_PATH are both set"), "{code:?} {said}");
    let (code, said) = run(&["proxy"], &[("PROXY_MODE", "dedicated")]);
    assert!(code == Some(1) && said.contains("PROXY_WORKLOAD_INFO is not set"), "{code:?} {said}");
}

#[test]
fn commands_are_three_and_anything_else_is_an_error() {
    let (code, said) = run(&["version"], &[]);
    assert!(code == Some(0) && said.starts_with("ztunnel "), "{said}");
    let (code, said) = run(&["help"], &[]);
    assert!(code == Some(0) && said.contains("proxy | version | help"), "{said}");
    assert_eq!(run(&["serve"], &[]).0, Some(1));
}

fn dedicated(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, String)> {
    let file = repository("docs/examples/node-proxy.yaml").display().to_string();
    let settings = [
        ("PROXY_MODE", "dedicated"),
        ("PROXY_WORKLOAD_INFO", "default/local/default"),
        ("FAKE_CA", "true"),
        ("XDS_ADDRESS", ""),
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("UNSTABLE_ENABLE_SOCKS5", "true"),
    ];
    let all = settings.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned()));
    all.chain([("LOCAL_XDS_PATH", file)]).collect()
}

fn start<'a>(host: &'a Pod, settings: &[(&'static str, String)]) -> Proxy<'a> {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Proxy::start(host, &settings)
}

/// A connection through SOCKS, as far as the answer to `request` (RFC 1928) and that answer's code.
async fn socks(host: &Pod, request: &[u8]) -> (TcpStream, u8) {
    let mut stream = host.connect(SOCKS.parse().unwrap()).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut method = [0; 2];
    stream.read_exact(&mut method).await.unwrap();
    assert_eq!(method, [5, 0]);
    stream.write_all(request).await.unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await.unwrap();
    (stream, reply[1])
}

async fn exchange(mut stream: TcpStream, question: &str) -> String {
    stream.write_all(question.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    // A refused connection is reset.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

isolated_test! {
    async fn a_dedicated_proxy_runs_on_the_example_of_the_documentation() {
        let host = Pod::new("host", "10.10.0.1", "fd00:10::1");
        host.serve_echo(8080);
        host.serve_echo(9090);
        let mut proxy = start(&host, &dedicated(&[]));
        proxy.ready().await;
        let service = [5, 1, 0, 1, 10, 255, 0, 1, 0, 80];
        let (stream, code) = socks(&host, &service).await;
        assert_eq!((code, exchange(stream, "hello").await.as_str()), (0, "127.0.0.1 said hello"));
        let name = "hello.default.svc.cluster.local";
        let by_name = [&[5, 1, 0, 3, u8::try_from(name.len()).unwrap()], name.as_bytes(), &[0, 80]].concat();
        let (stream, _) = socks(&host, &by_name).await;
        assert_eq!(exchange(stream, "by name").await, "127.0.0.1 said by name");
        // The file's policy holds where the connection arrives.
        let (stream, _) = socks(&host, &[5, 1, 0, 1, 127, 0, 0, 1, 0x23, 0x82]).await;
        assert_eq!(exchange(stream, "no").await, "");
        let dump = proxy.get(15000, "/config_dump").await.unwrap().body;
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        assert_eq!(dump["staticConfig"]["services"][0]["hostname"], name);
        assert_eq!(dump["workloadState"]["default/local/default"]["state"], "Up");
        proxy.log_line(&["FAKE_CA is on"]).await;
        proxy.log_line(&["direction=outbound", "dst.identity=spiffe://cluster.local/ns/default/sa/default"]).await;
        proxy.signal(Signal::SIGTERM);
        assert_eq!(proxy.ended().await.code(), Some(0));
    }
}

isolated_test! {
    async fn a_second_interrupt_ends_at_once() {
        let host = Pod::new("host", "10.10.0.1", "fd00:10::1");
        host.serve_echo(8080);
        let mut proxy = start(&host, &dedicated(&[("CONNECTION_TERMINATION_DEADLINE", "10m")]));
        proxy.ready().await;
        let (_open, code) = socks(&host, &[5, 1, 0, 1, 10, 255, 0, 1, 0, 80]).await;
        assert_eq!(code, 0);
        proxy.signal(Signal::SIGINT);
        proxy.readiness(|answer| answer.body.contains("shutdown")).await;
        let asked = Instant::now();
        proxy.signal(Signal::SIGINT);
        assert_eq!(proxy.ended().await.code(), Some(130));
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
}

isolated_test! {
    async fn ops_row_8_a_controller_and_an_agent_that_are_late_are_waited_for() {
        let host = Pod::new("host", "10.10.0.1", "fd00:10::1");
        let settings = [("XDS_ADDRESS", "nowhere.invalid:15012"), ("XDS_ROOT_CA", "SYSTEM"), ("INPOD_UDS", "/nowhere/zds")];
        let mut proxy = Proxy::start(&host, &settings);
        let answer = proxy.readiness(|answer| answer.body.contains("state manager: control plane cannot be reached")).await;
        assert_eq!(answer.status, 500);
        assert!(answer.body.starts_with("not ready, pending: state manager, workload proxy manager\n"), "{}", answer.body);
        assert!(answer.body.contains("workload proxy manager: node agent cannot be reached at /nowhere/zds"), "{}", answer.body);
    }
}

isolated_test! {
    async fn a_bad_local_file_ends_the_start_and_names_the_field() {
        let host = Pod::new("host", "10.10.0.1", "fd00:10::1");
        let settings = [("XDS_ADDRESS", ""), ("FAKE_CA", "true"), ("LOCAL_XDS", "services: [{namespace: a, hostname: b, vip: x}]")];
        let mut proxy = Proxy::start(&host, &settings);
        assert_eq!(proxy.ended().await.code(), Some(1));
        assert!(proxy.log().contains("unknown field `vip`"), "{}", proxy.log());
    }
}

/// Only a file, a socket and a development authority.
fn shared<'a>(town: &'a Town, uds: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![("XDS_ADDRESS", ""), ("FAKE_CA", "true"), ("LOCAL_XDS", &town.mesh), ("INPOD_UDS", uds)]
}

const VIP: &str = "172.20.0.9:80";

/// One question on a connection that stays open.
async fn talk(stream: &mut TcpStream, question: &str) -> std::io::Result<String> {
    stream.write_all(question.as_bytes()).await?;
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

isolated_test! {
    async fn zds_row_10_shared_mode_needs_only_a_socket_and_a_file_and_a_broken_protocol_ends_it() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut proxy = Proxy::start(&town.host, &shared(&town, &uds));
        let stream = town.agent.accept().await;
        town.enrol(&stream).await;
        proxy.ready().await;
        town.cart.serve_echo(8080);
        assert_eq!(town.web.ask(VIP.parse().unwrap(), "hello").await.unwrap(), "10.11.0.5 said hello");
        let error = ask(&stream, snapshot_sent(), None).await;
        assert!(error.contains("snapshot_sent came twice"), "{error}");
        assert_eq!(proxy.ended().await.code(), Some(1));
        assert!(proxy.log().contains("broke the protocol"), "{}", proxy.log());
    }
}

isolated_test! {
    async fn zds_row_4_and_zds_row_8_and_zds_row_14_connections_outlive_repeated_adds_and_the_agent() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut proxy = Proxy::start(&town.host, &shared(&town, &uds));
        let stream = town.agent.accept().await;
        town.enrol(&stream).await;
        proxy.ready().await;
        town.cart.serve_lines(8080);
        let mut open = town.web.connect(VIP.parse().unwrap()).await.unwrap();
        assert_eq!(talk(&mut open, "one").await.unwrap(), "one");
        // The same namespace through another descriptor.
        assert_eq!(ask(&stream, add(&town.cart), Some(&town.cart)).await, "");
        assert_eq!(talk(&mut open, "two").await.unwrap(), "two");
        drop(stream);
        let lost = proxy.readiness(|answer| answer.status == 500).await;
        assert!(lost.body.contains("workload proxy manager"), "{}", lost.body);
        assert_eq!(talk(&mut open, "three").await.unwrap(), "three");
        let stream = town.agent.accept().await;
        for pod in [&town.web, &town.cart] {
            assert_eq!(ask(&stream, keep(pod), None).await, "");
        }
        assert_eq!(ask(&stream, snapshot_sent(), None).await, "");
        proxy.ready().await;
        assert_eq!(talk(&mut open, "four").await.unwrap(), "four");
    }
}

isolated_test! {
    async fn zds_row_7_and_zds_row_15_what_is_not_named_or_deleted_is_cut() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut proxy = Proxy::start(&town.host, &shared(&town, &uds));
        let stream = town.agent.accept().await;
        town.enrol(&stream).await;
        proxy.ready().await;
        town.cart.serve_lines(8080);
        let mut open = town.web.connect(VIP.parse().unwrap()).await.unwrap();
        assert_eq!(talk(&mut open, "one").await.unwrap(), "one");
        drop(stream);
        let stream = town.agent.accept().await;
        assert_eq!(ask(&stream, add(&town.web), Some(&town.web)).await, "");
        assert_eq!(talk(&mut open, "two").await.unwrap(), "two");
        assert_eq!(ask(&stream, snapshot_sent(), None).await, "");
        proxy.ready().await;
        // `cart` was not named: its end of the connection is gone and so are its listeners.
        assert!(talk(&mut open, "three").await.is_err());
        let refused = town.web.connect(SocketAddr::new(town.cart.v4, 15008)).await;
        assert!(refused.is_err() || talk(&mut refused.unwrap(), "x").await.is_err());
        assert_eq!(ask(&stream, del(&town.web), None).await, "");
        let closed = town.web.connect("127.0.0.1:15001".parse().unwrap()).await;
        assert_eq!(closed.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

isolated_test! {
    async fn zds_row_2_and_zds_row_5_listeners_are_there_with_the_ack_or_the_pod_waits_for_its_port() {
        let town = Town::build();
        let uds = town.agent.uds();
        let taken = town.cart.listen("0.0.0.0:15008".parse().unwrap());
        let mut proxy = Proxy::start(&town.host, &shared(&town, &uds));
        let stream = town.agent.accept().await;
        assert_eq!(ask(&stream, add(&town.web), Some(&town.web)).await, "");
        for port in [15001, 15006, 15008] {
            town.web.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        }
        let error = ask(&stream, add(&town.cart), Some(&town.cart)).await;
        assert!(error.contains("port 15008 cannot be bound in pod shop/cart"), "{error}");
        assert_eq!(ask(&stream, snapshot_sent(), None).await, "");
        let waiting = proxy.readiness(|answer| answer.body.contains("pending: workload proxy manager")).await;
        assert!(waiting.body.contains("pod shop/cart cannot be served: port 15008"), "{}", waiting.body);
        drop(taken);
        proxy.ready().await;
    }
}

isolated_test! {
    async fn ops_row_20_a_connection_may_end_within_the_deadline() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut proxy = Proxy::start(&town.host, &shared(&town, &uds));
        let stream = town.agent.accept().await;
        town.enrol(&stream).await;
        proxy.ready().await;
        town.cart.serve_lines(8080);
        let mut open = town.web.connect(VIP.parse().unwrap()).await.unwrap();
        assert_eq!(talk(&mut open, "one").await.unwrap(), "one");
        proxy.signal(Signal::SIGTERM);
        proxy.readiness(|answer| answer.body.contains("shutdown")).await;
        assert_eq!(talk(&mut open, "two").await.unwrap(), "two");
        drop(open);
        assert_eq!(proxy.ended().await.code(), Some(0));
    }
}

isolated_test! {
    async fn without_a_proxy_pods_are_acknowledged_and_nothing_listens() {
        let town = Town::build();
        let uds = town.agent.uds();
        let settings = [("XDS_ADDRESS", ""), ("CA_ADDRESS", ""), ("ENABLE_PROXY", "false"), ("INPOD_UDS", uds.as_str())];
        let mut proxy = Proxy::start(&town.host, &settings);
        let stream = town.agent.accept().await;
        assert_eq!(ask(&stream, add(&town.web), Some(&town.web)).await, "");
        assert_eq!(ask(&stream, snapshot_sent(), None).await, "");
        proxy.ready().await;
        let closed = town.web.connect("127.0.0.1:15001".parse().unwrap()).await;
        assert_eq!(closed.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

isolated_test! {
    async fn workloads_reach_the_endpoints_of_the_proxy_through_a_tunnel() {
        let node = Pod::new("zt", "10.12.0.1", "fd00:12::1");
        let web = Pod::new("web", "10.12.0.5", "fd00:12::5");
        web.join(&node);
        let agent = Agent::bind();
        let mesh =
            format!("workloads: [{}, {}]", workload("web", "shop", web.v4, ""), workload("zt", "system", node.v4, ""));
        let uds = agent.uds();
        let settings = [
            ("XDS_ADDRESS", ""),
            ("FAKE_CA", "true"),
            ("LOCAL_XDS", &mesh),
            ("INPOD_UDS", &uds),
            ("POD_NAME", "zt"),
            ("POD_NAMESPACE", "system"),
            ("SERVICE_ACCOUNT", "zt"),
        ];
        let mut proxy = Proxy::start(&node, &settings);
        let stream = agent.accept().await;
        assert_eq!(ask(&stream, add(&web), Some(&web)).await, "");
        web.redirect();
        assert_eq!(ask(&stream, snapshot_sent(), None).await, "");
        proxy.ready().await;
        let mut stats = web.connect(SocketAddr::new(node.v4, 15020)).await.unwrap();
        stats.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stats.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("istio_build"), "{text}");
        drop(stats);
        proxy.log_line(&["direction=inbound", "dst.hbone_addr=10.12.0.1:15020", "dst.workload=zt"]).await;
    }
}
