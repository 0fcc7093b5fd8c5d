//! Bounds of what a table may hold.

/// Bounds of one table. The defaults are far above what Kubernetes objects can express and far below what hurts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Backends of the resource that the table belongs to: every index must be below.
    pub backends: usize,
    /// Entries of all hosts together.
    pub entries: usize,
    /// Rules.
    pub rules: usize,
    /// Conditions of one entry.
    pub conditions: usize,
    /// Different regular expressions of one table.
    pub patterns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { backends: usize::MAX, entries: 200_000, rules: 100_000, conditions: 256, patterns: 16_384 }
    }
}

/// Longest text of a regular expression, in bytes.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// Largest compiled form of a regular expression, in bytes.
pub const PATTERN_PROGRAM_BYTES_MAX: usize = 256 * 1024;
/// Largest memory that matching one regular expression may take for speed; past it, matching is slower, never wrong.
pub const PATTERN_CACHE_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting in a regular expression.
pub const PATTERN_NESTING_MAX: u32 = 64;
/// Largest body of a direct response.
pub const DIRECT_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest host without its port, in bytes (RFC 1035 names are shorter).
pub const HOST_BYTES_MAX: usize = 255;
/// Longest header value that a template may make, in bytes.
pub const TEMPLATE_VALUE_BYTES_MAX: usize = 16 * 1024;
/// Longest path that a rewrite may make, in bytes.
pub const REWRITTEN_PATH_BYTES_MAX: usize = 64 * 1024;
/// The largest number of `x-forwarded-for` entries that are looked at.
pub const FORWARDED_ENTRIES_MAX: usize = 256;
/// From how many entries on a list is indexed by header values.
pub(crate) const HEADER_INDEX_FROM: usize = 16;
/// How many different header names a list's index may have.
pub(crate) const HEADER_INDEX_NAMES_MAX: usize = 8;
