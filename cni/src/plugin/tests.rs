use serde_json::Value;

use super::*;

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"net","type":"istio-cni"}"#;

fn call(env: &[(&str, &str)], stdin: &str) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(&env.iter().copied().collect(), stdin.as_bytes(), &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn env<'a>(verb: &'a str, extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/does/not/exist"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    all.retain(|(name, _)| extra.iter().all(|(other, _)| other != name));
    all.extend(extra);
    all
}

fn code(output: &str) -> u64 {
    let value: Value = serde_json::from_str(output).unwrap_or_else(|_| panic!("no JSON: {output:?}"));
    value["code"].as_u64().unwrap()
}

#[test]
fn without_a_command_a_human_is_told_what_this_is() {
    let (status, out, err) = call(&[], "");
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(err.contains("istio-cni") && err.contains("1.1.0"), "{err}");
}

#[test]
fn an_unknown_verb_is_code_4() {
    let (status, out, _) = call(&env("FROB", &[]), CONFIG);
    assert_eq!((status, code(&out)), (1, 4));
}

#[test]
fn version_lists_all_seven_and_echoes_the_request() {
    let (status, out, _) = call(&[("CNI_COMMAND", "VERSION")], "");
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, value["cniVersion"].as_str()), (0, Some("1.1.0")));
    assert_eq!(value["supportedVersions"].as_array().unwrap().len(), 7);
    let (_, out, _) = call(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
    assert!(out.contains(r#""cniVersion":"0.4.0""#), "{out}");
}

#[test]
fn cni_row_3_del_needs_nothing_and_succeeds_twice() {
    let config = CONFIG.replace("\"type\"", "\"cni_agent_run_dir\":\"/does/not/exist\",\"type\"");
    for _ in 0..2 {
        let (status, out, _) = call(&env("DEL", &[("CNI_NETNS", "")]), &config);
        assert_eq!((status, out.as_str()), (0, ""));
    }
}

#[test]
fn verbs_need_the_version_that_brought_them() {
    let at = |version: &str| CONFIG.replace("1.0.0", version);
    for (verb, version, status) in [
        ("CHECK", "0.3.1", 1),
        ("CHECK", "0.4.0", 0),
        ("GC", "1.0.0", 1),
        ("GC", "1.1.0", 0),
        ("STATUS", "1.0.0", 1),
        ("STATUS", "1.1.0", 0),
        ("DEL", "0.1.0", 0),
        ("DEL", "2.0.0", 1),
    ] {
        let (found, out, _) = call(&env(verb, &[]), &at(version));
        assert_eq!(found, status, "{verb} {version}: {out}");
        if status == 1 {
            assert_eq!(code(&out), 1, "{verb} {version}");
        }
    }
}

#[test]
fn bad_environment_is_code_4_and_names_the_variable() {
    for (name, value) in [
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_IFNAME", "sixteen-bytes-xx"),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a:b"),
        ("CNI_NETNS", ""),
        ("CNI_PATH", ""),
    ] {
        let (status, out, _) = call(&env("ADD", &[(name, value)]), CONFIG);
        assert_eq!((status, code(&out)), (1, 4), "{name}={value:?}");
        assert!(out.contains(name), "{out}");
    }
}

#[test]
fn the_namespace_of_the_plugin_is_refused_unless_overridden() {
    let own = "/proc/thread-self/ns/net";
    let (_, out, _) = call(&env("CHECK", &[("CNI_NETNS", own)]), CONFIG);
    assert_eq!(code(&out), 8);
    let (status, _, _) = call(&env("CHECK", &[("CNI_NETNS", own), ("CNI_NETNS_OVERRIDE", "1")]), CONFIG);
    assert_eq!(status, 0);
}

#[test]
fn broken_configuration_is_named() {
    for (text, expected, part) in [
        ("{", 6, "configuration"),
        (r#"{"cniVersion":"1.0.0"}"#, 7, "name"),
        (r#"{"cniVersion":"1.0.0","name":"a b"}"#, 7, "a b"),
        (r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":[{"address":"ten"}]}}"#, 6, "ten"),
        (r#"{"cniVersion":"1.0.0","name":"n","exclude_namespaces":7}"#, 6, "invalid type"),
    ] {
        let (status, out, _) = call(&env("ADD", &[]), text);
        assert_eq!((status, code(&out)), (1, expected), "{text}");
        assert!(out.contains(part), "{out}");
    }
}

#[test]
fn unknown_arguments_need_permission() {
    use super::request::PodArgs;
    let pod = PodArgs::parse("IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web;X=1;K8S_POD_UID=u").unwrap();
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()), ("demo", "web", Some("u")));
    assert!(PodArgs::parse("K8S_POD_NAME=web;X=1").unwrap_err().details.contains('X'));
    assert!(PodArgs::parse("nonsense").is_err());
    assert_eq!(PodArgs::parse("").unwrap(), PodArgs::default());
}

#[test]
fn the_agent_itself_passes_without_anything_that_it_provides() {
    let config =
        CONFIG.replace("\"type\"", "\"pod_namespace\":\"istio-system\",\"cni_agent_run_dir\":\"/none\",\"type\"");
    let args = "K8S_POD_NAME=istio-cni-node-abc;K8S_POD_NAMESPACE=istio-system";
    let (status, out, _) = call(&env("ADD", &[("CNI_ARGS", args)]), &config);
    assert_eq!(status, 0, "{out}");
    let other = "K8S_POD_NAME=istio-cni-node-abc;K8S_POD_NAMESPACE=demo";
    let (status, out, _) = call(&env("ADD", &[("CNI_ARGS", other)]), &config);
    assert_eq!((status, code(&out)), (1, 999));
    assert!(out.contains("/none/istio-cni-kubeconfig"), "{out}");
}
