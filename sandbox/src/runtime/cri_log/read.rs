//! Reading a container's log as `kubectl logs` shows it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{CLOSED, Entry, rotated_path};
use crate::backend::{BackendError, LogOptions, LogStream};

/// Chunks that may wait for a slow reader.
const QUEUED_CHUNKS_MAX: usize = 8;

/// What to read.
#[derive(Debug)]
pub(crate) struct Source {
    /// The log file.
    pub(crate) path: PathBuf,
    /// The write counter while a container may still write.
    pub(crate) live: Option<watch::Receiver<u64>>,
}

/// Streams a log. Ends with the present end of the file, or with `follow` when the writer closes.
pub(crate) fn stream(source: Source, options: LogOptions) -> LogStream {
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS_MAX);
    tokio::spawn(async move {
        if let Err(error) = pump(source, &options, &sender).await {
            let failure = BackendError::Failed { action: "reading the log".to_owned(), reason: error.to_string() };
            // A reader that left does not need the reason.
            let _ = sender.send(Err(failure)).await;
        }
    });
    ReceiverStream::new(receiver).boxed()
}

type Chunks = mpsc::Sender<Result<Bytes, BackendError>>;

async fn pump(source: Source, options: &LogOptions, chunks: &Chunks) -> io::Result<()> {
    let mut live = source.live.filter(|_| options.follow);
    let mut format = Formatter::new(options);
    // Marked as seen before the first read: a write in between wakes the loop once more.
    let mut closed = live.as_mut().is_none_or(|live| *live.borrow_and_update() == CLOSED);
    let path = source.path.clone();
    let (mut tail, mut text) =
        tokio::task::spawn_blocking(move || Tail::open_with_history(&path)).await.map_err(io::Error::other)??;
    let mut selected = format.format(&text);
    if let Some(lines) = options.tail_lines {
        selected = last_lines(&selected, lines);
    }
    loop {
        let (bytes, more) = format.limit(selected);
        if !bytes.is_empty() && chunks.send(Ok(Bytes::from(bytes))).await.is_err() {
            return Ok(());
        }
        if !more {
            return Ok(());
        }
        if closed {
            return Ok(());
        }
        if let Some(live) = live.as_mut() {
            tokio::select! {
                changed = live.changed() => closed = changed.is_err() || *live.borrow() == CLOSED,
                () = chunks.closed() => return Ok(()),
            }
        }
        text = tail.read_more()?;
        selected = format.format(&text);
    }
}

/// The end of a growing file that may be set aside and started afresh.
struct Tail {
    path: PathBuf,
    file: File,
}

impl Tail {
    /// Opens the file and reads what is there, an earlier part that was set aside first.
    fn open_with_history(path: &Path) -> io::Result<(Self, Vec<u8>)> {
        let mut text = Vec::new();
        if let Ok(mut earlier) = File::open(rotated_path(path)) {
            earlier.read_to_end(&mut text)?;
        }
        let mut file = File::open(path)?;
        file.read_to_end(&mut text)?;
        Ok((Self { path: path.to_owned(), file }, text))
    }

    fn read_more(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.file.read_to_end(&mut text)?;
        let replaced =
            File::open(&self.path).ok().filter(|fresh| inode(fresh).is_some() && inode(fresh) != inode(&self.file));
        if let Some(fresh) = replaced {
            self.file = fresh;
            self.file.read_to_end(&mut text)?;
        }
        Ok(text)
    }
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.ino())
}

/// Turns log entries into what the reader asked for.
struct Formatter {
    since: Option<String>,
    timestamps: bool,
    budget_bytes: u64,
    line_start: bool,
    /// An entry whose line end was not there yet.
    rest: Vec<u8>,
}

impl Formatter {
    fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since.map(|moment: Timestamp| format!("{moment:.9}")),
            timestamps: options.timestamps,
            budget_bytes: options.limit_bytes.unwrap_or(u64::MAX),
            line_start: true,
            rest: Vec::new(),
        }
    }

    fn format(&mut self, text: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(text.len());
        let mut input = std::mem::take(&mut self.rest);
        input.extend_from_slice(text);
        let mut lines = input.split(|&byte| byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() {
                self.rest = line.to_vec();
            } else if let Some(entry) = Entry::parse(line) {
                self.append(&entry, &mut output);
            }
        }
        output
    }

    fn append(&mut self, entry: &Entry<'_>, output: &mut Vec<u8>) {
        if self.since.as_deref().is_some_and(|since| entry.time < since) {
            return;
        }
        if self.timestamps && self.line_start {
            output.extend_from_slice(entry.time.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(entry.text);
        if entry.complete {
            output.push(b'\n');
        }
        self.line_start = entry.complete;
    }

    /// Cuts to what is left of the byte limit; the flag says whether more may follow.
    fn limit(&mut self, mut bytes: Vec<u8>) -> (Vec<u8>, bool) {
        let allowed = usize::try_from(self.budget_bytes).unwrap_or(usize::MAX);
        bytes.truncate(allowed);
        self.budget_bytes = self.budget_bytes.saturating_sub(bytes.len() as u64);
        (bytes, self.budget_bytes > 0)
    }
}

fn last_lines(text: &[u8], count: u64) -> Vec<u8> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut kept = VecDeque::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        kept.push_back(line);
        if kept.len() > count {
            kept.pop_front();
        }
    }
    kept.into_iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::cri_log::CriLog;
    use std::sync::Arc;
    use std::time::Duration;

    const LINES: &[u8] = b"2024-01-01T00:00:00.000000000Z stdout F one\n\
        2024-01-01T00:00:01.000000000Z stdout P tw\n\
        2024-01-01T00:00:01.000000001Z stdout F o\n\
        2024-01-01T00:00:02.000000000Z stderr F three\n";

    fn formatted(options: &LogOptions) -> String {
        String::from_utf8(Formatter::new(options).format(LINES)).unwrap()
    }

    #[test]
    fn entries_become_lines() {
        assert_eq!(formatted(&LogOptions::default()), "one\ntwo\nthree\n");
        let timestamps = LogOptions { timestamps: true, ..LogOptions::default() };
        assert!(formatted(&timestamps).contains("\n2024-01-01T00:00:01.000000000Z two\n"));
        let since = LogOptions { since: Some("2024-01-01T00:00:02Z".parse().unwrap()), ..LogOptions::default() };
        assert_eq!(formatted(&since), "three\n");
    }

    #[test]
    fn tail_and_limit_cut() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb", 1), b"b");
        assert_eq!(last_lines(b"a\n", 0), b"");
        let mut format = Formatter::new(&LogOptions { limit_bytes: Some(3), ..LogOptions::default() });
        assert_eq!(format.limit(b"ab".to_vec()), (b"ab".to_vec(), true));
        assert_eq!(format.limit(b"cd".to_vec()), (b"c".to_vec(), false));
    }

    #[tokio::test]
    async fn a_follower_sees_later_lines_and_ends_with_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(CriLog::create(dir.path(), 0).unwrap());
        log.copy_from("stdout", b"first\n".as_slice()).await;
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let source = Source { path: log.path().to_owned(), live: Some(log.subscribe()) };
        let mut chunks = stream(source, options);
        let deadline = Duration::from_secs(5);
        let next = tokio::time::timeout(deadline, chunks.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(next, "first\n");
        log.copy_from("stderr", b"second".as_slice()).await;
        let next = tokio::time::timeout(deadline, chunks.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(next, "second\n");
        log.close();
        assert!(tokio::time::timeout(deadline, chunks.next()).await.unwrap().is_none());
    }
}
