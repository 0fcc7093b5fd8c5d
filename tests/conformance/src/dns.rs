//! DNS messages, as far as tests need them (RFC 1035, RFC 6891).

mod name_server;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use name_server::{NameServer, Query};

use crate::net::Pod;
use crate::wait::soon;

/// A.
pub const A: u16 = 1;
/// CNAME.
pub const CNAME: u16 = 5;
/// MX.
pub const MX: u16 = 15;
/// TXT.
pub const TXT: u16 = 16;
/// AAAA.
pub const AAAA: u16 = 28;
/// SRV.
pub const SRV: u16 = 33;
/// OPT.
pub const OPT: u16 = 41;

/// No error.
pub const NOERROR: u8 = 0;
/// The message could not be read.
pub const FORMERR: u8 = 1;
/// The server failed.
pub const SERVFAIL: u8 = 2;
/// No such name.
pub const NXDOMAIN: u8 = 3;
/// Not implemented.
pub const NOTIMP: u8 = 4;

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Id.
    pub id: u16,
    /// All flag bits.
    pub flags: u16,
    /// Name and type asked for.
    pub question: Option<(String, u16)>,
    /// Answers.
    pub answers: Vec<Record>,
    /// Records of the other sections.
    pub others: Vec<Record>,
    /// The bytes.
    pub raw: Vec<u8>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Owner, lower case, with the final dot.
    pub owner: String,
    /// Type.
    pub kind: u16,
    /// Class; the payload size of OPT.
    pub class: u16,
    /// Time to live.
    pub ttl: u32,
    /// Data, bare.
    pub data: Vec<u8>,
    /// Data as a name, for CNAME.
    pub name: Option<String>,
}

impl Message {
    /// Response code.
    #[must_use]
    pub fn rcode(&self) -> u8 {
        (self.flags & 0xf) as u8
    }

    /// Authoritative answer.
    #[must_use]
    pub fn authoritative(&self) -> bool {
        self.flags & 0x0400 != 0
    }

    /// Cut short.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// Recursion available.
    #[must_use]
    pub fn recursion_available(&self) -> bool {
        self.flags & 0x0080 != 0
    }

    /// Is a response.
    #[must_use]
    pub fn response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// The addresses of the answers with their owners.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, IpAddr)> {
        let ip = |record: &Record| {
            let four = <[u8; 4]>::try_from(&*record.data).ok().filter(|_| record.kind == A).map(IpAddr::from);
            let six = || <[u8; 16]>::try_from(&*record.data).ok().filter(|_| record.kind == AAAA).map(IpAddr::from);
            Some((record.owner.clone(), four.or_else(six)?))
        };
        self.answers.iter().filter_map(ip).collect()
    }

    /// Reads a message.
    #[must_use]
    pub fn read(raw: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(raw.get(at..at + 2)?.try_into().ok()?));
        let counts = [word(4)?, word(6)?, word(8)?, word(10)?];
        let mut at = 12;
        let mut question = None;
        for _ in 0..counts[0] {
            let name = name(raw, &mut at)?;
            question = Some((name, word(at)?));
            at += 4;
        }
        let mut records = Vec::new();
        for _ in 0..counts[1] + counts[2] + counts[3] {
            let owner = name(raw, &mut at)?;
            let (kind, class, len) = (word(at)?, word(at + 2)?, usize::from(word(at + 8)?));
            let ttl = u32::from_be_bytes(raw.get(at + 4..at + 8)?.try_into().ok()?);
            let mut inside = at + 10;
            let data = raw.get(inside..inside + len)?.to_vec();
            let target = if kind == CNAME { name(raw, &mut inside) } else { None };
            records.push(Record { owner, kind, class, ttl, data, name: target });
            at += 10 + len;
        }
        let others = records.split_off(usize::from(counts[1]));
        Some(Self { id: word(0)?, flags: word(2)?, question, answers: records, others, raw: raw.to_vec() })
    }
}

/// A query with recursion desired.
#[must_use]
pub fn query(id: u16, host: &str, kind: u16) -> Vec<u8> {
    message(id, 0x0100, host, kind, &[])
}

/// [`query`] that takes UDP answers of this size.
#[must_use]
pub fn query_edns(id: u16, host: &str, kind: u16, payload: u16) -> Vec<u8> {
    let mut bytes = query(id, host, kind);
    bytes[11] = 1;
    bytes.push(0);
    bytes.extend(OPT.to_be_bytes());
    bytes.extend(payload.to_be_bytes());
    bytes.extend([0; 6]);
    bytes
}

/// Any message with one question and answers `(type, ttl, data)` owned by its name.
#[must_use]
pub fn message(id: u16, flags: u16, host: &str, kind: u16, answers: &[(u16, u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, flags, 1, u16::try_from(answers.len()).unwrap(), 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(encode(host));
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    for (kind, ttl, data) in answers {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// A name on the wire.
#[must_use]
pub fn encode(host: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in host.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Asks as an application does: by UDP from inside the pod.
pub async fn ask(pod: &Pod, server: SocketAddr, query: &[u8]) -> Message {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = pod.udp(any.parse().unwrap());
    socket.connect(server).await.unwrap();
    let mut buffer = vec![0; 65536];
    let what = format!("an answer to {query:?}");
    let received = soon(&what, async {
        loop {
            socket.send(query).await.unwrap();
            // A lost packet is asked again, as resolvers do.
            if let Ok(Ok(len)) = tokio::time::timeout(Duration::from_secs(9), socket.recv(&mut buffer)).await {
                return len;
            }
        }
    });
    let len = received.await;
    Message::read(&buffer[..len]).expect("a message")
}

/// Asks by TCP.
pub async fn ask_tcp(pod: &Pod, server: SocketAddr, query: &[u8]) -> Message {
    soon("an answer by TCP", async {
        let mut stream = pod.connect(server).await.unwrap();
        stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
        stream.write_all(query).await.unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; usize::from(len)];
        stream.read_exact(&mut bytes).await.unwrap();
        Message::read(&bytes).expect("a message")
    })
    .await
}

fn name(raw: &[u8], at: &mut usize) -> Option<String> {
    let mut text = String::new();
    let (mut here, mut jumped) = (*at, false);
    for _ in 0..128 {
        let len = *raw.get(here)?;
        if len & 0xc0 == 0xc0 {
            let target = usize::from(u16::from_be_bytes([len & 0x3f, *raw.get(here + 1)?]));
            if !jumped {
                *at = here + 2;
            }
            (here, jumped) = (target, true);
            continue;
        }
        let end = here + 1 + usize::from(len);
        if len == 0 {
            if !jumped {
                *at = end;
            }
            return Some(if text.is_empty() { ".".to_owned() } else { text });
        }
        text.push_str(&String::from_utf8_lossy(raw.get(here + 1..end)?).to_lowercase());
        text.push('.');
        here = end;
    }
    None
}
