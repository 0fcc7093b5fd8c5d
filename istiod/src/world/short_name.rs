//! Names that fit where 63 characters are the most: labels, and the names of Services.

use std::borrow::Cow;

use mesh_core::names::NamespacedName;

use super::World;

/// A name as it is; one that is too long is cut and told apart from others by a digest of the whole.
pub fn short_name(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_MAX {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("{}-{:0DIGEST_DIGITS$x}", head(name), digest(name)))
}

/// What a name and its short form have in common at least.
pub(super) fn head(name: &str) -> &str {
    let end = (0..=NAME_MAX - 1 - DIGEST_DIGITS).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    name.get(..end).unwrap_or_default().trim_end_matches(['-', '.'])
}

impl World {
    /// The Gateway that a label of something that was made for it means.
    pub fn labelled_gateway(&self, namespace: &str, label: &str) -> NamespacedName {
        let key = NamespacedName::new(namespace, label);
        if label.len() < NAME_MAX - 2 || self.gateways.contains_key(&key) {
            return key;
        }
        let mut near = super::store::in_namespace(&self.gateways, namespace).map(|(key, _)| key);
        near.find(|other| short_name(&other.name) == label).cloned().unwrap_or(key)
    }
}

/// FNV-1a, which is the same everywhere and always: names must not change with a release.
fn digest(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step) & ((1 << (4 * DIGEST_DIGITS)) - 1)
}

/// Longest value of a label, and longest name of a Service.
const NAME_MAX: usize = 63;
/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_stay_and_others_differ_by_their_digest() {
        let most = "x".repeat(63);
        assert_eq!(short_name(&most), most);
        let (one, other) = ("x".repeat(250) + "one", "x".repeat(250) + "two");
        let (one, other) = (short_name(&one), short_name(&other));
        assert_ne!(one, other);
        for name in [&one, &other] {
            assert_eq!(name.len(), 63);
            assert!(name.starts_with(head(&"x".repeat(100))) && name.ends_with(|c: char| c.is_ascii_hexdigit()));
        }
        // What is cut ends in a letter or digit.
        assert!(short_name(&("x".repeat(50) + "--.---" + &"y".repeat(50))).starts_with(&("x".repeat(50) + "-")));
    }
}
