#![allow(clippy::indexing_slicing)] // a test may

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::folder::{Folder, Read, Scan};
use crate::world::{Change, Kind, Object};

fn folder() -> Folder {
    Folder::new(&Kind::ALL, "default".into())
}

fn scan(files: &[(&str, &str)]) -> Scan {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), Ok((*text).to_owned())));
    Scan(files.collect::<BTreeMap<_, _>>())
}

/// What is read of a directory that holds still.
fn still(folder: &mut Folder, scan: Scan) -> Read {
    let again = Scan(scan.0.clone());
    let now = Instant::now();
    let mut read = folder.apply(scan, now);
    assert!(read.changes.is_empty() && read.problems.is_empty(), "at once: {read:?}");
    if read.again.is_some() {
        read = folder.apply(again, now + Duration::from_secs(2));
    }
    assert_eq!(read.again, None);
    read
}

/// `+kind/namespace/name`, `-…` and `!…` for broken ones.
fn told(read: &Read) -> Vec<String> {
    let name = |kind: Kind, key: &dyn std::fmt::Display| format!("{}/{key}", kind.name());
    let tell = |change: &Change| match change {
        Change::Upsert(object) | Change::Partial { object, .. } => format!("+{}", name(object.kind(), &object.key())),
        Change::Delete(kind, key) => format!("-{}", name(*kind, key)),
        Change::Broken { kind, key, .. } => format!("!{}", name(*kind, key)),
        other => panic!("{other:?}"),
    };
    read.changes.iter().map(tell).collect()
}

fn problems(read: &Read) -> Vec<String> {
    read.problems.iter().map(|one| format!("{}: {}", one.file.display(), one.reason)).collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\n";
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n";
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {}\n";

#[test]
fn documents_come_and_go_with_their_files() {
    let mut folder = folder();
    let both = format!("{POD}---\n{NAMESPACE}");
    let read = still(&mut folder, scan(&[("a.yaml", &both), ("b.yaml", POLICY)]));
    assert_eq!(told(&read), ["+Pod/ns/a", "+Namespace//ns", "+AuthorizationPolicy/default/p"]);
    assert!(problems(&read).is_empty(), "{read:?}");
    assert!(told(&still(&mut folder, scan(&[("a.yaml", &both), ("b.yaml", POLICY)]))).is_empty(), "nothing changed");
    assert_eq!(told(&still(&mut folder, scan(&[("a.yaml", POD), ("b.yaml", POLICY)]))), ["-Namespace//ns"]);
    assert_eq!(told(&still(&mut folder, scan(&[("b.yaml", POLICY)]))), ["-Pod/ns/a"]);
    assert_eq!(told(&still(&mut folder, scan(&[]))), ["-AuthorizationPolicy/default/p"]);
}

#[test]
fn a_file_that_is_no_yaml_keeps_what_it_said_and_others_go_on() {
    let mut folder = folder();
    still(&mut folder, scan(&[("a.yaml", POD), ("b.yaml", NAMESPACE)]));
    let read = still(&mut folder, scan(&[("a.yaml", "kind: [Pod\n"), ("b.yaml", POLICY)]));
    assert_eq!(told(&read), ["+AuthorizationPolicy/default/p", "-Namespace//ns"]);
    assert!(problems(&read)[0].starts_with("a.yaml: "), "{read:?}");
    let again = still(&mut folder, scan(&[("a.yaml", "kind: [Pod\n"), ("b.yaml", POLICY)]));
    assert!(problems(&again).is_empty(), "told once");
    assert_eq!(told(&still(&mut folder, scan(&[("a.yaml", ""), ("b.yaml", POLICY)]))), ["-Pod/ns/a"]);
}

#[test]
fn a_file_that_cannot_be_opened_keeps_what_it_said() {
    let mut folder = folder();
    still(&mut folder, scan(&[("a.yaml", POD)]));
    let mut gone = Scan::default();
    gone.0.insert("a.yaml".into(), Err("permission denied".into()));
    let read = still(&mut folder, gone);
    assert!(told(&read).is_empty());
    assert_eq!(problems(&read), ["a.yaml: permission denied; what the file said before stays in force"]);
}

#[test]
fn a_broken_document_is_named_with_file_number_and_field() {
    let mut folder = folder();
    still(&mut folder, scan(&[("a.yaml", &format!("{POD}---\n{NAMESPACE}"))]));
    let broken = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\nspec: {hostNetwork: maybe}\n";
    let read = still(&mut folder, scan(&[("a.yaml", &format!("{NAMESPACE}---\n{broken}"))]));
    assert_eq!(told(&read), ["!Pod/ns/a"], "the world keeps what it knows");
    let problem = &problems(&read)[0];
    assert!(problem.starts_with("a.yaml: document 2, Pod ns/a: spec.hostNetwork"), "{problem}");
}

#[test]
fn a_document_that_nobody_can_name_may_be_any_that_was_there() {
    let mut folder = folder();
    still(&mut folder, scan(&[("a.yaml", &format!("{POD}---\n{NAMESPACE}"))]));
    let read = still(&mut folder, scan(&[("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {nam: a}\n")]));
    assert!(told(&read).is_empty(), "{read:?}");
    assert_eq!(problems(&read), ["a.yaml: document 1: Pod: metadata.name is missing"]);
    let read = still(&mut folder, scan(&[("a.yaml", NAMESPACE)]));
    assert_eq!(told(&read), ["-Pod/ns/a"]);
}

#[test]
fn the_first_of_two_files_is_used_until_it_goes() {
    let mut folder = folder();
    let first = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, labels: {from: first}}\n";
    let read = still(&mut folder, scan(&[("1.yaml", first), ("2.yaml", NAMESPACE)]));
    assert_eq!(told(&read), ["+Namespace//ns"]);
    assert_eq!(problems(&read), ["2.yaml: Namespace /ns is not used: 1.yaml has it too"]);
    assert!(problems(&still(&mut folder, scan(&[("1.yaml", first), ("2.yaml", NAMESPACE)]))).is_empty(), "told once");
    let read = still(&mut folder, scan(&[("2.yaml", NAMESPACE)]));
    let [Change::Upsert(Object::Namespace(namespace))] = read.changes.as_slice() else { panic!("{read:?}") };
    assert!(namespace.labels.is_empty());
}

#[test]
fn lists_are_opened_and_other_kinds_are_skipped() {
    let mut folder = folder();
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}},
        {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "not-ours"}}
    ]}"#;
    let read = still(&mut folder, scan(&[("a.json", list)]));
    assert_eq!(told(&read), ["+Pod/default/a"]);
    assert!(problems(&read).is_empty());
}

#[test]
fn kinds_of_another_source_are_left_to_it() {
    let mut folder = Folder::new(Kind::DEFINED, "default".into());
    let read = still(&mut folder, scan(&[("a.yaml", &format!("{POD}---\n{POLICY}"))]));
    assert_eq!(told(&read), ["+AuthorizationPolicy/default/p"]);
}

#[test]
fn subdirectories_are_read_and_hidden_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [("a.yaml", NAMESPACE), ("sub/b.yml", POD), ("..data/c.yaml", POLICY), ("notes.txt", POLICY)] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let read = still(&mut folder(), Scan::read(dir.path()).unwrap());
    assert_eq!(told(&read), ["+Pod/ns/a", "+Namespace//ns"]);
}

const PAUSE: Duration = Duration::from_millis(150);

/// Looks at one text of one file after the other, with a pause before each.
fn written(folder: &mut Folder, now: &mut Instant, steps: &[&str]) -> Vec<String> {
    let each = steps.iter().flat_map(|text| {
        *now += PAUSE;
        let read = folder.apply(scan(&[("a.yaml", text)]), *now);
        assert!(read.problems.is_empty(), "half of a file is no mistake: {read:?}");
        told(&read)
    });
    each.collect()
}

#[test]
fn a_file_that_is_being_written_loses_nothing() {
    let (mut folder, mut now) = (folder(), Instant::now());
    let whole = format!("{POD}---\n{NAMESPACE}---\n{POLICY}");
    still(&mut folder, scan(&[("a.yaml", &whole)]));
    // Emptied, half, broken, and whole again with more in it; each for longer than a look takes.
    let more = format!("{whole}---\n{}", POD.replace("name: a", "name: b"));
    let steps = ["", "", POD, POD, "apiVersion: v1\nkind: [", "apiVersion: v1\nkind: [", &more, &more];
    assert_eq!(written(&mut folder, &mut now, &steps), ["+Pod/ns/b"]);
    // What holds still is meant.
    let steps = [POD; 10];
    assert_eq!(
        written(&mut folder, &mut now, &steps),
        ["-Pod/ns/b", "-Namespace//ns", "-AuthorizationPolicy/default/p"]
    );
}

#[test]
fn a_file_that_never_holds_still_is_read_all_the_same() {
    let (mut folder, mut now) = (folder(), Instant::now());
    let mut told = Vec::new();
    for number in 0..100 {
        told.extend(written(&mut folder, &mut now, &[&format!("{POD}# {number}\n")]));
    }
    assert_eq!(told.first().map(String::as_str), Some("+Pod/ns/a"));
}

#[test]
fn a_file_that_is_renamed_or_replaced_is_never_gone() {
    let (mut folder, now) = (folder(), Instant::now());
    still(&mut folder, scan(&[("a.yaml", POD)]));
    let later = |step: u32| now + Duration::from_secs(3) + PAUSE * step;
    let all = [scan(&[]), scan(&[("b.yaml", POD)]), scan(&[("b.yaml", POD)]), scan(&[("b.yaml", POD)])];
    for (step, scan) in (0..).zip(all) {
        let read = folder.apply(scan, later(step));
        assert!(told(&read).is_empty() && read.problems.is_empty(), "{step}: {read:?}");
    }
    let read = folder.apply(scan(&[("b.yaml", POD)]), later(20));
    assert!(told(&read).iter().all(|one| one == "+Pod/ns/a") && read.problems.is_empty(), "{read:?}");
    assert_eq!(told(&still(&mut folder, scan(&[]))), ["-Pod/ns/a"]);
}

#[test]
fn what_nobody_could_ever_read_is_named_and_what_was_read_once_is_not() {
    let mut folder = folder();
    let unread = |folder: &Folder| {
        folder.unread().map(|(file, reason)| (file.to_owned(), reason.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let unnamed = "apiVersion: v1\nkind: Pod\nmetadata: {}\n";
    let mut first = scan(&[("a.yaml", "kind: [Pod\n"), ("b.yaml", POD), ("c.yaml", unnamed)]);
    first.0.insert("d.yaml".into(), Err("permission denied".into()));
    still(&mut folder, first);
    let found = unread(&folder);
    let names: Vec<_> = found.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, ["a.yaml", "c.yaml", "d.yaml"]);
    assert!(found[Path::new("c.yaml")].contains("document 1") && found[Path::new("d.yaml")] == "permission denied");
    still(&mut folder, scan(&[("a.yaml", POLICY), ("b.yaml", "kind: [Pod\n"), ("c.yaml", NAMESPACE)]));
    assert!(unread(&folder).is_empty(), "b.yaml has what it said before");
}
