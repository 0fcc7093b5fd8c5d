//! What a directory holds: the newest snapshot and the logs behind it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Contents, DiskError, LOG_PREFIX, MAGIC, SNAPSHOT_PREFIX, at, record};
use crate::store::{Object, ObjectKey, ResourceKey};

/// What was read.
#[derive(Debug, Default)]
pub(in crate::store) struct Recovered {
    /// The revision of the newest write; 0 for an empty directory.
    pub(in crate::store) revision: u64,
    pub(in crate::store) objects: Contents,
}

/// The files of a directory, oldest first, by the revision in their name.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) logs: BTreeMap<u64, PathBuf>,
    pub(super) snapshots: BTreeMap<u64, PathBuf>,
}

type Objects = BTreeMap<(ResourceKey, ObjectKey), Arc<Object>>;

pub(super) fn list(dir: &Path) -> io::Result<Files> {
    let mut files = Files::default();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let revision = |prefix: &str| name.strip_prefix(prefix)?.parse::<u64>().ok();
        if let Some(revision) = revision(LOG_PREFIX) {
            files.logs.insert(revision, path);
        } else if let Some(revision) = revision(SNAPSHOT_PREFIX) {
            files.snapshots.insert(revision, path);
        }
    }
    Ok(files)
}

pub(super) fn read(dir: &Path) -> Result<Recovered, DiskError> {
    let files = list(dir).map_err(at(dir))?;
    let (mut objects, mut revision) = (Objects::new(), 0);
    let newest = files.snapshots.last_key_value();
    if let Some((of, path)) = newest {
        replay(path, false, &mut objects, &mut revision)?;
        revision = revision.max(*of);
    }
    let since = newest.map_or(0, |(of, _)| *of);
    let logs: Vec<_> = files.logs.range(since..).collect();
    for (index, (_, path)) in logs.iter().enumerate() {
        replay(path, index + 1 == logs.len(), &mut objects, &mut revision)?;
    }
    let objects = objects.into_iter().map(|((resource, key), object)| (resource, key, object)).collect();
    Ok(Recovered { revision, objects })
}

/// Applies the records of a file. Only the last log may end in the middle of a record.
fn replay(path: &Path, last: bool, objects: &mut Objects, revision: &mut u64) -> Result<(), DiskError> {
    let bytes = fs::read(path).map_err(at(path))?;
    let damaged = |offset: usize, reason| DiskError::Damaged { path: path.to_owned(), offset: offset as u64, reason };
    let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
        // A log that was being made when the machine stopped.
        return if last && bytes.len() < MAGIC.len() {
            Ok(())
        } else {
            Err(damaged(0, "the first bytes are not ours"))
        };
    };
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let (read, length) = match record::decode(rest) {
            Ok(found) => found,
            Err(reason) if last => {
                tracing::warn!(path = %path.display(), offset, reason, "the end of the store's log is dropped");
                return Ok(());
            }
            Err(reason) => return Err(damaged(offset, reason)),
        };
        let head = read.head;
        *revision = (*revision).max(head.revision);
        let (plural, group) = head.resource.split_once('.').unwrap_or((&head.resource, ""));
        let address = (ResourceKey::new(group, plural), ObjectKey::new(head.namespace.as_deref(), &head.name));
        if read.text.is_empty() {
            objects.remove(&address);
        } else {
            let value = serde_json::from_slice(read.text).map_err(|_| damaged(offset, "the object is not JSON"))?;
            objects.insert(address, Arc::new(Object::new(value, head.revision)));
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(())
}
