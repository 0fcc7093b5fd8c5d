//! VirtualService and Gateway.

use super::*;

#[test]
fn hosts_and_actions_of_a_virtual_service_are_judged() {
    let route = |route: &str| format!("hosts: [web]\nhttp: [{{{route}}}]");
    let with = |more: &str| route(&format!("route: [{{destination: {{host: web}}}}], {more}"));
    rejected(
        "VirtualService",
        &[
            ("hosts: [web]", &["expected at least one route"]),
            ("hosts: [web, web]\nhttp: [{route: [{destination: {host: web}}]}]", &["spec.hosts[1]", "do not overlap"]),
            ("hosts: ['*.x.io', a.x.io]\nhttp: [{route: [{destination: {host: web}}]}]", &["do not overlap"]),
            ("hosts: ['a b']\nhttp: [{route: [{destination: {host: web}}]}]", &["spec.hosts[0]"]),
            ("hosts: [web]\ngateways: ['A/b/c']\nhttp: [{route: [{destination: {host: web}}]}]", &["spec.gateways[0]"]),
            ("tcp: [{route: [{destination: {host: web}}]}]", &["tcp without hosts"]),
            ("gateways: [g]\nhttp: [{route: [{destination: {host: web}}]}]", &["gateways without hosts"]),
            ("http: [{delegate: {name: x}}]", &["delegate in an object that others delegate to"]),
            (&route("name: x"), &["nothing is set: expected exactly one of route, redirect, directResponse, delegate"]),
            (&with("redirect: {uri: /}"), &["route, redirect is set"]),
            (&route("route: [{weight: 1}]"), &["route[0].destination: missing"]),
            (&route("route: [{destination: {host: '*.x'}}]"), &["destination.host"]),
            (
                &route("route: [{destination: {host: a, subset: 'a b', port: {number: 0}}, weight: -1}]"),
                &["subset", "port.number", "weight: -1"],
            ),
            (&route("redirect: {}"), &["redirect is empty"]),
            (
                &route("redirect: {uri: /, redirectCode: 200, scheme: ftp, port: 1, derivePort: FROM_REQUEST_PORT}"),
                &["redirectCode: 200", "scheme", "at most one of port, derivePort"],
            ),
            (&route("redirect: {uri: /}, rewrite: {uri: /}"), &["spec.http[0].rewrite: not allowed"]),
            (&route("directResponse: {status: 100}"), &["directResponse.status: 100"]),
            (&route("directResponse: {status: 200, body: {}}"), &["expected one of string, bytes"]),
            (
                &route(&format!("directResponse: {{status: 200, body: {{string: {}}}}}", "a".repeat((1 << 20) + 1))),
                &["at most 1048576 bytes"],
            ),
            (&route("delegate: {namespace: a}"), &["delegate.name: missing"]),
            (&with("rewrite: {}"), &["rewrite is empty"]),
            (
                &with("rewrite: {uri: /, uriRegexRewrite: {match: '(', rewrite: x}}"),
                &["at most one of uri, uriRegexRewrite", "uriRegexRewrite.match"],
            ),
            (&with("timeout: soon"), &["timeout: \"soon\""]),
            (
                &with("retries: {attempts: -1, perTryTimeout: x, backoff: 0s, retryOn: 'sometimes,5xx'}"),
                &["attempts: -1", "perTryTimeout", "backoff", "\"sometimes\" is none"],
            ),
            (&with("retries: {attempts: 0, retryOn: 5xx}"), &["there are no retries"]),
            (&with("fault: {}"), &["fault is empty"]),
            (
                &with("fault: {delay: {percentage: {value: 101}}}"),
                &["expected one of fixedDelay", "percentage.value: 101"],
            ),
        ],
    );
}

#[test]
fn options_of_a_virtual_service_are_judged() {
    let route = |route: &str| format!("hosts: [web]\nhttp: [{{{route}}}]");
    let with = |more: &str| route(&format!("route: [{{destination: {{host: web}}}}], {more}"));
    let matching = |one: &str| with(&format!("match: [{{{one}}}]"));
    rejected(
        "VirtualService",
        &[
            (
                &with("fault: {abort: {httpStatus: 600, grpcStatus: NOPE}}"),
                &["at most one of httpStatus", "httpStatus: 600", "grpcStatus"],
            ),
            (&with("mirror: {host: a}, mirrors: [{destination: {host: b}}]"), &["at most one of mirror, mirrors"]),
            (&with("mirrors: [{percentage: {value: 5}}]"), &["mirrors[0].destination: missing"]),
            (&with("mirror: {host: a}, mirrorPercentage: {value: -1}"), &["mirrorPercentage.value: -1"]),
            (
                &with(
                    "corsPolicy: {allowOrigins: [{}], allowMethods: [get], allowHeaders: ['a b'], exposeHeaders: [''], maxAge: x, allowCredentials: maybe, unmatchedPreflights: Z}",
                ),
                &[
                    "allowOrigins[0]",
                    "allowMethods[0]",
                    "allowHeaders[0]",
                    "exposeHeaders[0]",
                    "maxAge",
                    "allowCredentials",
                    "unmatchedPreflights",
                ],
            ),
            (&with("headers: {request: {set: {'a b': c}}}"), &["headers.request.set[\"a b\"]: expected a header name"]),
            (&with("headers: {response: {add: {a: \"b\\nc\"}, remove: ['']}}"), &["add[\"a\"]", "remove[0]"]),
            (&with("headers: {request: {set: {a: '100%'}}}"), &["% comes doubled"]),
            (&with("headers: {request: {set: {Content-Length: '3'}}}"), &["where messages or connections end"]),
            (&matching("uri: {exact: a, prefix: b}"), &["match[0].uri: exact, prefix: expected at most one"]),
            (&matching("uri: {}"), &["match[0].uri: nothing is set"]),
            (&matching("uri: {prefix: ''}"), &["uri.prefix"]),
            (&matching("uri: {regex: '('}"), &["uri.regex: \"(\": expected a regular expression"]),
            (&matching(&format!("uri: {{regex: {}}}", "a".repeat(1025))), &["at most 1024 bytes"]),
            (&matching("headers: {'a b': {exact: c}}"), &["headers[\"a b\"]"]),
            (
                &matching(
                    "queryParams: {'': {exact: c}}, port: 0, sourceNamespace: 'a b', gateways: ['a b'], ignoreUriCase: x",
                ),
                &["queryParams", "port: 0", "sourceNamespace", "gateways[0]", "ignoreUriCase"],
            ),
            (
                "hosts: [web]\ntls: [{route: [{destination: {host: web}}]}]",
                &["spec.tls[0].match: missing: expected at least 1"],
            ),
            (
                "hosts: [web]\ntls: [{match: [{port: 443}], route: [{destination: {host: web}}]}]",
                &["sniHosts: missing"],
            ),
            (
                "hosts: [web]\ntls: [{match: [{sniHosts: [other]}], route: [{destination: {host: web}}]}]",
                &["sniHosts[0]: \"other\": expected a host that spec.hosts covers"],
            ),
        ],
    );
}

#[test]
fn matches_of_a_virtual_service_are_judged() {
    let route = |route: &str| format!("hosts: [web]\nhttp: [{{{route}}}]");
    let with = |more: &str| route(&format!("route: [{{destination: {{host: web}}}}], {more}"));
    rejected(
        "VirtualService",
        &[
            ("hosts: [web]\ntls: [{match: [{sniHosts: [web]}]}]", &["spec.tls[0].route: missing"]),
            (
                "hosts: [web]\ntcp: [{match: [{destinationSubnets: [x], port: 70000}], route: [{destination: {host: web}}]}]",
                &["destinationSubnets[0]", "port: 70000"],
            ),
            ("hosts: [web]\ntcp: [{route: []}]", &["spec.tcp[0].route: 0 items"]),
            (&with("x: 1").replace("hosts: [web]", "hosts: [web]\nexportTo: ['~']"), &["spec.exportTo[0]"]),
        ],
    );
}

#[test]
fn what_a_virtual_service_may_say() {
    let route = |route: &str| format!("hosts: [web]\nhttp: [{{{route}}}]");
    let with = |more: &str| route(&format!("route: [{{destination: {{host: web}}}}], {more}"));
    let matching = |one: &str| with(&format!("match: [{{{one}}}]"));
    warned(
        "VirtualService",
        &[
            (
                "hosts: [web]\nhttp: [{route: [{destination: {host: a}}]}, {route: [{destination: {host: b}}]}]",
                "spec.http[1]: never reached: rule 0 takes all traffic",
            ),
            (
                "hosts: [web]\nhttp: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: a}}]}, {match: [{uri: {prefix: /a}}], route: [{destination: {host: b}}]}]",
                "spec.http[1]: never reached",
            ),
            (&matching("sourceLabels: {app: a}"), "sourceLabels are not known at waypoints"),
            (
                &route(&format!("directResponse: {{status: 200, body: {{string: {}}}}}", "a".repeat(200 << 10))),
                "every proxy keeps a copy",
            ),
            (&with("mirror: {host: a}, mirror_percent: 5"), "deprecated"),
            (&with("corsPolicy: {allowOrigin: [x]}"), "deprecated"),
        ],
    );
    accepted(
        "VirtualService",
        &[
            "http: [{route: [{destination: {host: web}}]}]",
            "hosts: [10.0.0.1]\nhttp: [{delegate: {name: d, namespace: n1}}]",
            &with(
                "timeout: 0s, retries: {attempts: 2, perTryTimeout: 1s, retryOn: '5xx,503,gateway-error'}, fault: {delay: {fixedDelay: 5s, percentage: {value: 0.1}}, abort: {grpcStatus: UNAVAILABLE}}",
            ),
            &with(
                "headers: {request: {set: {x-a: '%REQ(x-b)% 100%%'}, remove: [x-c]}}, corsPolicy: {allowOrigins: [{exact: 'https://x.io'}], allowMethods: [GET], maxAge: 24h}",
            ),
            &matching(
                "headers: {x-a: {}}, uri: {prefix: /a}, method: {exact: GET}, withoutHeaders: {x-b: {exact: c}}, queryParams: {q: {regex: 'a+'}}, ignoreUriCase: true",
            ),
            "hosts: ['*.x.io']\ntls: [{match: [{sniHosts: [a.x.io], port: 443}], route: [{destination: {host: web}, weight: 1}]}]\ntcp: [{match: [{port: 25}], route: [{destination: {host: mail}}]}]",
        ],
    );
}

#[test]
fn every_field_of_a_gateway_is_judged() {
    let server = |port: &str, more: &str| {
        format!(
            "selector: {{a: b}}\nservers: [{{port: {{number: 443, name: a, protocol: {port}}}, hosts: ['*']{more}}}]"
        )
    };
    let tls = |tls: &str| server("HTTPS", &format!(", tls: {{{tls}}}"));
    rejected(
        "Gateway",
        &[
            ("servers: []", &["spec.servers: 0 items: expected at least 1"]),
            ("servers: [{}]", &["servers[0].port: missing", "servers[0].hosts: missing"]),
            (
                "servers: [{port: {number: 0, name: 'a b', protocol: X}, hosts: ['a/b/c']}]",
                &["port.number: 0", "port.name", "port.protocol", "hosts[0]"],
            ),
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 81, name: a, protocol: HTTP}, hosts: ['*']}]",
                &["servers[1]: expected another port.name"],
            ),
            (&server("HTTPS", ""), &["port HTTPS without tls"]),
            (&server("HTTP", ", tls: {mode: SIMPLE, credentialName: a}"), &["tls on a HTTP port"]),
            (&server("HTTP", ", bind: x, defaultEndpoint: y"), &["bind", "defaultEndpoint"]),
            (&tls("mode: SIMPLE"), &["mode SIMPLE without a certificate"]),
            (&tls("mode: MUTUAL, serverCertificate: a, privateKey: b"), &["mode MUTUAL without roots"]),
            (&tls("mode: ISTIO_MUTUAL, credentialName: a"), &["the mesh issues them"]),
            (&tls("mode: NONE"), &["tls.mode"]),
            (&tls("credentialName: a, serverCertificate: b, privateKey: c"), &["more than one way"]),
            (&tls("credentialNames: [a, b, c]"), &["credentialNames: 3 items: expected 1 to 2"]),
            (&tls("tlsCertificates: [{serverCertificate: a}]"), &["tlsCertificates[0].privateKey: missing"]),
            (
                &tls("credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2"),
                &["above maxProtocolVersion"],
            ),
            (&tls("credentialName: a, minProtocolVersion: SSL3"), &["minProtocolVersion"]),
            (&tls("credentialName: a, cipherSuites: [AES128-SHA, AES128-SHA]"), &["cipherSuites[1]"]),
            (&tls("credentialName: a, httpsRedirect: true"), &["expected protocol HTTP"]),
        ],
    );
    warned(
        "Gateway",
        &[
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}]",
                "every workload counts as this gateway",
            ),
            (&tls("credentialName: a, cipherSuites: [MY-OWN]"), "this cipher suite is unknown"),
            (&tls("mode: PASSTHROUGH, credentialName: a"), "no effect with mode PASSTHROUGH"),
        ],
    );
    accepted(
        "Gateway",
        &[
            &server("HTTP", ", tls: {httpsRedirect: true}"),
            &server("HTTP", ", bind: 10.0.0.1, name: x"),
            &tls("mode: MUTUAL, credentialName: a, minProtocolVersion: TLSV1_2, subjectAltNames: [x]"),
            &tls("mode: SIMPLE, tlsCertificates: [{serverCertificate: a, privateKey: b}]"),
            "selector: {a: b}\nservers: [{port: {number: 443, name: a, protocol: TLS}, hosts: ['shop/*.x.io', './y.io'], tls: {mode: PASSTHROUGH}}]",
        ],
    );
}
