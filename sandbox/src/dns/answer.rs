//! The answer to one DNS message. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Entry, Zone};

/// How the message came; datagrams are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Answers a request; `None` when it is none. `turn` rotates the records, so that clients
/// that take the first one spread.
pub(super) fn respond(zone: &Zone, request: &Message, transport: Transport, turn: u32) -> Option<Vec<u8>> {
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_BYTES_MAX);
        response.set_edns(edns);
    }
    match request.queries.as_slice() {
        _ if request.metadata.op_code != OpCode::Query => fail(&mut response, ResponseCode::NotImp),
        [query] if query.query_class() == DNSClass::IN => answer(zone, query, &mut response, turn),
        [_] => fail(&mut response, ResponseCode::Refused),
        _ => fail(&mut response, ResponseCode::FormErr),
    }
    let bytes = response.to_vec().ok()?;
    let room = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => {
            let offered = request.edns.as_ref().map_or(PLAIN_BYTES_MAX, Edns::max_payload);
            usize::from(offered.clamp(PLAIN_BYTES_MAX, PAYLOAD_BYTES_MAX))
        }
    };
    if bytes.len() <= room {
        return Some(bytes);
    }
    response.truncate().to_vec().ok()
}

fn fail(response: &mut Message, code: ResponseCode) {
    response.metadata.response_code = code;
}

fn answer(zone: &Zone, query: &Query, response: &mut Message, turn: u32) {
    let name = query.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    let ours = zone.is_ours(name);
    response.metadata.authoritative = ours;
    let Some(entries) = zone.find(name) else {
        // There is no way out of the sandbox: names elsewhere do not exist, and saying so at
        // once keeps search lists fast.
        fail(response, ResponseCode::NXDomain);
        negative(zone, ours, response);
        return;
    };
    let mut answers: Vec<Record> = entries
        .iter()
        .filter_map(|entry| {
            let data = data(entry)?;
            let kind = data.record_type();
            let wanted =
                kind == query.query_type() || kind == RecordType::CNAME || query.query_type() == RecordType::ANY;
            wanted.then(|| Record::from_rdata(query.name().clone(), TTL_SECONDS, data))
        })
        .collect();
    if answers.is_empty() {
        negative(zone, ours, response);
        return;
    }
    let turn = usize::try_from(turn).unwrap_or(0) % answers.len();
    answers.rotate_left(turn);
    let targets = entries.iter().filter_map(|entry| match entry {
        Entry::Service { target, .. } if query.query_type() == RecordType::SRV => Some(target),
        Entry::Alias(target) if zone.is_ours(target) => Some(target),
        _ => None,
    });
    for target in targets {
        let addresses = addresses(zone, target);
        let aliased = query.query_type() != RecordType::SRV;
        for (record, kind) in addresses {
            if !aliased {
                response.add_additional(record);
            } else if kind == query.query_type() {
                answers.push(record);
            }
        }
    }
    response.add_answers(answers);
}

/// The addresses of a name, as records.
fn addresses(zone: &Zone, name: &str) -> Vec<(Record, RecordType)> {
    let Ok(owner) = absolute(name) else {
        return Vec::new();
    };
    zone.find(name)
        .unwrap_or_default()
        .iter()
        .filter(|entry| matches!(entry, Entry::Address(_)))
        .filter_map(|entry| {
            let data = data(entry)?;
            let kind = data.record_type();
            Some((Record::from_rdata(owner.clone(), TTL_SECONDS, data), kind))
        })
        .collect()
}

fn data(entry: &Entry) -> Option<RData> {
    Some(match entry {
        Entry::Address(IpAddr::V4(ip)) => RData::A(A(*ip)),
        Entry::Address(IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
        Entry::Service { port, target } => RData::SRV(SRV::new(0, 100, *port, absolute(target).ok()?)),
        Entry::Pointer(target) => RData::PTR(PTR(absolute(target).ok()?)),
        Entry::Alias(target) => RData::CNAME(CNAME(absolute(target).ok()?)),
    })
}

fn absolute(name: &str) -> Result<Name, hickory_proto::ProtoError> {
    let mut name = Name::from_str(name)?;
    name.set_fqdn(true);
    Ok(name)
}

/// The record that says how long "no" may be remembered.
fn negative(zone: &Zone, ours: bool, response: &mut Message) {
    let (true, Ok(owner), Ok(server), Ok(person)) = (
        ours,
        absolute(&zone.domain),
        absolute(&format!("ns.dns.{}", zone.domain)),
        absolute(&format!("hostmaster.{}", zone.domain)),
    ) else {
        return;
    };
    let soa = SOA::new(server, person, 1, 7200, 1800, 86_400, TTL_SECONDS);
    response.add_authority(Record::from_rdata(owner, TTL_SECONDS, RData::SOA(soa)));
}

/// Life of an answer in a resolver's cache (seconds), as cluster DNS servers have it.
const TTL_SECONDS: u32 = 5;
/// Largest datagram for a client without EDNS (RFC 1035, 4.2.1).
const PLAIN_BYTES_MAX: u16 = 512;
/// Largest datagram at all: fits every link without fragments (DNS flag day 2020).
const PAYLOAD_BYTES_MAX: u16 = 1232;

#[cfg(test)]
mod tests;
