//! Objects from a directory of YAML and JSON files, watched. For trying the mesh, and for tests, without a cluster.

mod document;
mod folder;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_sys::watch::Watch;
use tokio::sync::mpsc;

use self::folder::{Folder, Scan};
use crate::metrics::Metrics;
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
        let mut synced = false;
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
            match scan {
                Ok(scan) => {
                    if self.tell(folder.apply(scan), &mut synced).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the directory of objects cannot be read; what was read of it stays in force");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            watch.changed().await;
            // A file is often written in several steps, and files come several at a time.
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn tell(&self, read: folder::Read, synced: &mut bool) -> Result<(), mpsc::error::SendError<Change>> {
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
        if !std::mem::replace(synced, true) {
            for kind in self.kinds {
                self.changes.send(Change::Synced(*kind)).await?;
            }
        }
        Ok(())
    }
}

/// Between the first sign of a change and reading.
const SETTLE: Duration = Duration::from_millis(20);
/// Before another try of a directory that cannot be read.
const RETRY: Duration = Duration::from_secs(1);
