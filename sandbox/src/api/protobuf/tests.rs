use super::*;

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value, &mut out);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &type_meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn a_config_map() {
    let metadata = [field(1, b"settings"), field(2, b""), field(8, b"")].concat();
    let entry = [field(1, b"key"), field(2, b"value")].concat();
    let binary = [field(1, b"bin"), field(2, &[0, 255])].concat();
    let raw = [field(1, &metadata), field(2, &entry), field(3, &binary), number(4, 0)].concat();
    let object = decode(&envelope("v1", "ConfigMap", &raw)).unwrap();
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"},
               "binaryData": {"bin": "AP8="}, "immutable": false})
    );
}

#[test]
fn a_service_with_a_named_target_and_a_rule_for_the_core_group() {
    let target = [number(1, 1), number(2, 0), field(3, b"http")].concat();
    let port = [field(1, b""), field(2, b"TCP"), number(3, 80), field(4, &target), number(5, 0)].concat();
    let raw = field(2, &field(1, &port));
    let object = decode(&envelope("v1", "Service", &raw)).unwrap();
    assert_eq!(object["spec"]["ports"], json!([{"protocol": "TCP", "port": 80, "targetPort": "http"}]));
    let rule = [field(1, b"get"), field(2, b""), field(3, b"pods")].concat();
    let object = decode(&envelope("rbac.authorization.k8s.io/v1", "Role", &field(2, &rule))).unwrap();
    assert_eq!(object["rules"], json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
}

#[test]
fn a_volume_stands_beside_its_source() {
    let source = field(1, &field(1, b"/data"));
    let volume = [field(1, b"v"), field(2, &source)].concat();
    let object = decode(&envelope("v1", "Pod", &field(2, &field(1, &volume)))).unwrap();
    assert_eq!(object["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/data"}}]));
}

#[test]
fn times_have_the_precision_of_their_type() {
    let time = [number(1, 1_700_000_000), number(2, 120_000_000)].concat();
    let object = decode(&envelope("coordination.k8s.io/v1", "Lease", &field(2, &field(3, &time)))).unwrap();
    assert_eq!(object["spec"]["acquireTime"], "2023-11-14T22:13:20.120000Z");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let unknown = decode(&envelope("v1", "ConfigMap", &field(99, b""))).unwrap_err();
    assert_eq!(unknown, ProtobufError::Field { message: "core.ConfigMap".to_owned(), number: 99 });
    assert!(matches!(decode(&envelope("v1", "Widget", b"")), Err(ProtobufError::Kind { .. })));
    assert!(matches!(decode(&envelope("apps/v1beta1", "Deployment", b"")), Err(ProtobufError::Kind { .. })));
    for broken in [&b""[..], b"k8s", b"k8s\0\x0a\xff", b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        assert!(decode(broken).is_err());
    }
    let cut = envelope("v1", "ConfigMap", &field(1, b"x"));
    assert!(decode(&cut).is_err());
}

#[test]
fn every_message_in_the_table_is_there() {
    for (name, fields) in table() {
        assert!(!fields.is_empty() || name.ends_with("Status"), "{name} has no fields");
        for (json_name, code) in fields.values() {
            let code = code.trim_start_matches(['*', '{']);
            assert!(code.len() == 1 || table().contains_key(code), "{name}.{json_name}: {code}");
        }
    }
}
