use super::*;

#[test]
fn authorities_are_addresses_or_names_with_a_port_and_nothing_else() {
    let address = |text: &str| Ok(Destination::Address(text.parse().unwrap()));
    let name = |text: &str, port| Ok(Destination::Name(text.into(), port));
    for (text, expected) in [
        ("10.1.1.5:80", address("10.1.1.5:80")),
        ("[fd00::1]:80", address("[fd00::1]:80")),
        ("[::ffff:10.1.1.5]:80", address("10.1.1.5:80")),
        ("a.b.svc.cluster.local:80", name("a.b.svc.cluster.local", 80)),
        ("A.B:80", name("a.b", 80)),
        ("a.b.:80", name("a.b", 80)),
    ] {
        assert_eq!(parse(Some(text)), expected, "{text}");
    }
    for text in [
        "",
        ":80",
        "a",
        "a:",
        "a:0",
        "10.1.1.5:0",
        "a:65536",
        "a:+80",
        "a:8 0",
        "user@a:80",
        "a/b:80",
        "fd00::1:80x",
        "[fd00::1]",
        "a b:80",
        "a:80:90",
        "ä:80",
        "*:80",
        "10.1.1.5.:80",
    ] {
        let refusal = parse(Some(text)).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::BAD_REQUEST, "{text}");
    }
    assert!(matches!(parse(None), Err(Refusal::Malformed { .. })));
}

#[test]
fn this_machine_and_nobody_are_never_workloads() {
    for ip in ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1"] {
        assert!(is_never_a_workload(ip.parse().unwrap()), "{ip}");
    }
    for ip in ["10.1.2.3", "192.168.1.1", "fd00::1", "8.8.8.8"] {
        assert!(!is_never_a_workload(ip.parse().unwrap()), "{ip}");
    }
}

#[test]
fn nothing_is_served_before_the_control_plane_has_spoken() {
    let (snapshot, store) = (Snapshot::default(), Store::new(crate::endpoints::Place::default()));
    for text in ["10.1.1.5:80", "a.b:80"] {
        let refusal = look_up(&snapshot, &store, &parse(Some(text)).unwrap()).unwrap_err();
        assert_eq!(refusal, Some(Refusal::NotReady));
    }
}
