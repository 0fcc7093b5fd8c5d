//! One record of a log or a snapshot.
//!
//! ```text
//! length u32 | XXH64 of the rest u64 | head length u32 | head (JSON) | object (JSON; none: removed)
//! ```

use std::{hash::Hasher, io};

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use super::super::{ObjectKey, ResourceKey};

/// Largest record, in bytes: an object is at most some megabytes large.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Length and checksum.
const PREFIX_BYTES: usize = 12;

/// A write.
pub(super) struct Record<'a> {
    pub(super) revision: u64,
    pub(super) resource: &'a ResourceKey,
    pub(super) key: &'a ObjectKey,
    /// Empty for a removal.
    pub(super) text: &'a [u8],
}

/// A write that was read.
pub(super) struct Read<'a> {
    pub(super) head: Head,
    pub(super) text: &'a [u8],
}

/// The address of an object, and the revision of the write.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "r")]
    pub(super) revision: u64,
    #[serde(rename = "s")]
    pub(super) resource: String,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    #[serde(rename = "m")]
    pub(super) name: String,
}

impl Record<'_> {
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let head = serde_json::to_vec(&Head {
            revision: self.revision,
            resource: self.resource.as_str().to_owned(),
            namespace: self.key.namespace().map(str::to_owned),
            name: self.key.name().to_owned(),
        })?;
        let length = 4 + head.len() + self.text.len();
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "an object is too large for the store's log");
        if length > RECORD_BYTES_MAX {
            return Err(too_large());
        }
        let mut record = Vec::with_capacity(PREFIX_BYTES + length);
        record.put_u32(u32::try_from(length).map_err(|_| too_large())?);
        record.put_u64(0);
        record.put_u32(u32::try_from(head.len()).map_err(|_| too_large())?);
        record.put_slice(&head);
        record.put_slice(self.text);
        let sum = checksum(record.get(PREFIX_BYTES..).unwrap_or_default()).to_be_bytes();
        if let Some(place) = record.get_mut(4..PREFIX_BYTES) {
            place.copy_from_slice(&sum);
        }
        Ok(record)
    }
}

/// The record at the beginning of `bytes`, and how long it is.
///
/// # Errors
///
/// What is wrong; a record that was cut off is wrong too.
pub(super) fn decode(bytes: &[u8]) -> Result<(Read<'_>, usize), &'static str> {
    let (mut prefix, rest) = bytes.split_at_checked(PREFIX_BYTES).ok_or("the record is cut off")?;
    let (length, sum) = (usize::try_from(prefix.get_u32()).unwrap_or(usize::MAX), prefix.get_u64());
    if length > RECORD_BYTES_MAX {
        return Err("the length makes no sense");
    }
    let mut body = rest.get(..length).ok_or("the record is cut off")?;
    if checksum(body) != sum {
        return Err("the checksum is wrong");
    }
    let head_length = body.try_get_u32().map_err(|_| "the head is missing")?;
    let (head, text) =
        body.split_at_checked(usize::try_from(head_length).unwrap_or(usize::MAX)).ok_or("the head is cut off")?;
    let head = serde_json::from_slice(head).map_err(|_| "the head is not understood")?;
    Ok((Read { head, text }, PREFIX_BYTES + length))
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(bytes);
    hasher.finish()
}
