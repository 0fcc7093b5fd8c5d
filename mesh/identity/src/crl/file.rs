//! Notices that the file of revocation lists was replaced.
//!
//! The file is looked at rather than watched: a mounted ConfigMap is a chain of links whose middle is exchanged, and
//! some file systems report nothing. What a new file adds counts at once; what it takes away counts when the file has
//! been left alone for a while, so that a file that is being written never lets a revoked peer in.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{BadLists, Inner, Lists};

/// Tells one version of a file from another; `None`: there is none.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The stamp is taken first: a change between the two is noticed later rather than missed.
pub(super) async fn read(path: &Path) -> (Stamp, Option<Vec<u8>>) {
    let stamp = stamp(path).await;
    match tokio::fs::read(path).await {
        Ok(bytes) => (stamp, Some(bytes)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "revocation lists cannot be read, none are in use from there");
            (None, None)
        }
    }
}

async fn stamp(path: &Path) -> Stamp {
    let meta = tokio::fs::metadata(path).await.ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// Runs until nobody uses the lists any more.
pub(super) async fn watch(inner: Weak<Inner>, mut seen: Stamp) {
    // What a file that is gone or broken had revoked stays revoked.
    let Some(mut settled) = inner.upgrade().map(|inner| inner.lists.load_full()) else { return };
    let mut pending: Option<(Arc<Lists>, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        let now = stamp(&inner.path).await;
        if now.is_some() && now != seen {
            let (stamp, bytes) = read(&inner.path).await;
            seen = stamp;
            match bytes.map(|bytes| Lists::parse(&bytes)) {
                Some(Ok(lists)) => {
                    let base =
                        pending.take().map_or_else(|| settled.clone(), |(lists, _)| Arc::new(lists.and(&settled)));
                    inner.publish(Arc::new(lists.and(&base)));
                    pending = Some((Arc::new(lists), Instant::now()));
                }
                Some(Err(error)) => inner.keep(&error),
                None => {}
            }
        } else if let Some((lists, since)) = &pending
            && since.elapsed() >= SETTLE
        {
            settled = lists.clone();
            inner.publish(settled.clone());
            tracing::info!(path = %inner.path.display(), lists = settled.count(), "revocation lists were replaced");
            pending = None;
        }
    }
}

impl Inner {
    fn publish(&self, lists: Arc<Lists>) {
        // The lists come first: whoever wakes on the generation must see them.
        self.lists.store(lists);
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn keep(&self, error: &BadLists) {
        tracing::warn!(path = %self.path.display(), %error, "new revocation lists cannot be used, keeping the old ones");
    }
}

/// How often the file is looked at: half of the second in which open connections are to be judged again.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a file must have been left alone before what it no longer revokes is let in again.
const SETTLE: Duration = Duration::from_secs(2);
