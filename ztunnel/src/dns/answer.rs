//! Writes the answers that are the proxy's own. Pure.

use std::net::IpAddr;

use super::lookup::Answer;
use super::message::{
    CLASS_IN, FLAG_AUTHORITATIVE, FLAG_CHECKING_DISABLED, FLAG_RECURSION_AVAILABLE, FLAG_RECURSION_DESIRED,
    FLAG_RESPONSE, FLAG_TRUNCATED, HEADER_BYTES, Header, OPCODE_MASK, ReadError, RecordType, Request,
};

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection, after its length.
    Tcp,
}

impl Transport {
    /// Value of the metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// The answer to a question about a name that the mesh owns. `None`: the request has no question.
#[must_use]
pub fn encode(request: &Request, answer: &Answer, transport: Transport) -> Option<Vec<u8>> {
    let question = request.question_bytes()?;
    let limit = match transport {
        Transport::Udp => usize::from(payload(request)),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let reserved = if request.edns().is_some() { OPT_BYTES } else { 0 };
    let mut records =
        Records { out: Vec::with_capacity(limit.min(512)), limit: limit.saturating_sub(reserved), count: 0 };
    records.out.extend([0; HEADER_BYTES]);
    records.out.extend(question);
    let owner = match answer.alias_labels.map(|labels| alias(question, labels)) {
        None => Some(ASKED_NAME),
        Some(alias) => records.alias(&alias),
    };
    let complete = owner.is_some_and(|owner| answer.addresses.iter().all(|ip| records.address(owner, *ip)));
    let Records { mut out, count, .. } = records;
    if request.edns().is_some() {
        put_opt(&mut out, request);
    }
    let truncated = if complete { 0 } else { FLAG_TRUNCATED };
    let asked = request.header().flags & (FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED);
    let flags = FLAG_RESPONSE | FLAG_AUTHORITATIVE | FLAG_RECURSION_AVAILABLE | truncated | asked;
    let additional = u16::from(request.edns().is_some());
    put_header(&mut out, request.header().id, flags, [1, count, 0, additional]);
    Some(out)
}

/// What is said about a message that could not be read; `None` when nobody could be told.
#[must_use]
pub fn complaint(error: &ReadError) -> Option<Vec<u8>> {
    let header = match error {
        ReadError::Short { .. } => return None,
        ReadError::Response { header } | ReadError::Malformed { header } => header,
    };
    let Header { id, flags, .. } = header;
    let kept = flags & (OPCODE_MASK | FLAG_RECURSION_DESIRED);
    let mut out = vec![0; HEADER_BYTES];
    put_header(&mut out, *id, kept | FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | CODE_FORMAT, [0; 4]);
    Some(out)
}

struct Records {
    out: Vec<u8>,
    /// Bytes that the records may reach to.
    limit: usize,
    count: u16,
}

impl Records {
    /// Says that the asked name stands for another; tells where that one is.
    fn alias(&mut self, target: &[u8]) -> Option<u16> {
        let at = self.out.len() + RECORD_BYTES;
        let at = u16::try_from(at).ok().filter(|at| *at < POINTER)?;
        self.put(ASKED_NAME, RecordType::CNAME, target).then_some(at)
    }

    fn address(&mut self, owner: u16, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.put(owner, RecordType::A, &ip.octets()),
            IpAddr::V6(ip) => self.put(owner, RecordType::AAAA, &ip.octets()),
        }
    }

    /// False when the record does not fit.
    fn put(&mut self, owner: u16, kind: RecordType, data: &[u8]) -> bool {
        let Ok(length) = u16::try_from(data.len()) else { return false };
        if self.out.len() + RECORD_BYTES + data.len() > self.limit {
            return false;
        }
        put_u16(&mut self.out, &[POINTER | owner, kind.0, CLASS_IN]);
        self.out.extend(TTL_SECONDS.to_be_bytes());
        put_u16(&mut self.out, &[length]);
        self.out.extend(data);
        self.count = self.count.saturating_add(1);
        true
    }
}

/// The first `labels` labels of the asked name, as they were written.
fn alias(question: &[u8], labels: usize) -> Vec<u8> {
    let mut alias = Vec::new();
    let mut rest = question;
    for _ in 0..labels {
        let Some((length, after)) = rest.split_first() else { break };
        let Some((label, after)) = after.split_at_checked((*length).into()) else { break };
        alias.push(*length);
        alias.extend(label);
        rest = after;
    }
    alias.push(0);
    alias
}

/// What the client takes in one datagram.
fn payload(request: &Request) -> u16 {
    request.edns().map_or(PLAIN_BYTES_MAX, |edns| edns.payload.max(PLAIN_BYTES_MAX))
}

fn put_opt(out: &mut Vec<u8>, request: &Request) {
    let dnssec = if request.edns().is_some_and(|edns| edns.dnssec_ok) { 0x8000 } else { 0 };
    // The root's name.
    out.push(0);
    put_u16(out, &[RecordType::OPT.0, payload(request), 0, dnssec, 0]);
}

fn put_header(out: &mut [u8], id: u16, flags: u16, counts: [u16; 4]) {
    let [questions, answers, authorities, additionals] = counts;
    let words = [id, flags, questions, answers, authorities, additionals];
    for (place, byte) in out.iter_mut().zip(words.into_iter().flat_map(u16::to_be_bytes)) {
        *place = byte;
    }
}

fn put_u16(out: &mut Vec<u8>, words: &[u16]) {
    out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}

/// Life of an answer in a client's cache.
const TTL_SECONDS: u32 = 30;
/// Largest datagram for a client without EDNS (RFC 1035 section 4.2.1).
const PLAIN_BYTES_MAX: u16 = 512;
/// The server could not read the message.
const CODE_FORMAT: u16 = 1;
/// Marks a reference to an earlier name.
const POINTER: u16 = 0xc000;
/// The question comes right after the header.
const ASKED_NAME: u16 = HEADER_BYTES as u16;
/// Bytes of a record before its data, with a reference for its owner.
const RECORD_BYTES: usize = 12;
/// Bytes of an OPT record without options.
const OPT_BYTES: usize = 11;

#[cfg(test)]
mod tests;
