//! Container logs in the format and place of the Container Runtime Interface.
//!
//! One file per start, `<pod log directory>/<container>/<restart>.log`; each line is
//! `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`, `P` marking a line that goes
//! on in the next entry.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

mod read;

pub(crate) use read::{Source, stream};

/// Longest text in one entry, as container runtimes have it; longer lines become several.
pub(crate) const ENTRY_BYTES_MAX: usize = 16 * 1024;

/// A file that grew beyond this is set aside as `<name>.1`; one such is kept.
const FILE_BYTES_MAX: u64 = 10 << 20;

/// The log of one start of a container, being written.
#[derive(Debug)]
pub(crate) struct CriLog {
    path: PathBuf,
    file: Mutex<(File, u64)>,
    /// Counts writes, so that followers wake; set to [`CLOSED`] after the last.
    writes: watch::Sender<u64>,
}

/// Value of the write counter after the last write.
pub(crate) const CLOSED: u64 = u64::MAX;

impl CriLog {
    /// Creates the file for start number `restart` of a container.
    pub(crate) fn create(container_dir: &Path, restart: u32) -> io::Result<Self> {
        fs::create_dir_all(container_dir)?;
        let path = file_path(container_dir, restart);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file: Mutex::new((file, size)), writes: watch::Sender::new(0) })
    }

    /// The file being written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes with every write; [`CLOSED`] after the last.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.writes.subscribe()
    }

    /// Tells followers that nothing more will come.
    pub(crate) fn close(&self) {
        self.writes.send_replace(CLOSED);
    }

    /// Copies a container's output into the log until it ends.
    pub(crate) async fn copy_from(&self, stream: &'static str, mut output: impl AsyncRead + Unpin) {
        let mut splitter = Splitter::default();
        let mut chunk = vec![0; ENTRY_BYTES_MAX];
        // An error of a pipe means the same as its end: the container is gone.
        while let Ok(length @ 1..) = output.read(&mut chunk).await {
            let mut entries = Vec::new();
            let now = Timestamp::now();
            splitter.push(chunk.get(..length).unwrap_or_default(), |text, complete| {
                append_entry(&mut entries, now, stream, complete, text);
            });
            self.write(&entries);
        }
        let mut entries = Vec::new();
        splitter.finish(|text, complete| append_entry(&mut entries, Timestamp::now(), stream, complete, text));
        self.write(&entries);
    }

    fn write(&self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        {
            let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let (file, size) = &mut *guard;
            if let Err(error) = file.write_all(entries) {
                tracing::warn!(path = %self.path.display(), %error, "container log could not be written");
            }
            *size += entries.len() as u64;
            if *size > FILE_BYTES_MAX
                && let Ok(fresh) = rotate(&self.path)
            {
                *guard = (fresh, 0);
            }
        }
        self.writes.send_modify(|count| *count += 1);
    }
}

/// The log file of start number `restart`.
pub(crate) fn file_path(container_dir: &Path, restart: u32) -> PathBuf {
    container_dir.join(format!("{restart}.log"))
}

/// Where a log goes that has grown too large.
pub(crate) fn rotated_path(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn rotate(path: &Path) -> io::Result<File> {
    fs::rename(path, rotated_path(path))?;
    OpenOptions::new().create(true).append(true).open(path)
}

/// One entry of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// As written; fixed width, so comparable as text.
    pub(crate) time: &'a str,
    /// The text ends a line.
    pub(crate) complete: bool,
    /// The text, without line end.
    pub(crate) text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Parses one line of a log file (without its line end); `None` when it is not one.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |&byte| byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = fields.next()?;
        let tag = fields.next()?;
        let text = fields.next()?;
        if stream != b"stdout" && stream != b"stderr" {
            return None;
        }
        Some(Self { time, complete: tag == b"F", text })
    }
}

fn append_entry(entries: &mut Vec<u8>, now: Timestamp, stream: &str, complete: bool, text: &[u8]) {
    let tag = if complete { 'F' } else { 'P' };
    // Writing to memory cannot fail.
    let _ = write!(entries, "{now:.9} {stream} {tag} ");
    entries.extend_from_slice(text);
    entries.push(b'\n');
}

/// Cuts a byte stream into lines of at most [`ENTRY_BYTES_MAX`].
#[derive(Debug, Default)]
struct Splitter {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl Splitter {
    /// Calls `entry` with each text that is due, and whether it ends a line.
    fn push(&mut self, mut bytes: &[u8], mut entry: impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.rest.extend_from_slice(line);
            self.flush_full(&mut entry);
            entry(&self.rest, true);
            self.rest.clear();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.rest.extend_from_slice(bytes);
        self.flush_full(&mut entry);
    }

    /// Hands out what is left when the stream ends: a last line without line end counts.
    fn finish(&mut self, mut entry: impl FnMut(&[u8], bool)) {
        if !self.rest.is_empty() {
            entry(&self.rest, true);
            self.rest.clear();
        }
    }

    fn flush_full(&mut self, entry: &mut impl FnMut(&[u8], bool)) {
        while self.rest.len() > ENTRY_BYTES_MAX {
            let tail = self.rest.split_off(ENTRY_BYTES_MAX);
            entry(&self.rest, false);
            self.rest = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut splitter = Splitter::default();
        let mut entries = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |text, complete| entries.push((text.to_vec(), complete)));
        }
        splitter.finish(|text, complete| entries.push((text.to_vec(), complete)));
        entries
    }

    #[test]
    fn lines_are_joined_over_reads_and_the_last_may_lack_its_end() {
        let entries = split(&[b"a", b"b\n\nc", b"d"]);
        let texts: Vec<&[u8]> = entries.iter().map(|(text, _)| text.as_slice()).collect();
        assert_eq!(texts, [b"ab".as_slice(), b"", b"cd"]);
        assert!(entries.iter().all(|(_, complete)| *complete));
    }

    #[test]
    fn long_lines_become_partial_entries_at_the_bound_and_one_past() {
        let at_bound = vec![b'x'; ENTRY_BYTES_MAX];
        assert_eq!(split(&[&at_bound, b"\n"]), [(at_bound.clone(), true)]);
        let past = vec![b'x'; ENTRY_BYTES_MAX + 1];
        assert_eq!(split(&[&past, b"\n"]), [(at_bound, false), (b"x".to_vec(), true)]);
    }

    #[test]
    fn entries_parse_and_garbage_does_not() {
        let mut line = Vec::new();
        append_entry(&mut line, Timestamp::UNIX_EPOCH, "stderr", false, b"two words ");
        assert_eq!(line, b"1970-01-01T00:00:00.000000000Z stderr P two words \n");
        let entry = Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((entry.complete, entry.text), (false, b"two words ".as_slice()));
        for garbage in [b"".as_slice(), b"x", b"t other F x", b"t stdout F"] {
            assert_eq!(Entry::parse(garbage), None);
        }
    }
}
