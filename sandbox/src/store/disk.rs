//! Objects on disk: a log of writes, and from time to time a snapshot that replaces it.
//!
//! A write is appended to the log before it is answered, so a sandbox that is killed loses nothing.
//! The log is flushed to the device every [`SYNC_INTERVAL`], so a machine that loses power loses at
//! most that much. A record that was cut off at the end of the last log never happened.
//!
//! ```text
//! snapshot-R   all objects at revision R, complete or not there at all
//! log-R        the writes after revision R
//! ```

mod record;
mod recover;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub(super) use self::recover::Recovered;
use self::{record::Record, sync::Syncer};
use super::{Object, ObjectKey, ResourceKey};

/// A log is replaced by a snapshot when it is larger than this and than the snapshot before it.
const LOG_BYTES_MIN: u64 = 32 * 1024 * 1024;
/// First bytes of every file.
const MAGIC: &[u8; 16] = b"meltemi-store-1\n";
/// How far revisions jump at a start: those given out before and lost with a power cut do not occur
/// again, and clients that come back with one learn that they have to list.
const REVISION_GAP: u64 = 1_000;
/// Only one process may use a directory.
const LOCK: &str = "lock";
/// How long another process may take to let go: a child that was just started has all files open
/// until its program runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The system refused a file.
    #[error("using {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("{path} is used by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file is damaged where no crash can have damaged it.
    #[error("{path} is damaged at byte {offset}: {reason}; move the directory away to start empty")]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The open log of a store.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    log: Arc<File>,
    /// Bytes in the log.
    bytes: u64,
    /// Size at which the log is replaced.
    limit: u64,
    sync: Syncer,
    /// A snapshot is being written.
    busy: Arc<AtomicBool>,
    _lock: File,
}

/// All objects, for a snapshot.
pub(super) type Contents = Vec<(ResourceKey, ObjectKey, Arc<Object>)>;

impl Disk {
    /// Opens a directory, makes it if it is not there, and reads what it holds.
    pub(super) fn open(dir: &Path) -> Result<(Self, Recovered), DiskError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join(LOCK);
        let lock = private().create(true).open(&path).map_err(at(&path))?;
        let until = Instant::now() + LOCK_PATIENCE;
        while lock.try_lock().is_err() {
            if Instant::now() >= until {
                return Err(DiskError::InUse { path: dir.to_owned() });
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
        let mut found = recover::read(dir)?;
        if found.revision > 0 {
            found.revision += REVISION_GAP;
        }
        let snapshot_bytes = write_snapshot(dir, found.revision, &found.objects)?;
        let log = Arc::new(new_log(dir, found.revision)?);
        remove_older(dir, found.revision);
        let disk = Self {
            dir: dir.to_owned(),
            sync: Syncer::start(log.clone()),
            log,
            bytes: 0,
            limit: snapshot_bytes.max(LOG_BYTES_MIN),
            busy: Arc::new(AtomicBool::new(false)),
            _lock: lock,
        };
        Ok((disk, found))
    }

    /// Appends a write; on failure the log is as before.
    pub(super) fn append(
        &mut self,
        resource: &ResourceKey,
        key: &ObjectKey,
        object: &Object,
        removed: bool,
    ) -> io::Result<()> {
        let text: &[u8] = if removed { &[] } else { object.json() };
        let record = Record { revision: object.revision(), resource, key, text }.encode()?;
        if let Err(error) = (&*self.log).write_all(&record) {
            // A part of the record may be there, and must not stay before the next one.
            let length = MAGIC.len() as u64 + self.bytes;
            if self.log.set_len(length).is_err() {
                tracing::error!(dir = %self.dir.display(), "the store's log cannot be repaired: later writes may be lost");
            }
            return Err(error);
        }
        self.bytes += record.len() as u64;
        self.sync.written();
        Ok(())
    }

    /// Whether it is time for a snapshot.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > self.limit && !self.busy.load(Ordering::Acquire)
    }

    /// Begins a new log behind `revision` and writes a snapshot of `contents`, everything there was at
    /// that revision, on a thread of its own.
    pub(super) fn compact(&mut self, revision: u64, contents: Contents) {
        let log = match new_log(&self.dir, revision) {
            Ok(log) => Arc::new(log),
            Err(error) => return tracing::warn!(%error, "no new log could be begun; the old one grows on"),
        };
        self.log = log.clone();
        self.bytes = 0;
        self.sync.switch(log);
        self.busy.store(true, Ordering::Release);
        let (dir, busy) = (self.dir.clone(), self.busy.clone());
        let work = move || {
            match write_snapshot(&dir, revision, &contents) {
                Ok(bytes) => {
                    remove_older(&dir, revision);
                    tracing::debug!(revision, bytes, "snapshot written");
                }
                // Nothing is lost: the logs since the last snapshot are still there.
                Err(error) => tracing::warn!(%error, "no snapshot could be written"),
            }
            busy.store(false, Ordering::Release);
        };
        if let Err(error) = std::thread::Builder::new().name("store-snapshot".to_owned()).spawn(work) {
            self.busy.store(false, Ordering::Release);
            tracing::warn!(%error, "no snapshot could be begun");
        }
    }
}

fn new_log(dir: &Path, revision: u64) -> Result<File, DiskError> {
    let path = dir.join(format!("{LOG_PREFIX}{revision:020}"));
    let mut log = private().create(true).truncate(true).open(&path).map_err(at(&path))?;
    log.write_all(MAGIC).and_then(|()| log.sync_all()).map_err(at(&path))?;
    sync_directory(dir)?;
    // Reopened for appending: what is cut off after a failed write leaves no hole.
    OpenOptions::new().append(true).open(&path).map_err(at(&path))
}

/// Writes a snapshot under a name that only a complete one gets; returns its size in bytes.
fn write_snapshot(dir: &Path, revision: u64, contents: &Contents) -> Result<u64, DiskError> {
    let path = dir.join(format!("{SNAPSHOT_PREFIX}{revision:020}"));
    let unfinished = dir.join("snapshot.tmp");
    let write = || {
        let mut file = BufWriter::new(private().create(true).truncate(true).open(&unfinished)?);
        file.write_all(MAGIC)?;
        let mut bytes = MAGIC.len() as u64;
        for (resource, key, object) in contents {
            let record = Record { revision: object.revision(), resource, key, text: object.json() }.encode()?;
            file.write_all(&record)?;
            bytes += record.len() as u64;
        }
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&unfinished, &path)?;
        Ok(bytes)
    };
    let bytes = write().map_err(at(&path))?;
    sync_directory(dir)?;
    Ok(bytes)
}

/// Removes what a snapshot replaces. What cannot be removed is removed the next time.
fn remove_older(dir: &Path, revision: u64) {
    let files = recover::list(dir).unwrap_or_default();
    let older = files.logs.into_iter().chain(files.snapshots).filter(|(of, _)| *of < revision);
    for (_, path) in older {
        let _ = fs::remove_file(path);
    }
}

fn sync_directory(dir: &Path) -> Result<(), DiskError> {
    File::open(dir).and_then(|directory| directory.sync_all()).map_err(at(dir))
}

/// Files that only their owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::File { path, source }
}

const LOG_PREFIX: &str = "log-";
const SNAPSHOT_PREFIX: &str = "snapshot-";
