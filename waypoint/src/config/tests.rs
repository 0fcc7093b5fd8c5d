use super::*;

fn config(more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let pod = [
        ("MELTEMI_GATEWAY", "shop/wp"),
        ("POD_NAME", "wp-1"),
        ("POD_NAMESPACE", "shop"),
        ("INSTANCE_IP", "10.1.0.7"),
        ("SERVICE_ACCOUNT", "wp"),
        ("ISTIO_META_NODE_NAME", "node-1"),
        ("ISTIO_META_CLUSTER_ID", "c1"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("PROXY_CONFIG", "{\"discoveryAddress\": \"istiod.x:15012\", \"terminationDrainDuration\": \"2s\"}"),
    ];
    Config::from_env(Start::Waypoint, &pod.into_iter().chain(more.iter().copied()).collect())
}

#[test]
fn the_pod_of_a_gateway_says_all_there_is_to_say() {
    let config = config(&[]).unwrap();
    assert_eq!(config.node_id(), "waypoint~10.1.0.7~wp-1.shop~shop.svc.cluster.local");
    assert_eq!(config.identity().to_string(), "spiffe://cluster.local/ns/shop/sa/wp");
    assert_eq!(config.xds_address, "https://istiod.x:15012");
    assert_eq!(config.ca_address, "https://istiod.istio-system.svc:15012");
    assert_eq!((config.drain, config.cluster_id.as_str()), (Duration::from_secs(2), "c1"));
    let metadata = config.node_metadata();
    assert_eq!(metadata["SERVICE_ACCOUNT"], "wp");
    assert!(!metadata.contains_key("NODE_NAME"));
}

#[test]
fn all_mistakes_are_told_at_once_and_no_token_shows() {
    let error = config(&[("MELTEMI_GATEWAY", "shop"), ("ADMIN_PORT", "many"), ("INSTANCE_IP", "x")]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("MELTEMI_GATEWAY") && text.contains("ADMIN_PORT") && text.contains("INSTANCE_IP"), "{text}");
    let config = config(&[("AUTH_TOKEN", "hunter2")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2") && !config.to_json().to_string().contains("hunter2"));
}
