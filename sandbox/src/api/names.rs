//! Generated names and UIDs.

use rand::Rng;

/// Letters and digits that form no words and are hard to confuse.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of a generated suffix.
const SUFFIX_CHARS: usize = 5;
/// Longest base kept when a name is generated, so that the result stays a DNS label.
const BASE_CHARS_MAX: usize = 58;

/// A random suffix for a name.
pub(crate) fn suffix() -> String {
    let mut random = rand::rng();
    let pick = |_| {
        let at = random.random_range(0..ALPHABET.len());
        char::from(ALPHABET.get(at).copied().unwrap_or(b'x'))
    };
    (0..SUFFIX_CHARS).map(pick).collect()
}

/// A name from a `generateName`.
pub(crate) fn generate(base: &str) -> String {
    let base: String = base.chars().take(BASE_CHARS_MAX).collect();
    format!("{base}{}", suffix())
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uid() -> String {
    let bits: u128 = rand::rng().random();
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4_and_differ() {
        let (one, two) = (uid(), uid());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]));
    }

    #[test]
    fn generated_names_stay_labels() {
        let name = generate(&"a".repeat(100));
        assert_eq!(name.len(), 63);
        assert!(generate("web-").starts_with("web-"));
    }
}
