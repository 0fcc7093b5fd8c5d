//! A byte stream that both ends can compute, and its digest.

use aws_lc_rs::digest;

/// Endless bytes without short repeats (a linear congruential generator): a lost, doubled or swapped
/// block changes the digest.
#[derive(Debug, Clone)]
pub struct Pattern {
    state: u64,
}

impl Pattern {
    /// The stream that `seed` starts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Fills `buffer` with the next bytes. Its length must be a multiple of 8, which keeps streams of
    /// different chunk sizes equal.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        debug_assert!(buffer.len().is_multiple_of(8), "chunks are whole words");
        for word in buffer.chunks_mut(8) {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for (to, from) in word.iter_mut().zip(self.state.to_le_bytes()) {
                *to = from;
            }
        }
    }

    /// SHA-256 of the next `bytes` bytes, in hex.
    #[must_use]
    pub fn digest(mut self, bytes: u64) -> String {
        let mut digest = Digest::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = bytes;
        while left > 0 {
            self.fill(&mut chunk);
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            digest.update(chunk.get(..take).unwrap_or_default());
            left -= take as u64;
        }
        digest.finish()
    }
}

/// A running SHA-256.
pub struct Digest(digest::Context);

impl Default for Digest {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Digest {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest in hex.
    #[must_use]
    pub fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One write or read.
pub const CHUNK_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_does_not_depend_on_the_chunk_size() {
        let (mut a, mut b) = (Pattern::new(7), Pattern::new(7));
        let (mut whole, mut parts) = (vec![0; 64], vec![0; 64]);
        a.fill(&mut whole);
        parts.chunks_mut(16).for_each(|part| b.fill(part));
        assert_eq!(whole, parts);
        let mut digest = Digest::default();
        digest.update(&whole[..40]);
        assert_eq!(Pattern::new(7).digest(40), digest.finish());
        assert_ne!(Pattern::new(7).digest(40), Pattern::new(8).digest(40));
    }
}
