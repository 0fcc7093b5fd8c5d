//! Settings and their mistakes.

use clap::Parser;

use super::*;

fn flags(args: &[&str]) -> Result<DiscoveryFlags, String> {
    let args = ["istiod", "discovery"].into_iter().chain(args.iter().copied());
    let Command::Discovery(flags) = Cli::try_parse_from(args).map_err(|error| error.to_string())?.command;
    Ok(*flags)
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Result<Config, String> {
    let env: Env = env.iter().copied().collect();
    Config::new(&flags(args)?, &env, 2).map_err(|error| error.to_string())
}

#[test]
fn defaults() {
    let config = config(&[], &[]).unwrap();
    assert_eq!((config.cluster_id.as_str(), config.namespace.as_str()), ("Kubernetes", "istio-system"));
    assert_eq!(
        config.debounce,
        Debounce { after: Duration::from_millis(100), max: Duration::from_secs(10), endpoints: true }
    );
    assert_eq!((config.push_throttle, config.streams_per_second), (25, 25));
    assert_eq!((config.grpc_addr, config.secure_grpc_addr.as_str()), (None, ":15012"));
    assert_eq!(config.https_addr.as_deref(), Some(":15017"));
    assert_eq!(config.log_filter, "info");
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_arguments_of_the_chart_are_understood() {
    let args = [
        "--monitoringAddr=:15014",
        "--log_output_level=default:info,ads:debug",
        "--domain",
        "cluster.local",
        "--keepaliveMaxServerConnectionAge",
        "30m",
        "--log_as_json",
    ];
    let env = [
        ("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel, other/zt"),
        ("POD_NAMESPACE", "mesh"),
        ("CLUSTER_ID", "c1"),
    ];
    let config = config(&args, &env).unwrap();
    assert_eq!(config.max_connection_age, Some(Duration::from_secs(1800)));
    assert_eq!(config.log_filter, "info,ads=debug");
    assert_eq!(config.trusted_node_accounts[1], NamespacedName::new("other", "zt"));
    assert_eq!((config.namespace.as_str(), config.cluster_id.as_str()), ("mesh", "c1"));
}

#[test]
fn every_mistake_is_reported() {
    let env = [("PILOT_DEBOUNCE_AFTER", "soon"), ("XDS_AUTH", "yes"), ("CA_TRUSTED_NODE_ACCOUNTS", "ztunnel")];
    let error = config(&["--shutdownDuration=x"], &env).unwrap_err();
    for part in [
        "PILOT_DEBOUNCE_AFTER=\"soon\"",
        "XDS_AUTH=\"yes\"",
        "CA_TRUSTED_NODE_ACCOUNTS=\"ztunnel\"",
        "--shutdownDuration=\"x\"",
    ] {
        assert!(error.contains(part), "{part} is missing from {error}");
    }
}

#[test]
fn unknown_flags_are_refused_and_idle_ones_are_told() {
    assert!(flags(&["--bogus"]).unwrap_err().contains("--bogus"));
    let warnings = config(&["--registries=Mock"], &[("PILOT_ENABLE_AMBIENT", "false")]).unwrap().warnings;
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("--registries has no effect"));
}

#[test]
fn where_access_logs_go_cannot_be_chosen_but_whether_there_are_any_can() {
    use crate::world::AccessLog::{All, Nothing};
    let config = config(&[], &[]).unwrap();
    for (text, which, json, idle) in [
        ("", None, None, &[][..]),
        ("accessLogFile: ''\naccessLogEncoding: TEXT", Some(Nothing), Some(false), &[]),
        ("accessLogFile: /dev/stdout\naccessLogEncoding: JSON", Some(All), Some(true), &[]),
        ("accessLogFile: /var/log/x", Some(All), None, &["accessLogFile"]),
        ("accessLogFormat: x", None, None, &["accessLogFormat"]),
    ] {
        let (settings, told) = mesh::settings(text, &config).unwrap();
        assert_eq!((settings.l7.access_log, settings.l7.log_json), (which, json), "{text}");
        assert_eq!(told.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), idle, "{text}");
        assert!(told.iter().all(|one| !one.reason.contains("does not configure")), "{told:?}");
    }
    let error = mesh::settings("accessLogEncoding: XML", &config).unwrap_err().to_string();
    assert!(error.contains("accessLogEncoding: \"XML\"") && error.contains("TEXT or JSON"), "{error}");
}

#[test]
fn certificates_that_are_trusted_beside_the_authority() {
    let config = config(&[], &[]).unwrap();
    let root = || {
        let made =
            crate::ca::self_signed::create(&mesh_core::identity::TrustDomain::default(), std::time::SystemTime::now());
        crate::ca::Authority::new(&made.unwrap()).unwrap().roots_pem().to_owned()
    };
    let (one, two) = (root(), root());
    let entry = |pem: &str| format!("- pem: |\n    {}\n", pem.trim().replace('\n', "\n    "));
    let text = format!(
        "caCertificates:\n{}{}{}",
        entry(&one),
        entry(&format!("{two}{one}")),
        "- {spiffeBundleUrl: https://x}\n"
    );
    let (settings, told) = mesh::settings(&text, &config).unwrap();
    assert_eq!(&*settings.trust_anchors, format!("{one}{two}"), "each once");
    assert_eq!(told.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), ["caCertificates[2].spiffeBundleUrl"]);
    for (text, part) in [
        (format!("caCertificates:\n{}- {{pem: nonsense}}\n", entry(&one)), "caCertificates[1].pem: no certificate"),
        ("caCertificates: [{}]".to_owned(), "caCertificates[0].pem"),
        ("caCertificates: 3".to_owned(), "caCertificates"),
    ] {
        let error = mesh::settings(&text, &config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn mesh_configuration() {
    let config = config(&[], &[]).unwrap();
    let (settings, others) = mesh::settings("", &config).unwrap();
    assert_eq!(settings, crate::world::MeshSettings::default());
    assert!(others.is_empty());
    let text = "trustDomain: td.acme\nrootNamespace: root\npromises: {l7DenyAtL4: reference, waypointRequired: reference}\naccessLogFile: /dev/stdout\n\
                trustDomainAliases: [old.acme]\nacessLogFile: x\ndiscoverySelectors: [{matchLabels: {mesh: 'on'}}]\nserviceEntryVisibility:\n";
    let (settings, others) = mesh::settings(text, &config).unwrap();
    assert_eq!((settings.trust_domain.as_str(), &*settings.root_namespace), ("td.acme", "root"));
    assert_eq!(settings.trust_domain_aliases[0].as_str(), "old.acme");
    assert!(!settings.l7_deny_at_l4 && !settings.promises.waypoint_required.is_strict());
    assert!(settings.promises.policy_before_traffic.is_strict() && settings.promises.unserved_fields.is_strict());
    assert_eq!(settings.discovery_selectors.len(), 1);
    let told: Vec<_> =
        others.iter().map(|one| (one.field.as_str(), one.reason.split(' ').next_back().unwrap())).collect();
    assert_eq!(told, [("acessLogFile", "configuration")]);
    assert_eq!(settings.l7.access_log, Some(crate::world::AccessLog::All));
    for (text, part) in [
        ("trustDomain: a/b", "trustDomain"),
        ("promises: {fast: strict}", "\"fast\" is unknown"),
        ("promises: {l7DenyAtL4: maybe}", "maybe"),
        ("discoverySelectors: 3", "discoverySelectors"),
        ("discoverySelectors: [{matchLabels: {a: [1]}}]", "discoverySelectors[0]."),
        ("trustDomainAliases: [a/b]", "trustDomainAliases"),
        ("serviceEntryVisibility: {defaultVisibility: NOBODY}", "serviceEntryVisibility.defaultVisibility"),
        (": : :", ""),
    ] {
        let error = mesh::settings(text, &config).unwrap_err().to_string();
        assert!(error.contains(part), "{part} is missing from {error}");
    }
}

#[test]
fn address_pools_are_blocks_of_their_family_or_off() {
    let pools = |env: &[(&str, &str)]| config(&[], env).map(|config| config.address_pools);
    assert_eq!(pools(&[]), Ok(Some(Pools::default())));
    assert_eq!(pools(&[("PILOT_ENABLE_IP_AUTOALLOCATE", "false")]), Ok(None));
    let own =
        [("PILOT_IP_AUTOALLOCATE_IPV4_PREFIX", "10.9.0.0/24"), ("PILOT_IP_AUTOALLOCATE_IPV6_PREFIX", "fd00::/64")];
    assert_eq!(pools(&own).unwrap().unwrap().v4.to_string(), "10.9.0.0/24");
    let error = pools(&[("PILOT_IP_AUTOALLOCATE_IPV4_PREFIX", "2001:2::/48")]).unwrap_err();
    assert!(error.contains("PILOT_IP_AUTOALLOCATE_IPV4_PREFIX=\"2001:2::/48\": expected an IPv4 block"), "{error}");
}

#[test]
fn the_visibility_of_service_entries_is_read_and_a_bad_selector_refuses_the_configuration() {
    let read = |text: &str| {
        let settings = mesh::settings(text, &config(&[], &[]).unwrap());
        settings.map(|(settings, _)| settings.entry_visibility).map_err(|error| error.to_string())
    };
    let rule = |expression: &str| {
        format!(
            "serviceEntryVisibility:\n  defaultVisibility: NAMESPACE\n  policies:\n  - visibility: PUBLIC\n    \
             matchingRules: [{{namespaceSelector: {{matchExpressions: [{expression}]}}}}]\n"
        )
    };
    let rules = read(&rule("{key: a, operator: Exists}")).unwrap().unwrap();
    assert_eq!(rules.default_visibility, crate::world::Visibility::Namespace);
    assert_eq!(rules.policies.len(), 1);
    assert_eq!(read(""), Ok(None));
    for (bad, named) in [("{key: a, operator: NotIn}", "values of \"a\""), ("{key: a, operator: Near}", "Near")] {
        let error = read(&rule(bad)).unwrap_err();
        assert!(error.contains("serviceEntryVisibility") && error.contains(named), "{error}");
    }
}
