//! DestinationRule.

use super::*;

#[test]
fn subsets_and_balancing_of_a_destination_rule_are_judged() {
    let policy = |policy: &str| format!("host: web\ntrafficPolicy: {{{policy}}}");
    let balancer = |one: &str| policy(&format!("loadBalancer: {{{one}}}"));
    let locality =
        |one: &str| policy(&format!("outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{{one}}}}}"));
    rejected(
        "DestinationRule",
        &[
            ("subsets: []", &["spec.host: missing"]),
            ("host: 'a b'", &["spec.host"]),
            ("host: web\nsubsets: [{labels: {a: b}}]", &["spec.subsets[0].name: missing"]),
            ("host: web\nsubsets: [{name: v1}, {name: v1}]", &["spec.subsets[1]: expected another name"]),
            (
                "host: web\nsubsets: [{name: 'v 1', labels: {a: 'b c'}, trafficPolicy: {tls: {mode: X}}}]",
                &["subsets[0].name", "labels", "tls.mode"],
            ),
            ("host: web\nexportTo: ['~']", &["spec.exportTo[0]"]),
            (
                "host: web\nexportTo: ['*']\nworkloadSelector: {matchLabels: {a: b}}",
                &["exportTo beside workloadSelector"],
            ),
            (&balancer("simple: FASTEST"), &["loadBalancer.simple"]),
            (
                &balancer("simple: RANDOM, consistentHash: {useSourceIp: true}"),
                &["expected at most one of simple, consistentHash"],
            ),
            (&balancer("consistentHash: {}"), &["expected one of httpHeaderName"]),
            (&balancer("consistentHash: {useSourceIp: true, httpHeaderName: a}"), &["at most one"]),
            (&balancer("consistentHash: {httpCookie: {ttl: x}}"), &["httpCookie.name: missing", "httpCookie.ttl"]),
            (
                &balancer("consistentHash: {useSourceIp: true, maglev: {tableSize: 7}, ringHash: {}}"),
                &["at most one of ringHash, maglev"],
            ),
            (
                &balancer("warmup: {minimumPercent: 101, aggression: 0}"),
                &["warmup.duration: missing", "minimumPercent: 101", "aggression: 0"],
            ),
            (&balancer("warmupDurationSecs: 0s"), &["warmupDurationSecs"]),
            (&locality("distribute: [{from: r/z, to: {r: 50, s: 49}}]"), &["weights sum to 99: expected 100"]),
            (&locality("distribute: [{from: r, to: {r: 0, s: 100}}]"), &["to[\"r\"]: 0"]),
            (&locality("distribute: [{from: 'r/*/z', to: {r: 100}}]"), &["distribute[0].from"]),
            (&locality("distribute: [{from: r, to: {r: 100}}, {from: r, to: {r: 100}}]"), &["distribute[1]"]),
            (
                &locality("distribute: [{from: r, to: {r: 100}}], failover: [{from: a, to: b}]"),
                &["distribute beside failover"],
            ),
            (&locality("failover: [{from: a, to: a}]"), &["the same region"]),
            (&locality("failover: [{from: a/b, to: c}]"), &["failover[0].from"]),
            (&locality("failoverPriority: ['a b']"), &["failoverPriority[0]"]),
            (&policy("connectionPool: {}"), &["connectionPool is empty"]),
        ],
    );
}

#[test]
fn localities_and_pools_of_a_destination_rule_are_judged() {
    let policy = |policy: &str| format!("host: web\ntrafficPolicy: {{{policy}}}");
    rejected(
        "DestinationRule",
        &[
            (
                &policy(
                    "connectionPool: {tcp: {maxConnections: -1, connectTimeout: 1us, maxConnectionDuration: x, idleTimeout: y, tcpKeepalive: {probes: -1, time: 0s, interval: 0s}}}",
                ),
                &[
                    "maxConnections: -1",
                    "connectTimeout",
                    "maxConnectionDuration",
                    "idleTimeout",
                    "probes",
                    "time",
                    "interval",
                ],
            ),
            (
                &policy(
                    "connectionPool: {http: {http1MaxPendingRequests: -1, http2MaxRequests: x, maxRequestsPerConnection: -1, maxRetries: -1, maxConcurrentStreams: -1, idleTimeout: 0s, h2UpgradePolicy: X, http2KeepAlive: {interval: 0s, timeout: 0s}}}",
                ),
                &[
                    "http1MaxPendingRequests",
                    "http2MaxRequests",
                    "maxRequestsPerConnection",
                    "maxRetries",
                    "maxConcurrentStreams",
                    "idleTimeout",
                    "h2UpgradePolicy",
                    "http2KeepAlive.interval",
                    "http2KeepAlive.timeout",
                ],
            ),
            (
                &policy("connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}"),
                &["useClientProtocol with h2UpgradePolicy UPGRADE"],
            ),
            (
                &policy(
                    "outlierDetection: {consecutive5xxErrors: -1, interval: 0s, baseEjectionTime: x, maxEjectionPercent: 101, minHealthPercent: -1, outlierDetectionHttpErrorCodes: [600]}",
                ),
                &[
                    "consecutive5xxErrors",
                    "interval",
                    "baseEjectionTime",
                    "maxEjectionPercent: 101",
                    "minHealthPercent",
                    "outlierDetectionHttpErrorCodes[0]: 600",
                ],
            ),
        ],
    );
}

#[test]
fn outliers_and_tls_of_a_destination_rule_are_judged() {
    let policy = |policy: &str| format!("host: web\ntrafficPolicy: {{{policy}}}");
    let tls = |one: &str| policy(&format!("tls: {{{one}}}"));
    rejected(
        "DestinationRule",
        &[
            (
                &policy("outlierDetection: {consecutiveLocalOriginFailures: 3}"),
                &["without splitExternalLocalOriginErrors"],
            ),
            (&tls("mode: MUTUAL"), &["mode MUTUAL without a certificate"]),
            (&tls("mode: MUTUAL, clientCertificate: a"), &["without a certificate"]),
            (&tls("mode: SIMPLE, credentialName: a, caCertificates: b"), &["a secret or files, not both"]),
            (&tls("mode: ISTIO_MUTUAL, clientCertificate: a"), &["the mesh issues them"]),
            (&tls("mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]"), &["nothing is verified"]),
            (&tls("mode: SIMPLE, sni: 'a b'"), &["tls.sni"]),
            (&policy("portLevelSettings: [{tls: {mode: SIMPLE}}]"), &["portLevelSettings[0].port: missing"]),
            (&policy("portLevelSettings: [{port: {number: 0}}]"), &["port.number: 0"]),
            (
                &policy("portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]"),
                &["portLevelSettings[1]: expected each port once"],
            ),
            (
                &policy("tunnel: {protocol: GET, targetPort: 0}"),
                &["tunnel.protocol", "targetHost: missing", "targetPort: 0"],
            ),
            (
                &policy("tunnel: {targetHost: x.io, targetPort: 1}, proxyProtocol: {version: V1}"),
                &["at most one of tunnel, proxyProtocol"],
            ),
            (&policy("proxyProtocol: {version: V3}"), &["proxyProtocol.version"]),
            (
                &policy("retryBudget: {percent: 101, minRetryConcurrency: -1, budgetInterval: 0s}"),
                &["percent: 101", "minRetryConcurrency", "budgetInterval"],
            ),
        ],
    );
}

#[test]
fn what_a_destination_rule_may_say() {
    let policy = |policy: &str| format!("host: web\ntrafficPolicy: {{{policy}}}");
    let balancer = |one: &str| policy(&format!("loadBalancer: {{{one}}}"));
    let locality =
        |one: &str| policy(&format!("outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{{one}}}}}"));
    let tls = |one: &str| policy(&format!("tls: {{{one}}}"));
    warned(
        "DestinationRule",
        &[
            (
                &policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}"),
                "failover without outlierDetection",
            ),
            (&balancer("simple: PASSTHROUGH, warmup: {duration: 10s}"), "warmup has no effect"),
            (&balancer("simple: LEAST_CONN"), "deprecated"),
            (&tls("mode: SIMPLE, insecureSkipVerify: true"), "anybody can answer"),
            ("host: web\nworkloadSelector: {matchLabels: {a: b}}", "waypoints do not see this rule"),
        ],
    );
    accepted(
        "DestinationRule",
        &[
            "host: '*'",
            "host: '*.x.io'\nsubsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]\nexportTo: ['.']",
            &locality("enabled: true, failoverPriority: [topology.istio.io/network, 'a=b']"),
            &locality("distribute: [{from: 'r/*', to: {'r/z': 70, 's/*': 30}}]"),
            &tls("mode: MUTUAL, credentialName: a"),
            &policy(
                "connectionPool: {tcp: {idleTimeout: 0s, connectTimeout: 1.5s}}, portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE, sni: x.io}}]",
            ),
        ],
    );
}
