//! Steps through a message without ever leaving it.

use std::fmt::Write as _;

/// A place in a message.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// One element of a name.
enum Step<'a> {
    Label(&'a [u8]),
    /// The rest of the name is there.
    Pointer(usize),
    End,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let [byte] = self.array()?;
        Some(byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A name without pointers, as the first question of a message has it.
    pub(super) fn plain_name(&mut self) -> Option<String> {
        let start = self.at;
        let mut name = String::new();
        loop {
            match self.step()? {
                Step::Label(label) => push_label(&mut name, label),
                Step::Pointer(_) => return None,
                Step::End => break,
            }
        }
        (self.at - start <= NAME_BYTES_MAX).then_some(name)
    }

    /// A name that may use what the message said before.
    pub(super) fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut place = self.clone();
        let mut bytes = 0;
        // Where the first pointer stands the name ends for those who go on reading after it.
        let mut jumped = false;
        loop {
            let here = place.at;
            match place.step()? {
                Step::Label(label) => {
                    bytes += label.len() + 1;
                    push_label(&mut name, label);
                }
                // Only back: else it may go round for ever.
                Step::Pointer(target) if target < here => {
                    if !jumped {
                        self.at = place.at;
                    }
                    jumped = true;
                    place.at = target;
                    bytes += POINTER_BYTES;
                }
                Step::Pointer(_) => return None,
                Step::End => break,
            }
            if bytes > NAME_BYTES_MAX {
                return None;
            }
        }
        if !jumped {
            self.at = place.at;
        }
        Some(name)
    }

    /// Goes on after a name.
    pub(super) fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.step()? {
                Step::Label(_) => {}
                Step::Pointer(_) | Step::End => return Some(()),
            }
        }
    }

    fn step(&mut self) -> Option<Step<'a>> {
        let first = self.u8()?;
        match first >> 6 {
            0 if first == 0 => Some(Step::End),
            0 => self.take(first.into()).map(Step::Label),
            3 => {
                let second = self.u8()?;
                Some(Step::Pointer(usize::from(u16::from_be_bytes([first & 0x3f, second]))))
            }
            _ => None,
        }
    }
}

/// Bytes that are no part of a host name are escaped, so that the text cannot be mistaken for another name.
fn push_label(name: &mut String, label: &[u8]) {
    if !name.is_empty() {
        name.push('.');
    }
    for byte in label {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' => name.push(char::from(*byte)),
            b'A'..=b'Z' => name.push(char::from(byte.to_ascii_lowercase())),
            other => {
                let _ = write!(name, "\\{other:03}");
            }
        }
    }
}

/// RFC 1035 section 2.3.4, length bytes included.
const NAME_BYTES_MAX: usize = 255;
/// Counted as bytes of the name, so that a chain of pointers ends.
const POINTER_BYTES: usize = 2;
