//! Telemetry, WasmPlugin, TrafficExtension, and the kinds without effect.

use super::*;

#[test]
fn every_section_of_telemetry_is_judged() {
    rejected(
        "Telemetry",
        &[
            ("tracing: [{providers: [{}]}]", &["spec.tracing[0].providers[0].name: missing"]),
            (
                "tracing: [{customTags: {a: {}}}]",
                &["customTags[\"a\"]: nothing is set: expected one of literal, environment, header, formatter"],
            ),
            ("tracing: [{customTags: {a: {literal: {value: ''}}}}]", &["literal.value: \"\""]),
            ("tracing: [{customTags: {a: {header: {name: 'a b'}}}}]", &["header.name"]),
            ("tracing: [{customTags: {a: {environment: {defaultValue: x}}}}]", &["environment.name: missing"]),
            ("tracing: [{match: {mode: BOTH}}]", &["spec.tracing[0].match.mode: \"BOTH\""]),
            ("tracing: [{disableSpanReporting: 1}]", &["disableSpanReporting: 1"]),
            (
                "tracing: [{useRequestIdForTraceSampling: 1, enableIstioTags: x}]",
                &["useRequestIdForTraceSampling", "enableIstioTags"],
            ),
            ("metrics: [{overrides: [{match: {metric: SPEED}}]}]", &["overrides[0].match.metric: \"SPEED\""]),
            (
                "metrics: [{overrides: [{match: {metric: REQUEST_COUNT, customMetric: x}}]}]",
                &["at most one of metric, customMetric"],
            ),
            (
                "metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]",
                &["value is missing with operation UPSERT"],
            ),
            (
                "metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: x}}}]}]",
                &["value with operation REMOVE"],
            ),
            ("metrics: [{overrides: [{disabled: x}], reportingInterval: 1us}]", &["disabled", "reportingInterval"]),
            (
                "accessLogging: [{disabled: x, filter: {expression: 3}, match: {mode: x}}]",
                &["disabled", "filter.expression: 3", "match.mode"],
            ),
        ],
    );
    warned(
        "Telemetry",
        &[
            ("tracing: [{match: {mode: CLIENT}}]", "mode CLIENT has no effect in ambient"),
            ("tracing: [{providers: [{name: a}, {name: b}]}]", "only the first traces"),
        ],
    );
    accepted(
        "Telemetry",
        &[
            "tracing: [{providers: [{name: otel}], randomSamplingPercentage: 12.5, customTags: {a: {literal: {value: x}}}}]\nmetrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER}, tagOverrides: {a: {value: 'x'}}}]}]\naccessLogging: [{providers: [{name: otel}], filter: {expression: 'response.code >= 400'}}]",
        ],
    );
}

#[test]
fn plugins_are_judged() {
    let plugin = |more: &str| format!("url: oci://x.io/p:1\n{more}");
    rejected(
        "WasmPlugin",
        &[
            ("phase: AUTHN", &["spec.url: missing"]),
            ("url: 'ftp://x.io/p'", &["spec.url: \"ftp://x.io/p\""]),
            ("url: 'file://relative'", &["spec.url"]),
            (&plugin("imagePullPolicy: Sometimes"), &["imagePullPolicy"]),
            (&plugin("phase: FIRST"), &["phase"]),
            (&plugin("failStrategy: FAIL"), &["failStrategy"]),
            (&plugin("type: UDP"), &["type"]),
            (&plugin("priority: 3000000000"), &["priority: 3000000000"]),
            (&plugin(&format!("pluginName: {}", "a".repeat(257))), &["pluginName"]),
            (&plugin("match: [{ports: [{number: 0}]}]"), &["match[0].ports[0].number: 0"]),
            (&plugin("imagePullSecret: A_b"), &["imagePullSecret"]),
            (&plugin("vmConfig: {env: [{name: a}]}"), &["value is missing: expected one with valueFrom INLINE"]),
            (&plugin("vmConfig: {env: [{name: a, valueFrom: HOST, value: x}]}"), &["value with valueFrom HOST"]),
            (
                &plugin("vmConfig: {env: [{name: a, value: x}, {name: a, value: y}]}"),
                &["env[1]: expected each name once"],
            ),
        ],
    );
    warned(
        "WasmPlugin",
        &[
            (&plugin("failStrategy: FAIL_OPEN"), "traffic passes without the plugin"),
            (&plugin("verificationKey: x"), "deprecated"),
        ],
    );
    accepted(
        "WasmPlugin",
        &[
            "url: x.io/p:1",
            "url: file:///opt/p.wasm",
            &plugin(
                "pluginConfig: {any: {thing: [1]}}\nmatch: [{mode: SERVER, ports: [{number: 80}]}]\nimagePullPolicy: IfNotPresent\nvmConfig: {env: [{name: a, value: x}, {name: b, valueFrom: HOST}]}",
            ),
        ],
    );
    rejected(
        "TrafficExtension",
        &[
            ("phase: STATS", &["spec: nothing is set: expected one of wasm, lua"]),
            ("wasm: {url: x}\nlua: {inlineCode: x}", &["at most one of wasm, lua"]),
            ("lua: {inlineCode: ''}", &["spec.lua.inlineCode: expected 1 to 65536 characters"]),
            (&format!("lua: {{inlineCode: {}}}", "a".repeat(65_537)), &["inlineCode"]),
            ("wasm: {url: x, sha256: abc}", &["spec.wasm.sha256"]),
        ],
    );
    accepted(
        "TrafficExtension",
        &[
            "lua: {inlineCode: 'function f() end'}\nphase: AUTHZ",
            "wasm: {url: 'https://x.io/p.wasm'}\ntargetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]",
        ],
    );
}

#[test]
fn kinds_without_effect_are_judged_all_the_same() {
    warned("Sidecar", &[("egress: [{hosts: ['./*', 'istio-system/*']}]", "Sidecar has no effect in ambient")]);
    rejected(
        "Sidecar",
        &[
            ("egress: [{hosts: [x.io]}]", &["spec.egress[0].hosts[0]: \"x.io\": expected namespace/host"]),
            ("egress: [{}]", &["spec.egress[0].hosts: missing"]),
            ("egress: [{hosts: ['a/b'], bind: x, captureMode: y}]", &["bind", "captureMode"]),
            ("ingress: [{defaultEndpoint: '127.0.0.1:80'}]", &["spec.ingress[0].port: missing"]),
            (
                "ingress: [{port: {number: 80, name: http, protocol: HTTP}, defaultEndpoint: '10.0.0.1:80'}]",
                &["defaultEndpoint"],
            ),
            ("outboundTrafficPolicy: {mode: ANY}", &["outboundTrafficPolicy.mode"]),
            ("outboundTrafficPolicy: {egressProxy: {}}", &["egressProxy.host: missing"]),
            ("inboundConnectionPool: {}", &["connectionPool is empty"]),
        ],
    );
    warned(
        "EnvoyFilter",
        &[(
            "configPatches: [{applyTo: HTTP_FILTER, match: {context: ANY}, patch: {operation: ADD, value: {a: 1}}}]",
            "there is no Envoy in this mesh",
        )],
    );
    rejected(
        "EnvoyFilter",
        &[
            ("configPatches: [{patch: {operation: REMOVE}}]", &["configPatches[0].applyTo: missing"]),
            ("configPatches: [{applyTo: CLUSTER}]", &["configPatches[0].patch: missing"]),
            ("configPatches: [{applyTo: CLUSTER, patch: {operation: MERGE}}]", &["value is missing"]),
            (
                "workloadSelector: {labels: {a: b}}\ntargetRefs: [{kind: Service, name: a}]",
                &["expected at most one of them"],
            ),
            ("priority: x", &["spec.priority"]),
        ],
    );
    rejected(
        "ProxyConfig",
        &[
            ("concurrency: -1", &["spec.concurrency: -1"]),
            ("environmentVariables: {'': x}", &["environmentVariables"]),
            ("environmentVariables: {A: 3}", &["environmentVariables[\"A\"]: expected a string"]),
            ("image: {imageType: a_b}", &["imageType"]),
        ],
    );
    accepted(
        "ProxyConfig",
        &[
            "selector: {matchLabels: {app: w}}\nconcurrency: 0\nenvironmentVariables: {A: b}\nimage: {imageType: distroless}",
        ],
    );
}
