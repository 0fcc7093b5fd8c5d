//! Restarts, crashes in the middle of a write, damage, and compaction.

use std::io::Seek;

use serde_json::{Value, json};

use super::*;
use crate::store::{Expect, Store};

fn maps() -> ResourceKey {
    ResourceKey::new("example.com", "maps")
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::cluster(name)
}

fn open(dir: &Path) -> Arc<Store> {
    Arc::new(Store::open(8, dir).unwrap())
}

fn put(store: &Store, name: &str, size: u64) -> u64 {
    let expect = store.get(&maps(), &key(name)).map_or(Expect::Absent, |old| Expect::Revision(old.revision()));
    let value = json!({"metadata": {"name": name, "uid": name}, "size": size});
    store.put(&maps(), &key(name), value, expect).unwrap().revision()
}

fn names(store: &Store) -> Vec<(String, Value)> {
    let items = store.list(&maps(), None).items;
    items.iter().map(|object| (object.name().to_owned(), object.value()["size"].clone())).collect()
}

fn newest_log(dir: &Path) -> PathBuf {
    recover::list(dir).unwrap().logs.pop_last().unwrap().1
}

#[test]
fn objects_are_there_again_and_old_watches_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, "a", 1);
    put(&store, "b", 2);
    let last = put(&store, "a", 3);
    let gone = put(&store, "c", 4);
    store.remove(&maps(), &key("c"), None, gone).unwrap();
    let before = store.revision();
    drop(store);
    let again = open(dir.path());
    assert_eq!(names(&again), [("a".to_owned(), json!(3)), ("b".to_owned(), json!(2))]);
    assert!(again.revision() > before);
    assert_eq!(again.get(&maps(), &key("a")).unwrap().revision(), last);
    assert!(again.watch(&maps(), before).is_err(), "a watch from before the restart has to list again");
    assert!(again.watch(&maps(), again.revision()).is_ok());
    assert!(again.watch(&ResourceKey::new("", "never-seen"), before).is_err());
    assert!(put(&again, "a", 5) > before + 1);
    assert!(again.has_uid("a"));
}

#[test]
fn a_record_that_was_cut_off_never_happened() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, "a", 1);
    put(&store, "b", 2);
    drop(store);
    let whole = fs::read(newest_log(dir.path())).unwrap();
    for cut in 1..40 {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        fs::write(newest_log(copy.path()), &whole[..whole.len() - cut]).unwrap();
        let store = open(copy.path());
        assert_eq!(names(&store), [("a".to_owned(), json!(1))], "{cut} bytes cut off");
        put(&store, "b", 3);
        drop(store);
        assert_eq!(names(&open(copy.path())).len(), 2);
    }
}

#[test]
fn damage_in_the_middle_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, "a", 1);
    drop(store);
    drop(open(dir.path()));
    let snapshot = recover::list(dir.path()).unwrap().snapshots.pop_last().unwrap().1;
    let mut file = OpenOptions::new().write(true).open(&snapshot).unwrap();
    file.seek(io::SeekFrom::Start(40)).unwrap();
    file.write_all(b"?").unwrap();
    drop(file);
    let error = Store::open(8, dir.path()).unwrap_err();
    assert!(matches!(&error, DiskError::Damaged { path, .. } if *path == snapshot), "{error}");
}

#[test]
fn one_process_uses_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    assert!(matches!(Store::open(8, dir.path()), Err(DiskError::InUse { .. })));
}

#[test]
fn a_long_log_becomes_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = Disk::open(dir.path()).unwrap();
    disk.limit = 1_000;
    let object =
        |revision: u64| Arc::new(Object::new(json!({"metadata": {"name": "a"}, "text": "x".repeat(100)}), revision));
    let mut revision = 0;
    while !disk.is_full() {
        revision += 1;
        disk.append(&maps(), &key("a"), &object(revision), false).unwrap();
    }
    disk.compact(revision, vec![(maps(), key("a"), object(revision))]);
    disk.append(&maps(), &key("b"), &object(revision + 1), false).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while disk.busy.load(Ordering::Acquire) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let files = recover::list(dir.path()).unwrap();
    assert_eq!((files.logs.len(), files.snapshots.len()), (1, 1), "what the snapshot replaces is gone");
    drop(disk);
    let (_, found) = Disk::open(dir.path()).unwrap();
    assert_eq!((found.objects.len(), found.revision), (2, revision + 1 + REVISION_GAP));
}
