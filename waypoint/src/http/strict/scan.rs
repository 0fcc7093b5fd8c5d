//! Passing over bytes, and remembering a few of them.

/// The first bytes of something, and whether there were more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<const MAX: usize> {
    bytes: [u8; MAX],
    pub(super) len: usize,
}

impl<const MAX: usize> Word<MAX> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MAX], len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn extend(&mut self, text: &[u8]) {
        let free = self.bytes.iter_mut().skip(self.len);
        free.zip(text).for_each(|(to, from)| *to = from.to_ascii_lowercase());
        self.len = self.len.saturating_add(text.len());
    }

    /// `None` when it was longer than anything that matters.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }

    pub(super) fn trimmed(&self) -> Option<&[u8]> {
        self.text().map(|text| text.trim_ascii())
    }

    pub(super) fn starts_with(&self, prefix: &[u8]) -> bool {
        self.bytes.get(..self.len.min(MAX)).is_some_and(|text| text.starts_with(prefix))
    }
}

/// The first byte, which is there.
pub(super) fn take(rest: &mut &[u8]) -> u8 {
    match rest.split_first() {
        Some((first, more)) => {
            *rest = more;
            *first
        }
        None => 0,
    }
}

/// Passes over up to `left` bytes; what is left then, unless it is nothing.
pub(super) fn skip(rest: &mut &[u8], left: u64) -> Option<u64> {
    let passed = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
    *rest = rest.split_at(passed).1;
    Some(left - passed as u64).filter(|left| *left > 0)
}

/// How many bytes come before the first control character. Whole blocks are looked at together: head sections are short
/// and everywhere.
pub(super) fn printable(bytes: &[u8]) -> usize {
    let is_control = |byte: &u8| *byte < b' ' || *byte == 0x7f;
    let blocks = bytes.chunks_exact(BLOCK_BYTES);
    let clean = blocks.take_while(|block| !block.iter().fold(false, |any, byte| any | is_control(byte))).count();
    let passed = clean * BLOCK_BYTES;
    let rest = bytes.get(passed..).unwrap_or_default();
    passed + rest.iter().position(is_control).unwrap_or(rest.len())
}

pub(super) fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|length| *length < LENGTH_MAX)
}

const fn tokens() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::indexing_slicing)] // a constant is computed while compiling
        {
            table[byte] = (byte as u8).is_ascii_alphanumeric()
                || matches!(byte as u8, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.')
                || matches!(byte as u8, b'^' | b'_' | b'`' | b'|' | b'~');
        }
        byte += 1;
    }
    table
}

static TOKEN: [bool; 256] = tokens();
const BLOCK_BYTES: usize = 16;
/// The parser's own limit.
const LENGTH_MAX: u64 = u64::MAX - 2;
