//! Waits for changes of the entries of directories.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// Armed from the moment it is made: changes from then on end [`Watch::changed`].
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches the entries of each directory.
    ///
    /// # Errors
    /// When a directory is missing or the user has too many watches.
    pub fn new(dirs: &[&Path]) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // Attribute changes too: a changed mode can make a plugin unusable.
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ATTRIB;
        for dir in dirs {
            inotify.add_watch(*dir, events).map_err(|error| {
                io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", dir.display()))
            })?;
        }
        // The successor of this constructor is unsafe because a descriptor might be closed while it is registered; an
        // owned one cannot.
        #[expect(deprecated)]
        let fd = AsyncFd::new(OwnedFd::from(inotify))?;
        Ok(Self { fd })
    }

    /// Waits for the first change, or for [`LOOK_AGAIN`]: some file systems do not tell of changes.
    pub async fn changed(&self) {
        // A failing descriptor means looking again, like a change.
        let _ = timeout(LOOK_AGAIN, self.fd.readable()).await;
    }
}

/// Upper bound of how long a silent change stays unseen.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_made_before_waiting_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(&[dir.path()]).unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        timeout(Duration::from_secs(5), watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let error = Watch::new(&[Path::new("/does/not/exist")]).unwrap_err();
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
    }
}
