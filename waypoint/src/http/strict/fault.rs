//! What bytes are refused for.

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Two lengths of one body.
    #[error("both content-length and transfer-encoding")]
    BothLengths,
    /// Content-Length that is not one number.
    #[error("content-length is not one decimal number")]
    Length,
    /// Transfer-Encoding other than chunked, or more than one.
    #[error("transfer-encoding is not exactly chunked")]
    Encoding,
    /// A line that ends in LF alone.
    #[error("line ends in a bare line feed")]
    BareLineFeed,
    /// CR that ends no line.
    #[error("carriage return within a line")]
    BareCarriageReturn,
    /// NUL or another control character.
    #[error("control character in the head of a request")]
    Control,
    /// A header that goes on in the next line, or a line that begins with space.
    #[error("header line begins with white space")]
    Folded,
    /// A character that no header name has, white space before the colon included.
    #[error("character that no header name may have")]
    Name,
    /// `#` in the target.
    #[error("fragment in the target of a request")]
    Fragment,
    /// Before a request: more than a blank line.
    #[error("blank lines in place of a request")]
    BlankLines,
    /// The size of a chunk, or what follows it.
    #[error("size of a chunk is not a hexadecimal number")]
    ChunkSize,
    /// More extension than any chunk needs.
    #[error("extension of a chunk has more than {CHUNK_EXTENSION_BYTES_MAX} bytes")]
    ChunkExtension,
    /// A chunk that goes on after its size.
    #[error("chunk does not end where its size says")]
    ChunkEnd,
    /// More trailers than headers are allowed.
    #[error("trailers have more than {TRAILER_BYTES_MAX} bytes")]
    Trailers,
    /// The head of a request takes too long.
    #[error("head of a request took longer than {} s", crate::limits::REQUEST_HEAD_BUDGET.as_secs())]
    Slow,
}

/// Of one chunk; nobody is known to use any.
pub(super) const CHUNK_EXTENSION_BYTES_MAX: u32 = 1 << 10;
/// As many as headers may have.
pub(super) const TRAILER_BYTES_MAX: u32 = 60 << 10;
