//! Reads DNS messages as far as a proxy has to, and no further. Pure; every byte may be hostile.
//!
//! # Source
//! RFC 1035 section 4, RFC 6891 (EDNS).

mod cursor;
mod record;

use std::fmt;

use cursor::Cursor;
pub use record::{Addresses, NotAnswered, addresses};

/// Bytes of the header that every message begins with.
pub const HEADER_BYTES: usize = 12;

/// A message from a client, kept as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    bytes: Box<[u8]>,
    header: Header,
    question: Option<Question>,
    edns: Option<Edns>,
}

/// The first twelve bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by whoever asks.
    pub id: u16,
    /// See the constants.
    pub flags: u16,
    /// Records of the four sections.
    pub counts: [u16; 4],
}

/// The only question of a standard query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the final dot; bytes that no host name has are escaped.
    pub name: String,
    /// What is asked for.
    pub kind: RecordType,
    /// 1: the Internet.
    pub class: u16,
    /// Where in the message the question ends.
    pub(super) end: usize,
}

/// What the client says of itself in an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest datagram that it takes.
    pub payload: u16,
    /// Version of EDNS.
    pub version: u8,
    /// Whether it wants DNSSEC records.
    pub dnssec_ok: bool,
}

/// Type of a record, or of all that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordType(pub u16);

/// Why a message is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nobody could be answered.
    #[error("message of {bytes} bytes is shorter than a DNS header")]
    Short {
        /// Length of the message.
        bytes: usize,
    },
    /// An answer where a query is expected.
    #[error("message is a response, expected a query")]
    Response {
        /// Of the message.
        header: Header,
    },
    /// Counts, names or lengths lead out of the message.
    #[error("query is malformed")]
    Malformed {
        /// Of the message.
        header: Header,
    },
}

impl Request {
    /// Reads what a client sent. Only standard queries are looked into; an update or a notification need not have the
    /// same shape.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let header = Header::read(bytes).ok_or(ReadError::Short { bytes: bytes.len() })?;
        if header.is_response() {
            return Err(ReadError::Response { header });
        }
        let (question, edns) = if header.opcode() == OPCODE_QUERY {
            read_sections(bytes, &header).ok_or(ReadError::Malformed { header })?
        } else {
            (None, None)
        };
        Ok(Self { bytes: bytes.into(), header, question, edns })
    }

    /// The message as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The question, if this is a standard query with exactly one.
    #[must_use]
    pub fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }

    /// Its OPT record.
    #[must_use]
    pub fn edns(&self) -> Option<&Edns> {
        self.edns.as_ref()
    }

    /// The question as it was written, case included.
    pub(super) fn question_bytes(&self) -> Option<&[u8]> {
        self.bytes.get(HEADER_BYTES..self.question.as_ref()?.end)
    }

    /// Whether `reply` is an answer to this very message: same id, same kind, same question. Servers may leave the
    /// question out of an error.
    #[must_use]
    pub fn is_answered_by(&self, reply: &[u8]) -> bool {
        let Some(header) = Header::read(reply) else { return false };
        if !header.is_response() || header.id != self.header.id || header.opcode() != self.header.opcode() {
            return false;
        }
        let Some(asked) = self.question_bytes() else { return true };
        let [questions, ..] = header.counts;
        if questions == 0 {
            return header.code() != 0;
        }
        let end = HEADER_BYTES + asked.len();
        questions == 1 && reply.get(HEADER_BYTES..end).is_some_and(|answered| answered.eq_ignore_ascii_case(asked))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, header, question, edns } = self;
        f.debug_struct("Request")
            .field("bytes", &bytes.len())
            .field("header", header)
            .field("question", question)
            .field("edns", edns)
            .finish()
    }
}

impl Header {
    /// `None` when the message is too short.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let (id, flags) = (cursor.u16()?, cursor.u16()?);
        Some(Self { id, flags, counts: [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?] })
    }

    /// Whether the message answers another.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }

    /// What kind of message it is; 0: standard query.
    #[must_use]
    pub fn opcode(&self) -> u16 {
        self.flags & OPCODE_MASK
    }

    /// How it went; 0: well.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.flags & CODE_MASK
    }

    /// Whether the answer did not fit.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.flags & FLAG_TRUNCATED != 0
    }
}

impl RecordType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Other name.
    pub const CNAME: Self = Self(5);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// EDNS.
    pub const OPT: Self = Self(41);

    /// Name of the type in lower case; one word for all that are rarely seen, so that clients cannot make up labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        KNOWN_TYPES.iter().find(|(number, _)| *number == self.0).map_or("unknown", |(_, label)| label)
    }
}

/// Walks all four sections: what leads out of the message must not be passed on as if it were a query.
fn read_sections(bytes: &[u8], header: &Header) -> Option<(Option<Question>, Option<Edns>)> {
    let mut cursor = Cursor::new(bytes);
    cursor.take(HEADER_BYTES)?;
    let [questions, answers, authorities, additionals] = header.counts;
    let mut question = None;
    for _ in 0..questions {
        let name = cursor.plain_name()?;
        let (kind, class) = (RecordType(cursor.u16()?), cursor.u16()?);
        question = Some(Question { name, kind, class, end: cursor.at() });
    }
    let mut edns = None;
    for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(additionals) {
        cursor.skip_name()?;
        let (kind, class, ttl) = (RecordType(cursor.u16()?), cursor.u16()?, cursor.u32()?);
        let length = cursor.u16()?;
        cursor.take(length.into())?;
        if kind == RecordType::OPT {
            let [_, version, flags, _] = ttl.to_be_bytes();
            edns = Some(Edns { payload: class, version, dnssec_ok: flags & 0x80 != 0 });
        }
    }
    Some((question.filter(|_| questions == 1), edns))
}

pub(super) const FLAG_RESPONSE: u16 = 0x8000;
pub(super) const FLAG_AUTHORITATIVE: u16 = 0x0400;
pub(super) const FLAG_TRUNCATED: u16 = 0x0200;
pub(super) const FLAG_RECURSION_DESIRED: u16 = 0x0100;
pub(super) const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
pub(super) const FLAG_CHECKING_DISABLED: u16 = 0x0010;
pub(super) const OPCODE_MASK: u16 = 0x7800;
pub(super) const CODE_MASK: u16 = 0x000f;
const OPCODE_QUERY: u16 = 0;
/// The Internet.
pub(super) const CLASS_IN: u16 = 1;

/// What applications ask for.
const KNOWN_TYPES: [(u16, &str); 22] = [
    (1, "a"),
    (28, "aaaa"),
    (2, "ns"),
    (5, "cname"),
    (6, "soa"),
    (12, "ptr"),
    (15, "mx"),
    (16, "txt"),
    (33, "srv"),
    (35, "naptr"),
    (39, "dname"),
    (43, "ds"),
    (46, "rrsig"),
    (47, "nsec"),
    (48, "dnskey"),
    (52, "tlsa"),
    (64, "svcb"),
    (65, "https"),
    (251, "ixfr"),
    (252, "axfr"),
    (255, "any"),
    (257, "caa"),
];

#[cfg(test)]
mod tests;
