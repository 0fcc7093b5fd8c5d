use super::*;

fn entry() -> Entry {
    match json!({"type": TYPE, "name": TYPE, "plugin_log_level": "info"}) {
        Value::Object(map) => Entry(map),
        _ => unreachable!(),
    }
}

fn types(path: &Path) -> Vec<String> {
    let list: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    list["plugins"].as_array().unwrap().iter().map(|p| p["type"].as_str().unwrap().to_owned()).collect()
}

fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const CALICO: &str = r#"{"name":"net","cniVersion":"0.3.1","extra":{"keep":[1,2]},"plugins":[{"type":"calico","mtu":1},{"type":"portmap"}]}"#;

#[test]
fn cni_row_4_our_entry_goes_last_and_a_second_run_changes_no_byte() {
    let dir = dir_with(&[("10-calico.conflist", CALICO)]);
    let path = dir.path().join("10-calico.conflist");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(extend(&path, &entry()).unwrap(), path);
    assert_eq!(types(&path), ["calico", "portmap", "istio-cni"]);
    let first = fs::read(&path).unwrap();
    assert_eq!(extend(&path, &entry()).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), first);
    assert!(first.ends_with(b"}\n") && first.windows(4).any(|w| w == b"\n  \""));
    let list: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(list["extra"], json!({"keep": [1, 2]}));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(is_extended(&path, &entry()));
}

#[test]
fn an_older_entry_of_ours_is_replaced_and_moved_last() {
    let text = r#"{"name":"n","plugins":[{"type":"istio-cni","old":1},{"type":"calico"}]}"#;
    let dir = dir_with(&[("a.conflist", text)]);
    let path = dir.path().join("a.conflist");
    assert!(!is_extended(&path, &entry()));
    extend(&path, &entry()).unwrap();
    assert_eq!(types(&path), ["calico", "istio-cni"]);
}

#[test]
fn a_single_configuration_becomes_a_list_under_its_stem() {
    let dir = dir_with(&[("10-bridge.conf", r#"{"cniVersion":"0.4.0","type":"bridge","ipam":{"type":"host-local"}}"#)]);
    let written = extend(&dir.path().join("10-bridge.conf"), &entry()).unwrap();
    assert_eq!(written, dir.path().join("10-bridge.conflist"));
    assert!(!dir.path().join("10-bridge.conf").exists());
    let list: Value = serde_json::from_slice(&fs::read(&written).unwrap()).unwrap();
    assert_eq!(
        (list["name"].as_str(), list["cniVersion"].as_str(), list["plugins"][0]["cniVersion"].as_str()),
        (Some("k8s-pod-network"), Some("0.3.1"), None)
    );
    assert_eq!(types(&written), ["bridge", "istio-cni"]);
    assert_eq!(fs::metadata(&written).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_first_valid_file_in_lexical_order_is_the_primary() {
    let dir = dir_with(&[
        ("00-broken.conflist", "{"),
        ("01-empty.conflist", r#"{"plugins":[]}"#),
        ("02-typeless.conf", "{}"),
        ("03-other.json", CALICO),
        ("20-b.conflist", CALICO),
        ("10-a.conf", r#"{"type":"bridge"}"#),
    ]);
    assert_eq!(select(dir.path(), None).unwrap(), Selection::Found(dir.path().join("10-a.conf")));
    assert_eq!(select(tempfile::tempdir().unwrap().path(), None).unwrap(), Selection::None);
    assert!(select(Path::new("/does/not/exist"), None).is_err());
}

#[test]
fn a_named_file_or_its_twin_is_used() {
    let dir = dir_with(&[("10-a.conflist", CALICO), ("99-mine.conflist", CALICO)]);
    for name in ["99-mine.conflist", "99-mine.conf"] {
        assert_eq!(select(dir.path(), Some(name)).unwrap(), Selection::Found(dir.path().join("99-mine.conflist")));
    }
    assert_eq!(select(dir.path(), Some("50-none.conf")).unwrap(), Selection::None);
}

#[test]
fn cni_row_7_withdrawing_leaves_the_other_plugins() {
    let dir = dir_with(&[("a.conflist", CALICO)]);
    let path = dir.path().join("a.conflist");
    extend(&path, &entry()).unwrap();
    withdraw(&path).unwrap();
    assert_eq!(types(&path), ["calico", "portmap"]);
    withdraw(&path).unwrap();
}

proptest::proptest! {
    #[test]
    fn any_content_is_survived(text in ".{0,100}") {
        let _ = parse(Path::new("a.conflist"), text.as_bytes());
        let _ = parse(Path::new("a.conf"), text.as_bytes());
    }
}
