//! Rows of the operations specification that are about settings.

use super::*;

fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_env(&settings.iter().copied().collect())
}

fn errors(settings: &[(&str, &str)]) -> String {
    config(settings).unwrap_err().to_string()
}

#[test]
fn row_1_the_deadline_is_a_little_less_than_a_long_grace_period() {
    let config = config(&[("TERMINATION_GRACE_PERIOD_SECONDS", "45")]).unwrap();
    assert_eq!(config.termination_deadline, Duration::from_secs(40));
}

#[test]
fn row_2_and_one_second_less_than_a_short_one() {
    let deadline = |text| config(&[("TERMINATION_GRACE_PERIOD_SECONDS", text)]).unwrap().termination_deadline;
    assert_eq!(deadline("4"), Duration::from_secs(3));
    assert_eq!(deadline("1"), Duration::from_secs(1));
    let explicit = [("TERMINATION_GRACE_PERIOD_SECONDS", "45"), ("CONNECTION_TERMINATION_DEADLINE", "7s")];
    assert_eq!(config(&explicit).unwrap().termination_deadline, Duration::from_secs(7));
    assert_eq!(config(&[]).unwrap().termination_deadline, Duration::from_secs(5));
}

#[test]
fn row_3_two_local_sources_are_an_error() {
    let text = errors(&[("LOCAL_XDS", "x"), ("LOCAL_XDS_PATH", "/x")]);
    assert!(text.contains("LOCAL_XDS and LOCAL_XDS_PATH are both set"), "{text}");
}

#[test]
fn row_4_dedicated_mode_without_its_workload_is_an_error() {
    let text = errors(&[("PROXY_MODE", "dedicated")]);
    assert!(text.contains("PROXY_WORKLOAD_INFO is not set"), "{text}");
}

#[test]
fn row_5_a_missing_scheme_is_https() {
    let config = config(&[("XDS_ADDRESS", "istiod.foo.svc:15012")]).unwrap();
    assert_eq!(config.xds_address, "https://istiod.foo.svc:15012");
}

#[test]
fn defaults() {
    let config = config(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert_eq!(config.xds_address, "https://istiod.istio-system.svc:15012");
    assert_eq!(config.ca_address, config.xds_address);
    assert_eq!((config.packet_mark, config.cluster_id.as_str()), (1337, "Kubernetes"));
    assert_eq!(config.log_filter, "hickory_server::server=off,info");
    assert_eq!(config.original_source, OriginalSource::Try);
    assert_eq!(config.node_id(), "ztunnel~1.1.1.1~.~.svc.cluster.local");
    assert_eq!(config.policy_before_traffic, Promise::Strict);
}

#[test]
fn sockets_without_a_mark_would_be_captured_again() {
    let text = errors(&[("PACKET_MARK", "0")]);
    assert!(text.contains("PACKET_MARK=0: expected a mark"), "{text}");
    assert_eq!(config(&[("PACKET_MARK", "1338")]).unwrap().packet_mark, 1338);
}

#[test]
fn all_mistakes_are_reported_together() {
    let text = errors(&[
        ("PROXY_MODE", "other"),
        ("KEEPALIVE_TIME", "soon"),
        ("PACKET_MARK", "many"),
        ("IPV6_ENABLED", "yes"),
        ("LOG_FORMAT", "xml"),
        ("COMPLIANCE_POLICY", "fips"),
        ("HTTP2_FRAME_SIZE", "1"),
        ("CRL_PATH", "/crl"),
        ("ISTIO_METAJSON_X", "["),
        ("PROMISE_POLICY_BEFORE_TRAFFIC", "maybe"),
        ("XDS_ADDRESS", ""),
        ("ISTIO_META_DNS_CAPTURE", "True"),
    ]);
    for name in [
        "PROXY_MODE=\"other\"",
        "KEEPALIVE_TIME",
        "PACKET_MARK=\"many\"",
        "IPV6_ENABLED=\"yes\"",
        "LOG_FORMAT=\"xml\"",
        "COMPLIANCE_POLICY=\"fips\"",
        "HTTP2_FRAME_SIZE=1",
        "CRL_PATH",
        "ISTIO_METAJSON_X",
        "PROMISE_POLICY_BEFORE_TRAFFIC=\"maybe\"",
        "XDS_ADDRESS is empty",
        "ISTIO_META_DNS_CAPTURE",
    ] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
}

#[test]
fn metadata_keeps_native_types() {
    let config = config(&[
        ("POD_NAME", "zt-1"),
        ("POD_NAMESPACE", "istio-system"),
        ("NODE_NAME", "node-1"),
        ("ISTIO_META_CLUSTER_ID", "c1"),
        ("CLUSTER_ID", "c2"),
        ("ISTIO_METAJSON_X", r#"{"LABELS": {"a": "b"}, "N": 3}"#),
    ])
    .unwrap();
    assert_eq!(config.cluster_id, "c1");
    let metadata = config.node_metadata();
    assert_eq!(metadata.get("CLUSTER_ID"), Some(&"c1".into()));
    assert_eq!(metadata.get("NODE_NAME"), Some(&"node-1".into()));
    assert_eq!(metadata.get("N"), Some(&3.into()));
    assert_eq!(metadata.get("LABELS"), Some(&json!({"a": "b"})));
}

#[test]
fn secrets_do_not_show() {
    let config = config(&[("AUTH_TOKEN", "hunter2-secret")]).unwrap();
    assert_eq!(config.token, Token::Literal("hunter2-secret".into()));
    assert!(!config.to_json().to_string().contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn roots_are_files_the_system_or_text() {
    let root = |text| config(&[("XDS_ROOT_CA", text)]).unwrap().xds_root;
    assert_eq!(root("SYSTEM"), Root::System);
    assert_eq!(root("/etc/root.pem"), Root::File("/etc/root.pem".into()));
    assert!(matches!(root("-----BEGIN CERTIFICATE-----"), Root::Inline(_)));
}
