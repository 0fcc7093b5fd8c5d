//! A name server that says what the test wants, and messages to ask it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::answer::Transport;

/// Listens on one port of loopback, datagrams and connections.
pub(super) struct NameServer {
    pub(super) addr: SocketAddr,
    seen: Seen,
}

/// Queries in the order in which they came.
type Seen = Arc<Mutex<Vec<(Transport, Vec<u8>)>>>;

impl NameServer {
    /// Sends all messages that `answer` makes of a query.
    pub(super) async fn start(answer: impl Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp, addr) = bind().await;
        let seen = Seen::default();
        let (answer, kept) = (Arc::new(answer), seen.clone());
        let (answer_tcp, kept_tcp) = (answer.clone(), seen.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                let query = buffer[..length].to_vec();
                kept.lock().unwrap().push((Transport::Udp, query.clone()));
                for message in answer(&query, Transport::Udp) {
                    udp.send_to(&message, client).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (answer, kept) = (answer_tcp.clone(), kept_tcp.clone());
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        kept.lock().unwrap().push((Transport::Tcp, query.clone()));
                        let answers = answer(&query, Transport::Tcp);
                        if answers.is_empty() {
                            return;
                        }
                        for message in answers {
                            stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
                            stream.write_all(&message).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { addr, seen }
    }

    /// One that never answers.
    pub(super) async fn silent() -> Self {
        Self::start(|_, _| Vec::new()).await
    }

    /// What it was asked so far.
    pub(super) fn seen(&self) -> Vec<(Transport, Vec<u8>)> {
        self.seen.lock().unwrap().clone()
    }
}

/// The same port for both; one that is free for the first may be taken for the second.
async fn bind() -> (UdpSocket, TcpListener, SocketAddr) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(addr).await {
            return (udp, tcp, addr);
        }
    }
}

/// An address where nobody listens: of no other test, on a port that nobody gets by chance.
pub(super) fn closed(last: u8) -> SocketAddr {
    ([127, 0, 0, last], 20_053).into()
}

pub(super) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// The answer to `query` with these addresses.
pub(super) fn reply(query: &[u8], addresses: &[[u8; 4]]) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    let name = message.queries[0].name().clone();
    message.add_answers(
        addresses.iter().map(|ip| Record::from_rdata(name.clone(), 60, RData::A(A(std::net::Ipv4Addr::from(*ip))))),
    );
    message.to_vec().unwrap()
}

/// The answer to `query` with so many bytes of text.
pub(super) fn long_reply(query: &[u8], bytes: usize) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    let name = message.queries[0].name().clone();
    let texts = vec!["x".repeat(200); bytes / 200];
    message.add_answer(Record::from_rdata(name, 60, RData::TXT(TXT::new(texts))));
    message.to_vec().unwrap()
}

/// The answer to `query` that does not fit.
pub(super) fn truncated_reply(query: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.truncation = true;
    message.to_vec().unwrap()
}
