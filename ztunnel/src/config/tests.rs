//! Rows of the operations specification that are about settings.

use serde_json::json;

use super::*;

fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_env(&settings.iter().copied().collect())
}

fn errors(settings: &[(&str, &str)]) -> String {
    config(settings).unwrap_err().to_string()
}

#[test]
fn ops_row_1_the_deadline_is_a_little_less_than_a_long_grace_period() {
    let config = config(&[("TERMINATION_GRACE_PERIOD_SECONDS", "45")]).unwrap();
    assert_eq!(config.termination_deadline, Duration::from_secs(40));
}

#[test]
fn ops_row_2_and_one_second_less_than_a_short_one() {
    let deadline = |text| config(&[("TERMINATION_GRACE_PERIOD_SECONDS", text)]).unwrap().termination_deadline;
    assert_eq!(deadline("4"), Duration::from_secs(3));
    assert_eq!(deadline("1"), Duration::from_secs(1));
    let explicit = [("TERMINATION_GRACE_PERIOD_SECONDS", "45"), ("CONNECTION_TERMINATION_DEADLINE", "7s")];
    assert_eq!(config(&explicit).unwrap().termination_deadline, Duration::from_secs(7));
    assert_eq!(config(&[]).unwrap().termination_deadline, Duration::from_secs(5));
}

#[test]
fn ops_row_3_two_local_sources_are_an_error() {
    let text = errors(&[("LOCAL_XDS", "x"), ("LOCAL_XDS_PATH", "/x")]);
    assert!(text.contains("LOCAL_XDS and LOCAL_XDS_PATH are both set"), "{text}");
}

#[test]
fn ops_row_4_dedicated_mode_without_its_workload_is_an_error() {
    let text = errors(&[("PROXY_MODE", "dedicated")]);
    assert!(text.contains("PROXY_WORKLOAD_INFO is not set"), "{text}");
}

#[test]
fn ops_row_5_a_missing_scheme_is_https() {
    let config = config(&[("XDS_ADDRESS", "istiod.foo.svc:15012")]).unwrap();
    assert_eq!(config.xds_address.as_deref(), Some("https://istiod.foo.svc:15012"));
}

#[test]
fn defaults() {
    let config = config(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert_eq!(config.xds_address.as_deref(), Some("https://istiod.istio-system.svc:15012"));
    assert_eq!(config.ca_address, config.xds_address);
    assert_eq!((config.packet_mark, config.cluster_id.as_str()), (Some(1337), "Kubernetes"));
    assert_eq!(config.log_filter, "hickory_server::server=off,info");
    assert_eq!(config.original_source, OriginalSource::Try);
    assert_eq!(config.node_id(), "ztunnel~1.1.1.1~.~.svc.cluster.local");
    assert_eq!(config.policy_before_traffic, Promise::Strict);
}

#[test]
fn sockets_without_a_mark_would_be_captured_again() {
    let text = errors(&[("PACKET_MARK", "0")]);
    assert!(text.contains("PACKET_MARK=0: expected a mark"), "{text}");
    assert_eq!(config(&[("PACKET_MARK", "1338")]).unwrap().packet_mark, Some(1338));
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
        ("ISTIO_METAJSON_X", "["),
        ("PROMISE_POLICY_BEFORE_TRAFFIC", "maybe"),
        ("CA_ADDRESS", ""),
        ("XDS_ON_DEMAND", "true"),
        ("ISTIO_META_DNS_CAPTURE", "True"),
        ("ISTIO_META_DNS_PROXY_ADDR", "0.0.0.0:53"),
        ("PROXY_CONFIG", "statsPort: 15000"),
    ]);
    for name in [
        "PROXY_MODE=\"other\"",
        "KEEPALIVE_TIME",
        "PACKET_MARK=\"many\"",
        "IPV6_ENABLED=\"yes\"",
        "LOG_FORMAT=\"xml\"",
        "COMPLIANCE_POLICY=\"fips\"",
        "HTTP2_FRAME_SIZE=1",
        "ISTIO_METAJSON_X",
        "PROMISE_POLICY_BEFORE_TRAFFIC=\"maybe\"",
        "CA_ADDRESS is empty",
        "XDS_ON_DEMAND=true",
        "ISTIO_META_DNS_PROXY_ADDR",
        "[15000, 15000, 15021]",
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

#[test]
fn the_documentation_lists_every_setting_and_no_other() {
    let env = Env::default();
    let mut read = Reader::new(&env);
    let file = ProxyConfig::read(&mut read);
    Config::read(&mut read, &file);
    let text = include_str!("../../../docs/node-proxy.md");
    let (_, table) = text.split_once("## Settings").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let documented: std::collections::BTreeSet<String> = rows
        .flat_map(|(names, _)| names.split('`').filter(|name| !name.is_empty() && *name != ", "))
        .map(str::to_owned)
        .collect();
    let read: std::collections::BTreeSet<String> = read.asked();
    assert_eq!(documented, read);
}

#[test]
fn a_dedicated_proxy_marks_nothing_unless_told_to() {
    let dedicated = [("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "shop/web-1/web")];
    let config = config(&dedicated).unwrap();
    let Mode::Dedicated(info) = &config.mode else { panic!("{:?}", config.mode) };
    assert_eq!(info.to_string(), "shop/web-1/web");
    assert_eq!(config.packet_mark, None);
    let marked = Config::from_env(&dedicated.into_iter().chain([("PACKET_MARK", "7")]).collect()).unwrap();
    assert_eq!(marked.packet_mark, Some(7));
}

#[test]
fn an_empty_address_means_nobody() {
    let config = config(&[("XDS_ADDRESS", ""), ("CA_ADDRESS", ""), ("FAKE_CA", "true")]).unwrap();
    assert_eq!((config.xds_address, config.ca_address), (None, None));
}

#[test]
fn proxy_configuration_gives_way_to_single_settings() {
    let yaml = "{discoveryAddress: 'istiod.x.svc:15012', proxyAdminPort: 15100, statsPort: 15120, concurrency: 3, proxyMetadata: {ISTIO_META_A: '1', B: '2'}}";
    let read = |more: &[(&str, &str)]| {
        let all: Vec<_> = [("PROXY_CONFIG", yaml)].iter().chain(more).copied().collect();
        config(&all).unwrap()
    };
    let plain = read(&[]);
    assert_eq!(plain.xds_address.as_deref(), Some("https://istiod.x.svc:15012"));
    assert_eq!((plain.ca_address.clone(), plain.workers), (plain.xds_address.clone(), 3));
    assert_eq!((plain.admin_port, plain.stats_port, plain.readiness_port), (15100, 15120, 15021));
    assert_eq!(plain.node_metadata().get("A"), Some(&"1".into()));
    let own = read(&[("XDS_ADDRESS", "own:1"), ("ZTUNNEL_WORKER_THREADS", "5"), ("ISTIO_META_B", "own")]);
    assert_eq!((own.xds_address.as_deref(), own.workers), (Some("https://own:1"), 5));
    assert_eq!(own.node_metadata().get("B"), Some(&"own".into()));
}

#[test]
fn dns_is_captured_unless_said_otherwise() {
    let capture = |value| config(&[("ISTIO_META_DNS_CAPTURE", value)]).unwrap().dns_capture;
    assert!(config(&[]).unwrap().dns_capture && capture("TRUE") && !capture("1") && !capture("") && !capture("false"));
    let addrs = |settings: &[(&str, &str)]| config(settings).unwrap().dns_addrs;
    assert_eq!(addrs(&[]), ["127.0.0.1:15053".parse().unwrap(), "[::1]:15053".parse().unwrap()]);
    assert_eq!(addrs(&[("IPV6_ENABLED", "false")]), ["127.0.0.1:15053".parse().unwrap()]);
    assert_eq!(addrs(&[("ISTIO_META_DNS_PROXY_ADDR", "127.0.0.1:5353")]), ["127.0.0.1:5353".parse().unwrap()]);
    let demand = [("XDS_ON_DEMAND", "true"), ("ISTIO_META_DNS_CAPTURE", "false")];
    assert!(config(&demand).unwrap().on_demand);
    assert!(errors(&demand[..1]).contains("ISTIO_META_DNS_CAPTURE=false"));
}
