use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType as ForeignType;
use mesh_core::drain::{self, DrainMode, DrainSignal};
use mesh_telemetry::metrics::Registry;
use mesh_wire::workload as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::{JoinHandle, LocalSet};

use super::*;
use crate::dns::fixture::{NameServer, closed, long_reply, query, reply, truncated_reply};
use crate::dns::lookup::Search;
use crate::dns::{NameServers, Place};
use crate::state::fixture::{NODE, World, address, pod, service, service_address};

/// The DNS proxy of pod `shop/web`, on loopback.
struct Proxy {
    addr: SocketAddr,
    registry: Registry,
    drain: DrainSignal,
    serving: JoinHandle<()>,
}

impl Proxy {
    fn start(world: &World, servers: &[SocketAddr]) -> Self {
        let registry = Registry::new();
        let zone =
            Zone { domain: "cluster.local".into(), search: Search::Kubernetes, preferred_namespace: None, ipv6: true };
        let owner = Owner { name: "web".into(), namespace: "shop".into(), service_account: "web".into() };
        let upstream = Upstream::new(NameServers::fixed(servers), Place::default());
        let server = Server::new(world.state.clone(), owner, Arc::new(zone), upstream, Metrics::new(&registry));
        let sockets = std::iter::repeat_with(|| Sockets::bind(&["127.0.0.1:0".parse().unwrap()], None, true));
        // A port that is free for datagrams may be taken for connections.
        let sockets = sockets.take(50).find_map(Result::ok).unwrap();
        let addr = sockets.addresses()[0];
        let (drain, watch) = drain::channel();
        let serving = tokio::task::spawn_local(Rc::new(server).serve(sockets, watch));
        Self { addr, registry, drain, serving }
    }

    async fn ask(&self, message: &Message) -> Message {
        Message::from_vec(&self.ask_bytes(&message.to_vec().unwrap()).await).unwrap()
    }

    async fn ask_bytes(&self, message: &[u8]) -> Vec<u8> {
        self.try_ask(message, Duration::from_secs(10)).await.expect("an answer")
    }

    async fn try_ask(&self, message: &[u8], patience: Duration) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(message, self.addr).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let (length, from) = tokio::time::timeout(patience, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
        assert_eq!(from, self.addr);
        buffer.truncate(length);
        Some(buffer)
    }

    /// Sends all messages on one connection, then reads that many answers.
    async fn ask_tcp(&self, messages: &[Vec<u8>]) -> std::io::Result<Vec<Vec<u8>>> {
        let mut stream = TcpStream::connect(self.addr).await?;
        for message in messages {
            stream.write_all(&crate::dns::upstream::framed(message)?).await?;
        }
        let mut answers = Vec::new();
        for _ in messages {
            let mut answer = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut answer).await?;
            answers.push(answer);
        }
        Ok(answers)
    }

    fn metric(&self, line: &str) -> Option<String> {
        let (_, text) = self.registry.encode_for(None);
        text.lines().find_map(|found| found.strip_prefix(line).map(|value| value.trim().to_owned()))
    }
}

/// Service `cart` with an address, and the pod's own record.
fn shop() -> World {
    let mut web = pod("shop/web", "10.1.0.5");
    web.node = NODE.to_owned();
    web.canonical_revision = "v1".to_owned();
    World::new().with([address(web), service_address(cart())])
}

fn cart() -> wire::Service {
    service("shop/cart.shop.svc.cluster.local", &["172.20.0.9"], &[(80, 8080)])
}

/// Runs a test as a worker would.
async fn locally(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(async { tokio::time::timeout(Duration::from_secs(30), test).await.unwrap() }).await;
}

fn shown(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect()
}

#[tokio::test]
async fn ops_row_9_a_short_name_is_answered_over_both_transports() {
    locally(async {
        let proxy = Proxy::start(&shop(), &[]);
        let asked = query("cart.", ForeignType::A);
        let answer = proxy.ask(&asked).await;
        assert_eq!(shown(&answer), ["cart. 30 A 172.20.0.9"]);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(answer.metadata.id, asked.metadata.id);
        let over_tcp = proxy.ask_tcp(&[asked.to_vec().unwrap()]).await.unwrap();
        assert_eq!(Message::from_vec(&over_tcp[0]).unwrap(), answer);
    })
    .await;
}

#[tokio::test]
async fn ops_row_10_an_appended_search_domain_is_an_alias() {
    locally(async {
        let proxy = Proxy::start(&shop(), &[]);
        let answer = proxy.ask(&query("cart.shop.svc.cluster.local.shop.svc.cluster.local.", ForeignType::A)).await;
        let alias = "cart.shop.svc.cluster.local.shop.svc.cluster.local. 30 CNAME cart.shop.svc.cluster.local.";
        assert_eq!(shown(&answer), [alias, "cart.shop.svc.cluster.local. 30 A 172.20.0.9"]);
    })
    .await;
}

#[tokio::test]
async fn ops_row_11_a_family_without_addresses_is_empty_and_no_error() {
    locally(async {
        let proxy = Proxy::start(&shop(), &[]);
        let answer = proxy.ask(&query("cart.shop.", ForeignType::AAAA)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty() && answer.metadata.authoritative);
    })
    .await;
}

#[tokio::test]
async fn ops_row_12_a_wildcard_answers_under_the_asked_name() {
    locally(async {
        let world = shop().with([service_address(service("shop/*.api.test", &["240.0.0.4"], &[]))]);
        let proxy = Proxy::start(&world, &[]);
        let answer = proxy.ask(&query("v1.eu.api.test.", ForeignType::A)).await;
        assert_eq!(shown(&answer), ["v1.eu.api.test. 30 A 240.0.0.4"]);
    })
    .await;
}

#[tokio::test]
async fn ops_row_13_an_address_of_another_network_is_no_answer() {
    locally(async {
        let mut far = service("shop/far.shop.svc.cluster.local", &["172.20.0.10"], &[]);
        far.addresses[0].network = "n2".to_owned();
        let proxy = Proxy::start(&shop().with([service_address(far)]), &[]);
        let answer = proxy.ask(&query("far.", ForeignType::A)).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    })
    .await;
}

#[tokio::test]
async fn ops_row_14_other_types_of_a_mesh_name_are_forwarded() {
    locally(async {
        let server = NameServer::start(|query, _| vec![long_reply(query, 200)]).await;
        let proxy = Proxy::start(&shop(), &[server.addr]);
        for kind in [ForeignType::MX, ForeignType::TXT, ForeignType::SRV, ForeignType::HTTPS] {
            let asked = query("cart.shop.", kind).to_vec().unwrap();
            assert_eq!(proxy.ask_bytes(&asked).await, long_reply(&asked, 200), "{kind}");
        }
        assert_eq!(server.seen().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn ops_row_15_a_name_without_addresses_is_forwarded() {
    locally(async {
        let server = NameServer::start(|query, _| vec![reply(query, &[[192, 0, 2, 1]])]).await;
        let world = shop().with([service_address(service("shop/www.example.org", &[], &[(443, 443)]))]);
        let proxy = Proxy::start(&world, &[server.addr]);
        for name in ["www.example.org.", "Elsewhere.Example.", "db-0.db.shop.svc.cluster.local.", "."] {
            let asked = query(name, ForeignType::A).to_vec().unwrap();
            assert_eq!(proxy.ask_bytes(&asked).await, reply(&asked, &[[192, 0, 2, 1]]), "{name}");
        }
        assert_eq!(server.seen().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_pod_without_a_record_is_answered_by_its_namespace() {
    locally(async {
        let world = World::new().with([service_address(cart())]);
        let proxy = Proxy::start(&world, &[]);
        assert_eq!(shown(&proxy.ask(&query("cart.", ForeignType::A)).await), ["cart. 30 A 172.20.0.9"]);
    })
    .await;
}

#[tokio::test]
async fn long_answers_fall_back_to_a_connection() {
    locally(async {
        let server = NameServer::start(|query, transport| match transport {
            Transport::Udp => vec![truncated_reply(query)],
            Transport::Tcp => vec![long_reply(query, 60_000)],
        })
        .await;
        let proxy = Proxy::start(&shop(), &[server.addr]);
        let asked = query("big.example.", ForeignType::TXT).to_vec().unwrap();
        assert_eq!(proxy.ask_bytes(&asked).await, truncated_reply(&asked));
        assert_eq!(proxy.ask_tcp(std::slice::from_ref(&asked)).await.unwrap(), [long_reply(&asked, 60_000)]);
    })
    .await;
}

#[tokio::test]
async fn many_queries_on_one_connection_are_answered_as_the_answers_come() {
    locally(async {
        let server = NameServer::start(|query, _| vec![reply(query, &[[192, 0, 2, 1]])]).await;
        let proxy = Proxy::start(&shop(), &[server.addr]);
        let names = (0..100).map(|n| if n % 2 == 0 { "cart.".to_owned() } else { format!("h{n}.example.") });
        let asked: Vec<_> = names.map(|name| query(&name, ForeignType::A).to_vec().unwrap()).collect();
        let mut answers = proxy.ask_tcp(&asked).await.unwrap();
        for query in &asked {
            let request = Request::read(query).unwrap();
            let at = answers.iter().position(|answer| request.is_answered_by(answer)).expect("an answer");
            answers.swap_remove(at);
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_what_nobody_sent_is_ignored() {
    locally(async {
        let proxy = Proxy::start(&shop(), &[]);
        let malformed = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12];
        for bytes in [&malformed[..], &[0x12, 0x34, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let answer = Message::from_vec(&proxy.ask_bytes(bytes).await).unwrap();
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (0x1234, ResponseCode::FormErr));
        }
        assert_eq!(proxy.try_ask(b"short", Duration::from_millis(100)).await, None);
        let answer = proxy.ask_tcp(&[malformed.to_vec()]).await.unwrap();
        assert_eq!(answer[0][3] & 15, 1);
    })
    .await;
}

#[tokio::test]
async fn when_no_name_server_can_be_asked_the_client_is_not_told_a_lie() {
    locally(async {
        let proxy = Proxy::start(&shop(), &[closed(9)]);
        let asked = query("a.example.", ForeignType::A).to_vec().unwrap();
        assert_eq!(proxy.try_ask(&asked, Duration::from_secs(6)).await, None, "silence, as without a proxy");
        let error = proxy.ask_tcp(&[asked]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        let labels = "{request_query_type=\"a\",request_protocol=\"udp\",source_canonical_service=\"web\",source_canonical_revision=\"v1\"}";
        for name in ["requests", "upstream_requests", "upstream_failures"] {
            assert_eq!(proxy.metric(&format!("istio_dns_{name}_total{labels}")).as_deref(), Some("1"), "{name}");
        }
        // Names of the mesh need no name server.
        assert_eq!(shown(&proxy.ask(&query("cart.", ForeignType::A)).await), ["cart. 30 A 172.20.0.9"]);
    })
    .await;
}

#[tokio::test]
async fn requests_and_what_was_forwarded_are_counted() {
    locally(async {
        let server = NameServer::start(|query, _| vec![reply(query, &[])]).await;
        let proxy = Proxy::start(&shop(), &[server.addr]);
        for name in ["cart.", "cart.shop.", "www.example."] {
            proxy.ask(&query(name, ForeignType::A)).await;
        }
        proxy.ask(&query("cart.", ForeignType::Unknown(12_345))).await;
        let metric = |name: &str, kind: &str| {
            let labels = "source_canonical_service=\"web\",source_canonical_revision=\"v1\"";
            proxy
                .metric(&format!("istio_dns_{name}{{request_query_type=\"{kind}\",request_protocol=\"udp\",{labels}}}"))
        };
        assert_eq!(metric("requests_total", "a").as_deref(), Some("3"));
        assert_eq!(metric("requests_total", "unknown").as_deref(), Some("1"));
        assert_eq!(metric("upstream_requests_total", "a").as_deref(), Some("1"));
        assert_eq!(metric("upstream_failures_total", "a"), None);
        assert_eq!(metric("upstream_request_duration_seconds_count", "a").as_deref(), Some("1"));
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_asks_too_much_loses_queries_but_not_its_names() {
    locally(async {
        let silent = NameServer::silent().await;
        let proxy = Proxy::start(&shop(), &[silent.addr]);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for n in 0..DNS_FORWARDED_MAX + 100 {
            let flood = query(&format!("h{n}.example."), ForeignType::A).to_vec().unwrap();
            socket.send_to(&flood, proxy.addr).await.unwrap();
            if n % 16 == 0 {
                // The kernel's own queue is not what is tested.
                proxy.ask(&query("cart.", ForeignType::A)).await;
            }
        }
        assert_eq!(shown(&proxy.ask(&query("cart.", ForeignType::A)).await), ["cart. 30 A 172.20.0.9"]);
        for _ in 0..500 {
            if silent.seen().len() >= DNS_FORWARDED_MAX {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(silent.seen().len(), DNS_FORWARDED_MAX);
    })
    .await;
}

#[tokio::test]
async fn a_graceful_end_answers_what_was_asked_before_it() {
    locally(async {
        let server = NameServer::start(|query, _| vec![reply(query, &[[192, 0, 2, 1]])]).await;
        let proxy = Proxy::start(&shop(), &[server.addr]);
        let asked = query("a.example.", ForeignType::A).to_vec().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&asked, proxy.addr).await.unwrap();
        proxy.drain.start(DrainMode::Graceful);
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], reply(&asked, &[[192, 0, 2, 1]]));
        proxy.serving.await.unwrap();
        assert!(TcpStream::connect(proxy.addr).await.is_err(), "the listener is closed");
    })
    .await;
}
