//! The addresses in an answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::cursor::Cursor;
use super::{CLASS_IN, HEADER_BYTES, Header, RecordType};

/// What an answer says about a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of one family, in the order of the answer.
    pub ips: Vec<IpAddr>,
    /// The shortest life of all records that led here.
    pub ttl: Duration,
}

/// Why an answer has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnswered {
    /// There is no such name.
    #[error("the name does not exist")]
    NoName,
    /// The server would not or could not say.
    #[error("the name server answered with code {code}")]
    Code {
        /// Response code.
        code: u16,
    },
    /// The answer leads out of the message.
    #[error("the answer is malformed")]
    Malformed,
}

/// The addresses of `name` (lower case, no final dot) in an answer, its other names followed.
///
/// # Errors
/// See [`NotAnswered`]. A name without addresses of this kind is no error.
pub fn addresses(message: &[u8], name: &str, kind: RecordType) -> Result<Addresses, NotAnswered> {
    let header = Header::read(message).ok_or(NotAnswered::Malformed)?;
    match header.code() {
        0 => {}
        CODE_NO_NAME => return Err(NotAnswered::NoName),
        code => return Err(NotAnswered::Code { code }),
    }
    let records = read_answers(message, &header, kind).ok_or(NotAnswered::Malformed)?;
    let (mut owner, mut ttl) = (name, u32::MAX);
    for _ in 0..ALIASES_MAX {
        if let Some(found) = records.addresses.get(owner) {
            let ttl = found.iter().map(|(_, ttl)| *ttl).fold(ttl, u32::min);
            let ips = found.iter().map(|(ip, _)| *ip).collect();
            return Ok(Addresses { ips, ttl: Duration::from_secs(ttl.into()) });
        }
        let Some((next, life)) = records.aliases.get(owner) else { break };
        (owner, ttl) = (next, ttl.min(*life));
    }
    Ok(Addresses::default())
}

#[derive(Default)]
struct Records {
    addresses: HashMap<String, Vec<(IpAddr, u32)>>,
    aliases: HashMap<String, (String, u32)>,
}

fn read_answers(message: &[u8], header: &Header, wanted: RecordType) -> Option<Records> {
    let mut cursor = Cursor::new(message);
    cursor.take(HEADER_BYTES)?;
    let [questions, answers, ..] = header.counts;
    for _ in 0..questions {
        cursor.skip_name()?;
        cursor.take(4)?;
    }
    let mut records = Records::default();
    for _ in 0..answers {
        let owner = cursor.name()?;
        let (kind, class, ttl) = (RecordType(cursor.u16()?), cursor.u16()?, cursor.u32()?);
        let length = usize::from(cursor.u16()?);
        let mut data = cursor.clone();
        let raw = cursor.take(length)?;
        if class != CLASS_IN {
            continue;
        }
        if kind == RecordType::CNAME {
            records.aliases.insert(owner, (data.name()?, ttl));
        } else if kind == wanted {
            records.addresses.entry(owner).or_default().push((read_address(raw)?, ttl));
        }
    }
    Some(records)
}

fn read_address(raw: &[u8]) -> Option<IpAddr> {
    match raw.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(raw).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(raw).ok()?).into()),
        _ => None,
    }
}

/// RFC 1035 section 4.1.1.
const CODE_NO_NAME: u16 = 3;
/// Names that lead from one to the next.
const ALIASES_MAX: usize = 16;
