//! Objects from a directory of YAML and JSON files, watched. For trying the mesh, and for tests, without a cluster.

mod document;
mod folder;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_sys::watch::Watch;
use mesh_telemetry::ready::{Readiness, Task};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::folder::{Folder, Scan};
use crate::metrics::Metrics;
use crate::wait::until;
use crate::world::{Change, Kind};

/// Where files are, and what is read from them.
#[derive(Debug)]
pub struct Files {
    /// Holds the files; those of its subdirectories are read too, but nothing below them.
    pub dir: PathBuf,
    /// Kinds that come from files; each kind has one source.
    pub kinds: &'static [Kind],
    /// Own revision.
    pub revision: Arc<str>,
    /// Where changes go.
    pub changes: mpsc::Sender<Change>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Names files that could not be read at the start.
    pub readiness: Readiness,
}

impl Files {
    /// Checks that the directory can be read.
    ///
    /// # Errors
    /// Naming the directory.
    pub fn check(&self) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.dir.display()));
        std::fs::read_dir(&self.dir).map(drop).map_err(named)
    }

    /// Tells what the files say, and every change of it, until nobody listens.
    pub async fn run(self) {
        let mut folder = Folder::new(self.kinds, self.revision.clone());
        let started = Instant::now();
        let mut synced = false;
        let mut unread = Unread::default();
        loop {
            let dir = self.dir.clone();
            // Armed before reading: what changes while we read is seen afterwards.
            let watch = folder::directories(&dir)
                .and_then(|dirs| Watch::new(&dirs.iter().map(PathBuf::as_path).collect::<Vec<_>>()));
            let watch = match watch {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::warn!(%error, "the directory of objects cannot be watched, trying again; what was read of it stays in force");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let scan = tokio::task::spawn_blocking(move || (Scan::read(&dir), folder)).await;
            let Ok((scan, same_folder)) = scan else { return };
            folder = same_folder;
            let scan = match scan {
                Ok(scan) => scan,
                Err(error) => {
                    tracing::warn!(%error, "the directory of objects cannot be read; what was read of it stays in force");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let read = folder.apply(scan, Instant::now());
            let again = read.again;
            let is_whole = again.is_none() || started.elapsed() > START_MAX;
            if is_whole && !synced {
                unread.start(&folder);
            }
            unread.show(&folder, &self.readiness);
            if self.tell(read, is_whole, &mut synced).await.is_err() {
                return;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = until(again) => {}
            }
            // Files come several at a time.
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn tell(
        &self,
        read: folder::Read,
        is_whole: bool,
        synced: &mut bool,
    ) -> Result<(), mpsc::error::SendError<Change>> {
        for problem in read.problems {
            tracing::error!(file = %problem.file.display(), reason = problem.reason, "file is not read as written");
        }
        for change in read.changes {
            let (kind, event) = match &change {
                Change::Upsert(object) | Change::Partial { object, .. } => (object.kind(), "update"),
                Change::Broken { kind, .. } => (*kind, "update"),
                Change::Delete(kind, _) => (*kind, "delete"),
                Change::Tagged { change, .. } => match change.subject() {
                    Some((kind, _)) => (kind, "update"),
                    None => continue,
                },
                _ => continue,
            };
            self.metrics.event(kind.name(), event);
            self.changes.send(change).await?;
        }
        if is_whole && !std::mem::replace(synced, true) {
            for kind in self.kinds {
                self.changes.send(Change::Synced(*kind)).await?;
            }
        }
        Ok(())
    }
}

/// Files of the start that nobody can read. A process that ran before may have known what they said; this one does not, and
/// is not ready until they are repaired or removed.
#[derive(Debug, Default)]
struct Unread {
    files: BTreeSet<PathBuf>,
    /// What readiness says of them.
    told: Option<(String, Task)>,
}

impl Unread {
    fn start(&mut self, folder: &Folder) {
        for (file, reason) in folder.unread() {
            tracing::error!(
                file = %file.display(), reason,
                "file cannot be read, and no earlier version of it is known: nothing of it is in force, and this process is not ready until it is repaired or removed"
            );
            self.files.insert(file.to_owned());
        }
    }

    fn show(&mut self, folder: &Folder, readiness: &Readiness) {
        let still: Vec<_> = folder.unread().filter(|(file, _)| self.files.contains(*file)).collect();
        self.files = still.iter().map(|(file, _)| (*file).to_owned()).collect();
        let Some((file, reason)) = still.first() else {
            self.told = None;
            return;
        };
        let reason: String = reason.lines().next().unwrap_or_default().chars().take(SHOWN_MAX).collect();
        let more = match still.len() {
            1 => String::new(),
            count => format!(" (and {} files more)", count - 1),
        };
        let text = format!("file {} cannot be read: {reason}{more}", file.display());
        if self.told.as_ref().is_none_or(|(told, _)| *told != text) {
            let task = readiness.register(text.clone());
            self.told = Some((text, task));
        }
    }
}

/// Between the first sign of a change and reading.
const SETTLE: Duration = Duration::from_millis(20);
/// Files that do not hold still keep us from starting for this long.
const START_MAX: Duration = Duration::from_secs(15);
/// Characters of a reason that readiness shows.
const SHOWN_MAX: usize = 200;
/// Before another try of a directory that cannot be read.
const RETRY: Duration = Duration::from_secs(1);
