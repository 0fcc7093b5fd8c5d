use serde_json::json;

use super::*;

fn store(capacity: usize) -> Arc<Store> {
    Arc::new(Store::new(capacity))
}

fn maps() -> ResourceKey {
    ResourceKey::new("", "configmaps")
}

fn object(name: &str) -> Value {
    json!({"metadata": {"name": name, "uid": name}})
}

fn put(store: &Store, name: &str, expect: Expect) -> Result<Arc<Object>, CommitError> {
    store.put(&maps(), &ObjectKey::cluster(name), object(name), expect)
}

#[test]
fn writes_expect_a_state() {
    let store = store(8);
    let first = put(&store, "a", Expect::Absent).unwrap();
    assert!(matches!(put(&store, "a", Expect::Absent), Err(CommitError::Exists { .. })));
    let second = put(&store, "a", Expect::Revision(first.revision())).unwrap();
    assert!(second.revision() > first.revision());
    assert!(matches!(put(&store, "a", Expect::Revision(first.revision())), Err(CommitError::Stale { .. })));
    let key = ObjectKey::cluster("a");
    assert!(matches!(store.remove(&maps(), &key, None, first.revision()), Err(CommitError::Stale { .. })));
    let removed = store.remove(&maps(), &key, None, second.revision()).unwrap();
    assert_eq!(meta_str(removed.value(), "resourceVersion"), Some(removed.revision().to_string().as_str()));
    assert!(matches!(store.remove(&maps(), &key, None, 1), Err(CommitError::Missing { .. })));
}

#[test]
fn namespaces_are_listed_apart() {
    let store = store(8);
    for namespace in ["a", "ab", "b"] {
        let key = ObjectKey::cluster(namespace);
        store.put(&ResourceKey::namespaces(), &key, object(namespace), Expect::Absent).unwrap();
        for name in ["x", "y"] {
            let key = ObjectKey::namespaced(namespace, name);
            store.put(&maps(), &key, object(&format!("{namespace}{name}")), Expect::Absent).unwrap();
        }
    }
    assert_eq!(store.list(&maps(), Some("a")).items.len(), 2);
    assert_eq!(store.list(&maps(), None).items.len(), 6);
    assert_eq!(store.occupied("ab"), [maps()]);
    assert!(store.occupied("none").is_empty());
    let missing = store.put(&maps(), &ObjectKey::namespaced("none", "x"), object("x"), Expect::Absent);
    assert!(matches!(missing, Err(CommitError::NoNamespace { .. })));
}

#[tokio::test]
async fn a_watcher_reads_in_order_and_expires_when_it_is_too_slow() {
    let store = store(4);
    let mut fast = store.watch(&maps(), store.revision()).unwrap();
    let mut slow = store.watch(&maps(), store.revision()).unwrap();
    for name in ["a", "b", "c", "d", "e", "f"] {
        put(&store, name, Expect::Absent).unwrap();
        let events = fast.next(10).await.unwrap().unwrap();
        assert_eq!(events.iter().map(|event| event.object.name()).collect::<Vec<_>>(), [name]);
    }
    assert!(slow.next(10).await.is_err());
    assert!(store.watch(&maps(), 1).is_err(), "compacted");
    assert!(store.watch(&maps(), store.revision() + 1).is_err(), "in the future");
    assert_eq!(fast.bookmark(), Some(store.revision()));
    store.drop_resource(&maps());
    assert!(fast.next(10).await.unwrap().is_none());
}

#[tokio::test]
async fn a_bookmark_never_passes_an_unread_event() {
    let store = store(8);
    let mut watcher = store.watch(&maps(), store.revision()).unwrap();
    let before = watcher.cursor();
    put(&store, "a", Expect::Absent).unwrap();
    assert_eq!(watcher.bookmark(), None);
    assert_eq!(watcher.cursor(), before);
    watcher.next(1).await.unwrap();
    assert_eq!(watcher.bookmark(), Some(store.revision()));
}

#[tokio::test]
async fn a_removed_owner_queues_its_dependents_once() {
    let store = store(8);
    let owner = put(&store, "owner", Expect::Absent).unwrap();
    let child = json!({"metadata": {"name": "child", "uid": "child", "ownerReferences": [{"uid": "owner"}]}});
    store.put(&maps(), &ObjectKey::cluster("child"), child, Expect::Absent).unwrap();
    store.remove(&maps(), &ObjectKey::cluster("owner"), None, owner.revision()).unwrap();
    assert_eq!(store.next_task().await, Task::AbsentOwner { uid: "owner".to_owned() });
    assert_eq!(store.dependents("owner"), [(maps(), ObjectKey::cluster("child"))]);
    assert!(!store.has_uid("owner"));
}
