//! Finds the frames in a stream of HTTP/2 bytes as they pass, however the bytes are cut. Keeps none of them.
//!
//! ```text
//!            +--------------- payload has passed ---------------+
//!            v                                                  |
//!  Skip --> Head --9 bytes--> DATA with padding? --no---------> Skip
//! (preface)                     |                               ^
//!                               +--yes--> Padding --1 byte------+
//! ```
//!
//! # Source
//! RFC 9113 sections 3.4 and 4.1.

use std::ops::ControlFlow;

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// As they stand in the header.
    pub flags: u8,
    /// Bytes of the payload, those of padding left out.
    pub bytes: u32,
}

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a stream.
    Data,
    /// A request or its trailers.
    Headers,
    /// Advice that nobody follows any more.
    Priority,
    /// The end of a stream.
    Reset,
    /// Parameters, or their acknowledgement.
    Settings,
    /// A server's offer; not allowed here.
    PushPromise,
    /// A question whether we are there, or the answer to ours.
    Ping,
    /// No more streams.
    GoAway,
    /// Credit for what we send.
    WindowUpdate,
    /// More of a header block.
    Continuation,
    /// Unknown; to be ignored.
    Other(u8),
}

/// Where in the stream of bytes we are.
#[derive(Debug, Clone)]
pub struct Frames {
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    /// So many bytes are of no interest.
    Skip(u32),
    /// In a header; so many of its bytes are there.
    Head([u8; HEAD_BYTES], u8),
    /// Before the length of the padding.
    Padding(Frame),
}

impl Frames {
    /// What a server reads: the client's preface comes first. Whether it is one is for others to check.
    #[must_use]
    pub fn after_preface() -> Self {
        Self { at: At::Skip(PREFACE_BYTES) }
    }

    /// What a client reads.
    #[must_use]
    pub fn at_once() -> Self {
        Self { at: At::START }
    }

    /// Calls `each` for every frame whose header ends in `bytes`, until it has had enough. Returns how many bytes have
    /// passed: what is left is to be fed again.
    ///
    /// # Errors
    /// The first of `each`. Nothing may be fed after it.
    pub fn feed<E>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Frame) -> Result<ControlFlow<()>, E>,
    ) -> Result<usize, E> {
        let mut rest = bytes;
        let mut flow = ControlFlow::Continue(());
        while !rest.is_empty() && flow.is_continue() {
            (rest, flow) = self.step(rest, &mut each)?;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Passes over some of `bytes`, which are not empty, and returns the rest.
    fn step<'a, E>(
        &mut self,
        bytes: &'a [u8],
        each: &mut impl FnMut(Frame) -> Result<ControlFlow<()>, E>,
    ) -> Result<(&'a [u8], ControlFlow<()>), E> {
        Ok(match &mut self.at {
            At::Skip(left) => {
                let passed = bytes.len().min(*left as usize);
                *left -= passed as u32;
                if *left == 0 {
                    self.at = At::START;
                }
                (bytes.split_at(passed).1, ControlFlow::Continue(()))
            }
            At::Head(head, have) => {
                let known = usize::from(*have);
                let (new, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - known));
                head.iter_mut().skip(known).zip(new).for_each(|(to, from)| *to = *from);
                *have += new.len() as u8;
                let whole = usize::from(*have) == HEAD_BYTES;
                let frame = Frame::parse(*head);
                (rest, if whole { self.begin(frame, each)? } else { ControlFlow::Continue(()) })
            }
            At::Padding(frame) => {
                let (padding, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
                let payload = frame.bytes.saturating_sub(1);
                let frame = Frame { bytes: payload.saturating_sub(padding.into()), ..*frame };
                self.at = At::skip(payload);
                (rest, each(frame)?)
            }
        })
    }

    fn begin<E>(
        &mut self,
        frame: Frame,
        each: &mut impl FnMut(Frame) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        if frame.kind == Kind::Data && frame.flags & PADDED != 0 && frame.bytes > 0 {
            self.at = At::Padding(frame);
            return Ok(ControlFlow::Continue(()));
        }
        self.at = At::skip(frame.bytes);
        each(frame)
    }
}

impl At {
    const START: Self = Self::Head([0; HEAD_BYTES], 0);

    fn skip(bytes: u32) -> Self {
        if bytes == 0 { Self::START } else { Self::Skip(bytes) }
    }
}

impl Frame {
    fn parse([a, b, c, kind, flags, ..]: [u8; HEAD_BYTES]) -> Self {
        Self { kind: Kind::from(kind), flags, bytes: u32::from_be_bytes([0, a, b, c]) }
    }

    /// A DATA frame that brings nothing: neither bytes nor the end of its stream.
    #[must_use]
    pub fn is_idle_talk(&self) -> bool {
        self.kind == Kind::Data && self.bytes == 0 && self.flags & END_STREAM == 0
    }

    /// Header fields, to be decoded as a whole.
    #[must_use]
    pub fn is_header_block(&self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation)
    }

    /// What it takes to handle, in small frames without header fields.
    #[must_use]
    pub fn cost(&self) -> u32 {
        match self.kind {
            Kind::Headers | Kind::Continuation => REQUEST_COST + self.bytes / HEADER_BYTES_PER_COST,
            Kind::Reset => RESET_COST,
            _ => 1,
        }
    }
}

impl From<u8> for Kind {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Other(other),
        }
    }
}

/// A stream begins, and mostly a task.
const REQUEST_COST: u32 = 8;
/// What was begun for a request is undone, and written down.
const RESET_COST: u32 = 24;
/// Header fields of the shortest kind take about as long as a frame for each of these.
const HEADER_BYTES_PER_COST: u32 = 32;
const HEAD_BYTES: usize = 9;
const PREFACE_BYTES: u32 = 24;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

#[cfg(test)]
mod tests;
