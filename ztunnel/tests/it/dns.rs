//! Names as an application of an enrolled pod asks for them: its queries are redirected by the pod's rules.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::isolate::isolated_test;
use crate::mesh::{Enrolled, Mesh, NAME_SERVER, log_line};
use crate::pod::Pod;

/// What a name server was asked, and from where.
type Seen = Arc<Mutex<Vec<(IpAddr, Vec<u8>)>>>;

/// `web` with its queries captured; the name server runs in the other pod.
async fn start() -> (Mesh, SocketAddr, Seen) {
    let mesh = captured(SERVER).await;
    let server: SocketAddr = SERVER.parse().unwrap();
    mesh.cart.add_address(server.ip());
    let seen = Seen::default();
    serve(&mesh.cart, server, &seen);
    (mesh, server, seen)
}

async fn captured(server: &str) -> Mesh {
    let mesh = Mesh::start_with(Enrolled { web: true, cart: false }, &[(NAME_SERVER, server)]).await;
    mesh.web.netns.run(|| mesh_sys::nft::apply(DNS_RULES).unwrap()).unwrap();
    mesh
}

/// Answers with the query itself, marked as an answer, over both transports.
fn serve(pod: &Pod, addr: SocketAddr, seen: &Seen) {
    let socket = pod.netns.run(|| std::net::UdpSocket::bind(addr)).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let (socket, kept) = (UdpSocket::from_std(socket).unwrap(), seen.clone());
    tokio::spawn(async move {
        let mut buffer = vec![0; 2048];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            kept.lock().unwrap().push((client.ip(), buffer[..length].to_vec()));
            socket.send_to(&answer_to(&buffer[..length]), client).await.unwrap();
        }
    });
    let (listener, kept) = (pod.listen(addr), seen.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, client) = listener.accept().await.unwrap();
            let mut query = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut query).await.unwrap();
            kept.lock().unwrap().push((client.ip(), query.clone()));
            let answer = answer_to(&query);
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
}

fn answer_to(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask(pod: &Pod, server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = pod.netns.run(|| std::net::UdpSocket::bind(local)).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    // Takes answers of the server that it asked only, as resolvers do.
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

async fn ask_tcp(pod: &Pod, server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let mut stream = pod.connect(server).await.unwrap();
    stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
    stream.write_all(query).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

fn addresses(answer: &[u8]) -> Vec<String> {
    Message::from_vec(answer).unwrap().answers.iter().map(|record| record.data.to_string()).collect()
}

isolated_test! {
    async fn ops_row_9_a_captured_query_for_a_service_is_answered_in_the_pod() {
        let (mesh, server, seen) = start().await;
        let asked = query("cart.", RecordType::A);
        let vip = [mesh.vip.ip().to_string()];
        assert_eq!(addresses(&ask(&mesh.web, server, &asked).await), vip);
        assert_eq!(addresses(&ask_tcp(&mesh.web, server, &asked).await), vip);
        let six = SocketAddr::new(mesh.cart.v6, 53);
        let asked = query("cart.shop.svc.cluster.local.", RecordType::AAAA);
        assert_eq!(addresses(&ask(&mesh.web, six, &asked).await), [mesh.vip6.ip().to_string()]);
        assert_eq!(addresses(&ask_tcp(&mesh.web, six, &asked).await), [mesh.vip6.ip().to_string()]);
        assert!(seen.lock().unwrap().is_empty(), "nobody else was asked");
    }
}

isolated_test! {
    async fn ops_row_14_what_the_mesh_does_not_own_leaves_the_pod_as_it_was_asked() {
        let (mesh, server, seen) = start().await;
        let all = [
            query("cart.shop.", RecordType::MX),
            query("www.Example.org.", RecordType::A),
            // An update.
            b"\x12\x34\x28\0\0\x01\0\0\0\0\0\0\x04zone\0\0\x06\0\x01".to_vec(),
        ];
        for asked in &all {
            assert_eq!(ask(&mesh.web, server, asked).await, answer_to(asked));
            assert_eq!(ask_tcp(&mesh.web, server, asked).await, answer_to(asked));
        }
        let expected: Vec<_> = all.iter().flat_map(|asked| [(mesh.web.v4, asked.clone()), (mesh.web.v4, asked.clone())]).collect();
        assert_eq!(*seen.lock().unwrap(), expected, "asked from the pod's own address, byte for byte");
    }
}

isolated_test! {
    async fn each_query_has_a_log_line_when_that_is_asked_for() {
        let (mesh, server, _) = start().await;
        ask(&mesh.web, server, &query("Cart.", RecordType::A)).await;
        ask(&mesh.web, server, &query("www.example.", RecordType::AAAA)).await;
        let of_web = "\tdns\tquery complete\tsrc.workload=web src.namespace=shop";
        let vip = mesh.vip.ip();
        log_line(&[&format!("{of_web} query=a domain=cart result=answered endpoints={vip}")]).await;
        log_line(&[&format!("{of_web} query=aaaa domain=www.example result=forwarded")]).await;
    }
}

isolated_test! {
    async fn a_name_server_on_loopback_is_the_one_beside_the_proxy() {
        // A namespace of the test's own has no loopback yet.
        mesh_sys::netns::loopback_up().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mesh = captured(&socket.local_addr().unwrap().to_string()).await;
        let asked = query("www.example.", RecordType::A);
        let answering = async {
            let mut buffer = vec![0; 512];
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&answer_to(&buffer[..length]), client).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&mesh.web, SERVER.parse().unwrap(), &asked), answering);
        assert_eq!(answer, answer_to(&asked));
    }
}

isolated_test! {
    async fn a_second_proxy_takes_over_without_a_lost_query() {
        let (mut mesh, server, _) = start().await;
        let asked = query("cart.", RecordType::A);
        let vip = [mesh.vip.ip().to_string()];
        let old = mesh.web_node.proxy.take().unwrap();
        mesh.web_node.enrol(&mesh.web).await;
        let stop = tokio::spawn(async move { old.stop(mesh_core::drain::DrainMode::Graceful).await });
        for _ in 0..50 {
            assert_eq!(addresses(&ask(&mesh.web, server, &asked).await), vip);
        }
        stop.await.unwrap();
        assert_eq!(addresses(&ask_tcp(&mesh.web, server, &asked).await), vip);
    }
}

/// In the pod of `cart`.
const SERVER: &str = "192.0.2.53:53";
/// What the node agent installs for DNS capture.
const DNS_RULES: &str = "
table inet dns-nat {
    chain output {
        type nat hook output priority -101;
        oifname != lo udp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
        ip daddr != 127.0.0.1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
        ip6 daddr != ::1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
    }
}
table inet dns-raw {
    chain output {
        type filter hook output priority -300;
        meta l4proto udp meta mark & 0xfff == 0x539 udp dport 53 ct zone set 1
    }
    chain prerouting {
        type filter hook prerouting priority -300;
        meta l4proto udp meta mark & 0xfff != 0x539 udp sport 53 ct zone set 1
    }
}
";
