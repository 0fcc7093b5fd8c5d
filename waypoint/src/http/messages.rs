//! Counts the messages of a gRPC body without keeping any of it.

/// Where in the body we are.
///
/// # Source
/// gRPC over HTTP/2: each message has a prefix of one byte of flags and four of length.
#[derive(Debug, Clone, Default)]
pub(crate) struct Messages {
    count: u64,
    /// Of the prefix at hand.
    prefix_bytes: u8,
    length: u32,
    /// Of the message at hand.
    left: u32,
}

impl Messages {
    /// Messages that have begun.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Reads along.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = bytes.len().min(self.left as usize);
                self.left -= passed as u32;
                bytes = bytes.split_at(passed).1;
                continue;
            }
            if self.prefix_bytes > 0 {
                self.length = self.length << 8 | u32::from(*first);
            }
            self.prefix_bytes += 1;
            if self.prefix_bytes == PREFIX_BYTES {
                self.count += 1;
                (self.prefix_bytes, self.left, self.length) = (0, self.length, 0);
            }
            bytes = rest;
        }
    }
}

const PREFIX_BYTES: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_however_they_are_cut() {
        let body = [b"\0\0\0\0\x02ab".as_slice(), b"\x01\0\0\0\0", b"\0\0\0\x01\0", &[7; 256], b"\0\0\0"].concat();
        for size in [1, 2, 3, 7, 300] {
            let mut messages = Messages::default();
            body.chunks(size).for_each(|piece| messages.pass(piece));
            assert_eq!(messages.count(), 3, "pieces of {size}");
        }
    }
}
