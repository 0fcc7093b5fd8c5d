//! Header blocks: names and values, compressed by one zlib stream for each direction, which begins
//! with a dictionary that both sides know.

use std::{collections::BTreeMap, fmt, io, sync::LazyLock};

use bytes::{Buf, BufMut};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateError, InflateFlush, Status};

use super::malformed;

/// Largest block after decompression, in bytes.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Fields of one block.
const FIELDS_MAX: usize = 64;
/// Window of both zlib streams: 2^15 bytes.
const WINDOW_BITS: u8 = 15;

/// Names in lower case, and values.
pub(crate) type Fields = BTreeMap<String, String>;

/// Decompresses the blocks of one direction.
pub(crate) struct HeaderReader(Inflate);

/// Compresses the blocks of one direction.
pub(crate) struct HeaderWriter(Deflate);

impl fmt::Debug for HeaderReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HeaderReader")
    }
}

impl HeaderReader {
    pub(crate) fn new() -> Self {
        Self(Inflate::new(true, WINDOW_BITS))
    }

    /// Reads a whole block.
    pub(crate) fn read(&mut self, compressed: &[u8]) -> io::Result<Fields> {
        let mut block = vec![0; BLOCK_BYTES_MAX];
        let length = self.inflate(compressed, &mut block)?;
        parse(block.get(..length).unwrap_or_default())
    }

    fn inflate(&mut self, mut input: &[u8], block: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while !input.is_empty() {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let free = block.get_mut(length..).unwrap_or_default();
            if free.is_empty() {
                return Err(malformed(format!("a header block is larger than {BLOCK_BYTES_MAX} bytes")));
            }
            let result = self.0.decompress(input, free, InflateFlush::SyncFlush);
            let taken = usize::try_from(self.0.total_in() - before_in).unwrap_or(usize::MAX);
            let made = usize::try_from(self.0.total_out() - before_out).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            length += made;
            match result {
                Err(InflateError::NeedDict { .. }) => {
                    let set = self.0.set_dictionary(&DICTIONARY);
                    set.map_err(|_| malformed("headers are compressed with another dictionary".to_owned()))?;
                }
                Err(error) => {
                    return Err(malformed(format!("a header block cannot be decompressed: {}", error.as_str())));
                }
                Ok(Status::StreamEnd) => break,
                Ok(_) if taken == 0 && made == 0 => {
                    return Err(malformed("a header block makes no progress".to_owned()));
                }
                Ok(_) => {}
            }
        }
        Ok(length)
    }
}

impl HeaderWriter {
    pub(crate) fn new() -> io::Result<Self> {
        let mut deflate = Deflate::new(1, true, WINDOW_BITS);
        deflate.set_dictionary(&DICTIONARY).map_err(|error| malformed(error.as_str().to_owned()))?;
        Ok(Self(deflate))
    }

    /// A block without fields.
    pub(crate) fn empty(&mut self) -> io::Result<Vec<u8>> {
        self.write(&[])
    }

    /// A block.
    pub(crate) fn write(&mut self, fields: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut block = Vec::new();
        let length = |text: &str| u32::try_from(text.len()).map_err(|_| malformed("a header is too long".to_owned()));
        block.put_u32(u32::try_from(fields.len()).map_err(|_| malformed("too many headers".to_owned()))?);
        for (name, value) in fields {
            for text in [name, value] {
                block.put_u32(length(text)?);
                block.put_slice(text.as_bytes());
            }
        }
        // Short texts grow by a few bytes at most.
        let mut compressed = vec![0; block.len() + 256];
        let before = self.0.total_out();
        let status = self.0.compress(&block, &mut compressed, DeflateFlush::SyncFlush);
        status.map_err(|error| malformed(error.as_str().to_owned()))?;
        compressed.truncate(usize::try_from(self.0.total_out() - before).unwrap_or_default());
        Ok(compressed)
    }
}

fn parse(mut block: &[u8]) -> io::Result<Fields> {
    let number = |block: &mut &[u8]| {
        let found = block.try_get_u32().map_err(|_| malformed("a header block ends early".to_owned()))?;
        usize::try_from(found).map_err(|_| malformed("a header block is too large".to_owned()))
    };
    let count = number(&mut block)?;
    if count > FIELDS_MAX {
        return Err(malformed(format!("{count} headers, at most {FIELDS_MAX} are taken")));
    }
    let mut fields = Fields::new();
    for _ in 0..count {
        let mut text = || {
            let length = number(&mut block)?;
            let (text, rest) =
                block.split_at_checked(length).ok_or_else(|| malformed("a header ends early".to_owned()))?;
            block = rest;
            Ok::<_, io::Error>(String::from_utf8_lossy(text).into_owned())
        };
        let (name, value) = (text()?, text()?);
        fields.insert(name, value);
    }
    Ok(fields)
}

/// The words of the dictionary that stand behind their length.
const COUNTED: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent \
    vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";

/// The rest of the dictionary.
const PLAIN: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
    00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
    charset=iso-8859-1,utf-,*,enq=0.";

/// # Source
///
/// SPDY Protocol, draft 3.1, section 2.6.10.1.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in COUNTED.split_whitespace() {
        let word = word.replace('_', " ");
        dictionary.put_u32(u32::try_from(word.len()).unwrap_or_default());
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(PLAIN.as_bytes());
    dictionary
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_has_its_checksum() {
        let (mut low, mut high) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            low = (low + u32::from(*byte)) % 65_521;
            high = (high + low) % 65_521;
        }
        assert_eq!((DICTIONARY.len(), high << 16 | low), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_round_trip_one_after_the_other() {
        let (mut writer, mut reader) = (HeaderWriter::new().unwrap(), HeaderReader::new());
        for fields in [&[("streamtype", "error"), ("port", "8080")][..], &[], &[("streamtype", "data")]] {
            let block = writer.write(fields).unwrap();
            let wanted: Fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(reader.read(&block).unwrap(), wanted);
        }
        assert!(HeaderReader::new().read(b"no zlib").is_err());
    }
}
