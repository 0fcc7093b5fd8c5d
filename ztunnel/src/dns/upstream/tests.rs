use hickory_proto::rr::RecordType;
use std::time::Duration;

use super::*;
use crate::dns::fixture::{NameServer, closed, long_reply, query, reply, truncated_reply};

fn upstream(servers: &[SocketAddr]) -> Upstream {
    Upstream::new(NameServers::fixed(servers), Place::default())
}

fn request(name: &str, kind: RecordType) -> Request {
    Request::read(&query(name, kind).to_vec().unwrap()).unwrap()
}

#[tokio::test]
async fn queries_and_answers_pass_through_byte_for_byte() {
    let server = NameServer::start(|query, _| vec![long_reply(query, 3000)]).await;
    let asked = request("Some.Example.", RecordType::TXT);
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = upstream(&[server.addr]).ask(&asked, transport).await.unwrap();
        assert_eq!(answer, long_reply(asked.bytes(), 3000));
    }
    let seen = server.seen();
    assert_eq!(seen, [(Transport::Udp, asked.bytes().to_vec()), (Transport::Tcp, asked.bytes().to_vec())]);
}

#[tokio::test]
async fn updates_and_other_kinds_of_messages_pass_through() {
    for opcode in [1_u8, 2, 4, 5] {
        let mut message = vec![0x12, 0x34, opcode << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(b"\x04zone\0\0\x06\0\x01");
        let server = NameServer::start(|query, _| {
            let mut answer = query[..12].to_vec();
            (answer[2], answer[3], answer[5]) = (answer[2] | 0x80, 5, 0);
            vec![answer]
        })
        .await;
        let asked = Request::read(&message).unwrap();
        let answer = upstream(&[server.addr]).ask(&asked, Transport::Udp).await.unwrap();
        assert_eq!(answer, [0x12, 0x34, opcode << 3 | 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(server.seen(), [(Transport::Udp, message)]);
    }
}

#[tokio::test]
async fn forgeries_and_answers_to_others_are_not_taken() {
    let server = NameServer::start(|query, _| {
        let good = reply(query, &[[192, 0, 2, 1]]);
        let mut other_id = good.clone();
        other_id[0] ^= 1;
        let mut no_answer = good.clone();
        no_answer[2] &= 0x7f;
        let mut other_name = good.clone();
        other_name[13] = b'z';
        vec![other_id, no_answer, other_name, good[..11].to_vec(), Vec::new(), b"nonsense".to_vec(), good]
    })
    .await;
    let asked = request("a.example.", RecordType::A);
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = upstream(&[server.addr]).ask(&asked, transport).await.unwrap();
        assert_eq!(answer, reply(asked.bytes(), &[[192, 0, 2, 1]]), "{transport:?}");
    }
}

#[tokio::test]
async fn nobody_else_can_answer() {
    let (server, stranger) = (UdpSocketOnce::bind().await, UdpSocketOnce::bind().await);
    let asked = request("a.example.", RecordType::A);
    let upstream = upstream(&[server.addr()]);
    let answering = async {
        let (query, client) = server.asked().await;
        stranger.0.send_to(&reply(&query, &[[6, 6, 6, 6]]), client).await.unwrap();
        server.0.send_to(&reply(&query, &[[192, 0, 2, 1]]), client).await.unwrap();
    };
    let (answer, ()) = tokio::join!(upstream.ask(&asked, Transport::Udp), answering);
    assert_eq!(answer.unwrap(), reply(asked.bytes(), &[[192, 0, 2, 1]]));
}

#[tokio::test]
async fn what_was_cut_is_told_to_the_client_who_asks_again_over_a_connection() {
    let server = NameServer::start(|query, transport| match transport {
        Transport::Udp => vec![truncated_reply(query)],
        Transport::Tcp => vec![long_reply(query, 40_000)],
    })
    .await;
    let asked = request("big.example.", RecordType::TXT);
    let upstream = upstream(&[server.addr]);
    assert_eq!(upstream.ask(&asked, Transport::Udp).await.unwrap(), truncated_reply(asked.bytes()));
    assert_eq!(upstream.ask(&asked, Transport::Tcp).await.unwrap(), long_reply(asked.bytes(), 40_000));
}

#[tokio::test]
async fn codes_pass_through_without_asking_another() {
    for code in [2_u8, 3, 5] {
        let refusing = NameServer::start(move |query, _| {
            let mut answer = query.to_vec();
            (answer[2], answer[3]) = (answer[2] | 0x80, code);
            vec![answer]
        })
        .await;
        let other = NameServer::silent().await;
        let asked = request("a.example.", RecordType::A);
        let answer = upstream(&[refusing.addr, other.addr]).ask(&asked, Transport::Udp).await.unwrap();
        assert_eq!(answer[3], code);
        assert!(other.seen().is_empty());
    }
}

#[tokio::test]
async fn the_next_name_server_is_asked_when_one_refuses_or_is_silent() {
    let good = NameServer::start(|query, _| vec![reply(query, &[[192, 0, 2, 1]])]).await;
    let asked = request("a.example.", RecordType::A);
    for transport in [Transport::Udp, Transport::Tcp] {
        let begun = Instant::now();
        upstream(&[closed(9), good.addr]).ask(&asked, transport).await.unwrap();
        assert!(begun.elapsed() < DNS_ATTEMPT_PAUSE, "a refusal is no reason to wait");
    }
    let silent = NameServer::silent().await;
    let begun = Instant::now();
    upstream(&[silent.addr, good.addr]).ask(&asked, Transport::Udp).await.unwrap();
    assert!(begun.elapsed() >= DNS_ATTEMPT_PAUSE && silent.seen().len() == 1);
}

#[tokio::test]
async fn a_late_answer_of_an_earlier_name_server_still_counts() {
    let late = UdpSocketOnce::bind().await;
    let silent = NameServer::silent().await;
    let asked = request("a.example.", RecordType::A);
    let upstream = upstream(&[late.addr(), silent.addr]);
    let (answer, ()) = tokio::join!(upstream.ask(&asked, Transport::Udp), late.answer_once_the_next_was_asked(&silent));
    assert_eq!(answer.unwrap(), reply(asked.bytes(), &[[192, 0, 2, 7]]));
}

struct UdpSocketOnce(tokio::net::UdpSocket);

impl UdpSocketOnce {
    async fn bind() -> Self {
        Self(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn asked(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 512];
        let (length, client) = self.0.recv_from(&mut buffer).await.unwrap();
        buffer.truncate(length);
        (buffer, client)
    }

    async fn answer_once_the_next_was_asked(&self, next: &NameServer) {
        let (query, client) = self.asked().await;
        while next.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.0.send_to(&reply(&query, &[[192, 0, 2, 7]]), client).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_server_that_restarts_is_waited_for() {
    let addr = closed(8);
    let upstream = upstream(&[addr]);
    let asked = request("a.example.", RecordType::A);
    let restart = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let server = UdpSocketOnce(tokio::net::UdpSocket::bind(addr).await.unwrap());
        let (query, client) = server.asked().await;
        server.0.send_to(&reply(&query, &[[192, 0, 2, 1]]), client).await.unwrap();
    };
    let (answer, ()) = tokio::join!(upstream.ask(&asked, Transport::Udp), restart);
    assert_eq!(answer.unwrap(), reply(asked.bytes(), &[[192, 0, 2, 1]]));
}

#[tokio::test]
async fn without_an_answer_the_error_says_why() {
    let asked = request("a.example.", RecordType::A);
    let error = upstream(&[]).ask(&asked, Transport::Udp).await.unwrap_err();
    assert_eq!(error.to_string(), "no name server is configured");
    let addr = closed(9);
    let error = upstream(&[addr]).ask(&asked, Transport::Tcp).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("name server {addr} cannot be asked: ")), "{error}");
    let silent = NameServer::silent().await;
    let begun = Instant::now();
    let error = upstream(&[silent.addr]).ask(&asked, Transport::Udp).await.unwrap_err();
    assert_eq!(error.to_string(), "none of 1 name servers answered within 5s");
    assert!((DNS_QUERY_BUDGET..DNS_QUERY_BUDGET * 2).contains(&begun.elapsed()));
    assert_eq!(silent.seen().len(), 3, "a datagram may get lost");
}
