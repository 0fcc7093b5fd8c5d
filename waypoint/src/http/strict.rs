//! What the bytes of an HTTP/1 client must look like, more strictly than the parser behind it takes them.
//!
//! Two readers of the same bytes must never disagree on where a request ends: whatever could make them is refused here,
//! byte by byte and before the end of the head section, so that nothing of such a request is ever acted upon.
//!
//! ```text
//! Start -> Line -> (Name -> Value)* -> end of head -+-> Length(n) ------------------------------> Start
//!                                                   +-> Size -> Data(n) -> ... -> trailers ------> Start
//!                                                   +-> Held (an upgrade waits for its answer)
//! ```
//!
//! # Source
//! RFC 9112; waypoint specification, malformed and suspicious input.

mod fault;
mod scan;

pub use fault::Fault;
use fault::{CHUNK_EXTENSION_BYTES_MAX, TRAILER_BYTES_MAX};
use scan::{Word, decimal, is_token, printable, skip, take};

/// Reads along with the bytes of one connection. Pure; a few dozen bytes of state.
#[derive(Debug, Clone)]
pub struct Strict {
    at: At,
    /// Trailers follow the same rules as the fields of a head, but decide nothing.
    in_trailers: bool,
    head: Head,
    /// Of the name or method at hand, lower case.
    word: Word<NAME_BYTES>,
    /// Of the value at hand, when the name is one that matters.
    value: Word<VALUE_BYTES>,
    field: Field,
    /// Bytes of the trailers or of the extensions of a chunk so far.
    spent: u32,
}

/// What a piece of bytes means for whoever passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All may pass.
    Fine,
    /// So many may pass; the others must wait until the request before them has its answer.
    HoldAfter(usize),
    /// So many may pass, and then nothing ever.
    Bad(usize, Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a request; so many blank lines were there.
    Start(u8),
    StartFeed(u8),
    Line,
    LineFeed,
    /// At the beginning of a header line.
    Field,
    Name,
    Value,
    ValueFeed,
    /// After the CR of the empty line.
    EndFeed,
    Length(u64),
    Size {
        digits: u8,
        size: u64,
    },
    Extension(u64),
    SizeFeed(u64),
    Data(u64),
    DataReturn,
    DataFeed,
    Held,
}

/// What the head so far says about the body.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Other,
    Length,
    Encoding,
    Upgrade,
}

enum Step {
    On,
    Hold,
}

impl Default for Strict {
    fn default() -> Self {
        Self::new()
    }
}

impl Strict {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            at: At::Start(0),
            in_trailers: false,
            head: Head::default(),
            word: Word::new(),
            value: Word::new(),
            field: Field::Other,
            spent: 0,
        }
    }

    /// Reads along.
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = bytes.len() - rest.len();
            match self.step(&mut rest) {
                Ok(Step::On) => {}
                Ok(Step::Hold) => return Verdict::HoldAfter(bytes.len() - rest.len()),
                Err(fault) => return Verdict::Bad(passed, fault),
            }
        }
        Verdict::Fine
    }

    /// Whether a head has begun and not ended, blank lines before it included.
    #[must_use]
    pub fn in_head(&self) -> bool {
        match self.at {
            At::Start(blank) => blank > 0,
            At::StartFeed(_) => true,
            At::Line | At::LineFeed | At::Field | At::Name | At::Value | At::ValueFeed | At::EndFeed => {
                !self.in_trailers
            }
            _ => false,
        }
    }

    /// Whether there has been nothing but blank lines.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.at, At::Start(_) | At::StartFeed(_))
    }

    /// Takes some of `rest`, which has at least one byte, or goes to a state that does.
    fn step(&mut self, rest: &mut &[u8]) -> Result<Step, Fault> {
        match self.at {
            At::Start(blank) => self.start(blank, rest)?,
            At::StartFeed(blank) => self.line_feed(rest, At::Start(blank))?,
            At::Line => self.line(rest)?,
            At::LineFeed => self.line_feed(rest, At::Field)?,
            At::Field => self.begin_field(rest)?,
            At::Name => self.name(rest)?,
            At::Value => self.value(rest)?,
            At::ValueFeed => {
                expect_feed(take(rest))?;
                self.end_field()?;
                self.at = At::Field;
            }
            At::EndFeed => {
                expect_feed(take(rest))?;
                return self.end_head();
            }
            At::Length(left) => self.at = skip(rest, left).map_or(At::Start(0), At::Length),
            At::Data(left) => self.at = skip(rest, left).map_or(At::DataReturn, At::Data),
            At::Size { digits, size } => self.size(digits, size, take(rest))?,
            At::Extension(size) => self.extension(size, rest)?,
            At::SizeFeed(size) => {
                expect_feed(take(rest))?;
                self.begin_chunk(size);
            }
            At::DataReturn => match take(rest) {
                b'\r' => self.at = At::DataFeed,
                _ => return Err(Fault::ChunkEnd),
            },
            At::DataFeed => match take(rest) {
                b'\n' => self.at = At::SIZE,
                _ => return Err(Fault::ChunkEnd),
            },
            At::Held => return Ok(Step::Hold),
        }
        Ok(Step::On)
    }

    fn line_feed(&mut self, rest: &mut &[u8], next: At) -> Result<(), Fault> {
        expect_feed(take(rest))?;
        self.at = next;
        Ok(())
    }

    fn start(&mut self, blank: u8, rest: &mut &[u8]) -> Result<(), Fault> {
        match rest.first() {
            Some(b'\r') if blank < BLANK_LINES_MAX => {
                take(rest);
                self.at = At::StartFeed(blank + 1);
            }
            Some(b'\r') => return Err(Fault::BlankLines),
            Some(b'\n') => return Err(Fault::BareLineFeed),
            _ => {
                self.head = Head::default();
                self.in_trailers = false;
                self.word.clear();
                self.at = At::Line;
            }
        }
        Ok(())
    }

    /// Method, target and version. What they may be is for the parser to say; where the line ends is for us.
    fn line(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let (text, more) = rest.split_at(printable(rest));
        if self.word.len < NAME_BYTES {
            self.word.extend(text);
        }
        if text.contains(&b'#') {
            return Err(Fault::Fragment);
        }
        *rest = more;
        match more.first() {
            None => {}
            Some(b'\r') => {
                take(rest);
                self.head.connect = self.word.starts_with(b"connect ");
                self.at = At::LineFeed;
            }
            Some(b'\n') => return Err(Fault::BareLineFeed),
            Some(_) => return Err(Fault::Control),
        }
        Ok(())
    }

    fn begin_field(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        match rest.first() {
            Some(b'\r') => {
                take(rest);
                self.at = At::EndFeed;
            }
            Some(b'\n') => return Err(Fault::BareLineFeed),
            Some(b' ' | b'\t') => return Err(Fault::Folded),
            Some(b':') => return Err(Fault::Name),
            _ => {
                self.word.clear();
                self.at = At::Name;
            }
        }
        Ok(())
    }

    fn name(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let length = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
        let (name, more) = rest.split_at(length);
        self.word.extend(name);
        self.spend(name.len())?;
        *rest = more;
        match more.first() {
            None => Ok(()),
            Some(b':') => {
                take(rest);
                self.field = if self.in_trailers { Field::Other } else { Field::of(self.word.text()) };
                self.value.clear();
                self.at = At::Value;
                Ok(())
            }
            Some(b'\n') => Err(Fault::BareLineFeed),
            Some(_) => Err(Fault::Name),
        }
    }

    fn value(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let (text, more) = rest.split_at(printable(rest));
        if self.field != Field::Other {
            self.value.extend(text);
        }
        self.spend(text.len())?;
        *rest = more;
        match more.first() {
            None => {}
            Some(b'\r') => {
                take(rest);
                self.at = At::ValueFeed;
            }
            Some(b'\t') => {
                take(rest);
                if self.field != Field::Other {
                    self.value.extend(b" ");
                }
            }
            Some(b'\n') => return Err(Fault::BareLineFeed),
            Some(_) => return Err(Fault::Control),
        }
        Ok(())
    }

    fn end_field(&mut self) -> Result<(), Fault> {
        match self.field {
            Field::Other => {}
            Field::Length => {
                let length = self.value.trimmed().and_then(decimal).ok_or(Fault::Length)?;
                if self.head.length.is_some_and(|before| before != length) {
                    return Err(Fault::Length);
                }
                self.head.length = Some(length);
            }
            Field::Encoding => {
                if self.head.chunked || self.value.trimmed() != Some(b"chunked") {
                    return Err(Fault::Encoding);
                }
                self.head.chunked = true;
            }
            // One too long to remember may be much white space around it: to wait does no harm.
            Field::Upgrade => self.head.upgrade |= self.value.trimmed().is_none_or(|value| value == b"websocket"),
        }
        if self.head.chunked && self.head.length.is_some() {
            return Err(Fault::BothLengths);
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<Step, Fault> {
        if self.in_trailers {
            self.in_trailers = false;
            self.at = At::Start(0);
            return Ok(Step::On);
        }
        let Head { length, chunked, upgrade, connect } = self.head;
        self.at = match length {
            _ if chunked => At::SIZE,
            Some(length) if length > 0 => At::Length(length),
            _ if upgrade || connect => At::Held,
            _ => At::Start(0),
        };
        Ok(if self.at == At::Held { Step::Hold } else { Step::On })
    }

    fn size(&mut self, digits: u8, size: u64, byte: u8) -> Result<(), Fault> {
        self.at = match (byte, char::from(byte).to_digit(16)) {
            // Fifteen digits are more than any body has, and never too many for the number.
            (_, Some(digit)) if digits < CHUNK_SIZE_DIGITS_MAX => {
                At::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (b'\r', _) if digits > 0 => At::SizeFeed(size),
            (b';', _) if digits > 0 => {
                self.spent = 0;
                At::Extension(size)
            }
            (b'\n', _) => return Err(Fault::BareLineFeed),
            _ => return Err(Fault::ChunkSize),
        };
        Ok(())
    }

    fn extension(&mut self, size: u64, rest: &mut &[u8]) -> Result<(), Fault> {
        let (text, more) = rest.split_at(printable(rest));
        self.spent = self.spent.saturating_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
        if self.spent > CHUNK_EXTENSION_BYTES_MAX {
            return Err(Fault::ChunkExtension);
        }
        *rest = more;
        match more.first() {
            None => Ok(()),
            Some(b'\r') => {
                take(rest);
                self.at = At::SizeFeed(size);
                Ok(())
            }
            Some(b'\n') => Err(Fault::BareLineFeed),
            Some(_) => Err(Fault::Control),
        }
    }

    fn begin_chunk(&mut self, size: u64) {
        self.at = if size > 0 { At::Data(size) } else { At::Field };
        if size == 0 {
            self.in_trailers = true;
            self.spent = 0;
        }
    }

    /// Trailers count; heads are counted by the parser, which answers with the right status.
    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.in_trailers {
            self.spent = self.spent.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
            if self.spent > TRAILER_BYTES_MAX {
                return Err(Fault::Trailers);
            }
        }
        Ok(())
    }
}

impl At {
    const SIZE: Self = Self::Size { digits: 0, size: 0 };
}

impl Field {
    fn of(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"content-length") => Self::Length,
            Some(b"transfer-encoding") => Self::Encoding,
            Some(b"upgrade") => Self::Upgrade,
            _ => Self::Other,
        }
    }
}

fn expect_feed(byte: u8) -> Result<(), Fault> {
    if byte == b'\n' { Ok(()) } else { Err(Fault::BareCarriageReturn) }
}

/// `transfer-encoding`.
const NAME_BYTES: usize = 17;
/// A number of 20 digits with some space around it.
const VALUE_BYTES: usize = 24;
/// Clients are known to send one after a body.
const BLANK_LINES_MAX: u8 = 2;
const CHUNK_SIZE_DIGITS_MAX: u8 = 15;

#[cfg(test)]
mod tests;
