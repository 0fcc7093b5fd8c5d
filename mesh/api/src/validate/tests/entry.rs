//! ServiceEntry, WorkloadEntry, WorkloadGroup.

use super::*;

#[test]
fn names_addresses_and_ports_of_a_service_entry_are_judged() {
    let entry = |more: &str| format!("hosts: [x.io]\n{more}");
    let with_port = |more: &str| entry(&format!("ports: [{{number: 80, name: http, protocol: HTTP}}]\n{more}"));
    rejected(
        "ServiceEntry",
        &[
            ("ports: []", &["spec.hosts: missing: expected 1 to 256"]),
            ("hosts: []", &["spec.hosts: 0 items"]),
            ("hosts: ['a.*.io']", &["spec.hosts[0]: \"a.*.io\""]),
            ("hosts: ['-a.io']", &["spec.hosts[0]"]),
            (&format!("hosts: [{}.io]", "a".repeat(64)), &["spec.hosts[0]"]),
            (&entry("addresses: [x]"), &["spec.addresses[0]: \"x\": expected an IP address or a CIDR block"]),
            (&entry("addresses: [10.0.0.0/8]\nresolution: DNS"), &["spec.addresses[0]", "blocks need NONE or STATIC"]),
            (&entry("addresses: [10.0.0.1, 10.0.0.1]"), &["spec.addresses[1]"]),
            (&entry("location: MESH"), &["spec.location"]),
            (&entry("resolution: MAGIC"), &["spec.resolution"]),
            (&entry("ports: [{number: 0, name: a, protocol: HTTP}]"), &["spec.ports[0].number: 0"]),
            (&entry("ports: [{number: 80, protocol: HTTP}]"), &["spec.ports[0].name: missing"]),
            (&entry("ports: [{number: 80, name: a_b, protocol: HTTP}]"), &["spec.ports[0].name: \"a_b\""]),
            (&entry("ports: [{number: 80, name: a, protocol: CARRIER-PIGEON}]"), &["spec.ports[0].protocol"]),
            (&entry("ports: [{number: 80, name: a, protocol: HTTP, targetPort: 70000}]"), &["targetPort: 70000"]),
            (
                &entry("ports: [{number: 80, name: a, protocol: HTTP}, {number: 80, name: b, protocol: HTTP}]"),
                &["spec.ports[1]: expected another number than 80"],
            ),
            (
                &entry("ports: [{number: 80, name: a, protocol: HTTP}, {number: 81, name: a, protocol: HTTP}]"),
                &["spec.ports[1]: expected another name"],
            ),
            (&with_port("endpoints: [{address: 10.0.0.1}]"), &["endpoints with resolution NONE"]),
            (
                &with_port("resolution: STATIC\nendpoints: [{address: x.io}]"),
                &["spec.endpoints[0].address: \"x.io\": expected an IP address or unix"],
            ),
            (
                &with_port("resolution: STATIC\nendpoints: [{address: 10.0.0.1}]\nworkloadSelector: {labels: {a: b}}"),
                &["expected at most one"],
            ),
            (
                &with_port("resolution: STATIC\nendpoints: [{address: 'unix:///s', ports: {http: 1}}]"),
                &["a socket has no port"],
            ),
            (
                &entry(
                    "resolution: STATIC\nports: [{number: 80, name: a, protocol: HTTP}, {number: 81, name: b, protocol: HTTP}]\nendpoints: [{address: 'unix:///s'}]",
                ),
                &["2 ports with a unix:// endpoint"],
            ),
            (&with_port("resolution: STATIC\nendpoints: [{address: 'unix://s'}]"), &["unix:///absolute/path"]),
            (&with_port("resolution: STATIC\nendpoints: [{weight: 1}]"), &["address is empty and network too"]),
            (&with_port("resolution: DNS\nendpoints: [{address: '*.x.io'}]"), &["spec.endpoints[0].address"]),
            (&with_port("resolution: DNS\nendpoints: [{address: y.io, ports: {nope: 80}}]"), &["\"nope\" is none"]),
        ],
    );
}

#[test]
fn endpoints_and_visibility_of_a_service_entry_are_judged() {
    let entry = |more: &str| format!("hosts: [x.io]\n{more}");
    let with_port = |more: &str| entry(&format!("ports: [{{number: 80, name: http, protocol: HTTP}}]\n{more}"));
    rejected(
        "ServiceEntry",
        &[
            (
                &with_port("resolution: DNS_ROUND_ROBIN\nendpoints: [{address: y.io}, {address: z.io}]"),
                &["2 endpoints"],
            ),
            (&with_port("resolution: DYNAMIC_DNS"), &["spec.hosts[0]: \"x.io\": expected a wildcard"]),
            ("hosts: ['*.x.io']\nresolution: DYNAMIC_DNS\naddresses: [10.0.0.1]", &["expected none of them"]),
            (
                "hosts: ['*.x.io']\nresolution: DYNAMIC_DNS\nports: [{number: 1, name: a, protocol: TCP}]",
                &["the name must be in the traffic"],
            ),
            ("hosts: [x.io, y.io]\nresolution: DNS\nports: [{number: 1, name: a, protocol: TCP}]", &["several hosts"]),
            (&entry("workloadSelector: {labels: {a: '*'}}"), &["workloadSelector.labels"]),
            (&entry("exportTo: [a, a]"), &["spec.exportTo[1]"]),
            (&entry("exportTo: ['.', shop]"), &["spec.exportTo[1]: \"shop\": expected each namespace once"]),
            (&entry("exportTo: ['*', a]"), &["nothing beside it"]),
            (&entry("exportTo: ['~', a]"), &["nothing beside it"]),
            (&entry("exportTo: ['a b']"), &["spec.exportTo[0]"]),
            (&entry("subjectAltNames: ['']"), &["subjectAltNames[0]"]),
        ],
    );
}

#[test]
fn what_a_service_entry_may_say() {
    let entry = |more: &str| format!("hosts: [x.io]\n{more}");
    let with_port = |more: &str| entry(&format!("ports: [{{number: 80, name: http, protocol: HTTP}}]\n{more}"));
    let bound = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {labels: {istio.io/use-waypoint: w}}, spec: {hosts: ['*.x.io'], resolution: DYNAMIC_DNS, location: MESH_INTERNAL}}";
    assert!(judge(bound).errors.join("").contains("expected MESH_EXTERNAL"));
    warned(
        "ServiceEntry",
        &[
            (&with_port("workloadSelector: {labels: {a: b}}"), "no effect with resolution NONE"),
            (&with_port("resolution: STATIC"), "there is nowhere to send traffic"),
            (&entry("ports: [{number: 1, name: a, protocol: TCP}]"), "a TCP port without spec.addresses"),
            (&with_port("exportTo: ['.']"), "exportTo has no effect in ambient"),
            (&with_port("resolution: STATIC\nendpoints: [{network: n2}]"), "gateway of its network"),
        ],
    );
    accepted(
        "ServiceEntry",
        &[
            &with_port("exportTo: ['*']"),
            &with_port(
                "resolution: STATIC\nlocation: MESH_INTERNAL\nendpoints: [{address: 10.0.0.1, ports: {http: 8080}, labels: {a: b}, network: n1, locality: r/z/s, weight: 3, serviceAccount: sa}]\nsubjectAltNames: [spiffe://x]",
            ),
            &with_port("resolution: DNS\nendpoints: [{address: y.io, ports: {http: 8080}}]"),
            "hosts: ['*.x.io']\nresolution: DYNAMIC_DNS\nports: [{number: 443, name: tls, protocol: TLS}]",
            "hosts: [x.io]\nports: [{number: 80, name: http, protocol: http}]",
        ],
    );
}

#[test]
fn every_field_of_a_workload_entry_is_judged() {
    let entry = |more: &str| format!("address: 10.0.0.1\n{more}");
    rejected(
        "WorkloadEntry",
        &[
            ("address: 'a b'", &["spec.address: \"a b\": expected an IP address, a DNS name or unix"]),
            ("address: 'unix://x'", &["spec.address"]),
            (&format!("address: {}", "a".repeat(257)), &["at most 256 bytes"]),
            ("address: 'unix:///x'\nports: {a: 1}", &["a socket has no port"]),
            (&entry("ports: {http: 0}"), &["spec.ports[\"http\"]: 0: expected a whole number from 1 to 65535"]),
            (&entry("ports: {'a b': 80}"), &["spec.ports[\"a b\"]"]),
            (
                &entry(&format!("ports: {{{}}}", (0..129).map(|i| format!("p{i}: 1")).collect::<Vec<_>>().join(", "))),
                &["more than 128 ports"],
            ),
            (&entry("labels: {'a b': c}"), &["spec.labels"]),
            (&entry("labels: {a: 'b c'}"), &["spec.labels[\"a\"]: \"b c\""]),
            (&entry("locality: a/b/c/d"), &["spec.locality"]),
            (&entry("locality: a//c"), &["spec.locality"]),
            (&entry("weight: -1"), &["spec.weight: -1"]),
            (&entry("serviceAccount: A/b"), &["spec.serviceAccount"]),
            (&entry("network: 3"), &["spec.network: 3"]),
        ],
    );
    accepted(
        "WorkloadEntry",
        &[
            "address: x.io",
            "address: 'fd00::1'",
            "address: 'unix:///run/x.sock'",
            "address: 'unix:@abstract'",
            &entry(
                "ports: {http: 80}\nlabels: {app: web}\nnetwork: n1\nlocality: r/z\nweight: 0\nserviceAccount: sa.x",
            ),
        ],
    );
}

#[test]
fn every_field_of_a_workload_group_is_judged() {
    let group = |more: &str| format!("template: {{serviceAccount: sa}}\n{more}");
    rejected(
        "WorkloadGroup",
        &[
            ("metadata: {}", &["spec.template: missing"]),
            ("template: {ports: {a: 0}}", &["spec.template.ports[\"a\"]: 0"]),
            (&group("metadata: {labels: {a: 'b c'}}"), &["spec.metadata.labels"]),
            (&group("metadata: {annotations: {'': x}}"), &["spec.metadata.annotations"]),
            (&group("probe: {}"), &["expected one of httpGet, tcpSocket, exec, grpc"]),
            (&group("probe: {httpGet: {port: 80}, tcpSocket: {port: 80}}"), &["expected at most one"]),
            (&group("probe: {httpGet: {path: /}}"), &["httpGet.port: missing"]),
            (
                &group("probe: {httpGet: {port: 80, scheme: FTP, host: 'a b', httpHeaders: [{name: 'a b'}]}}"),
                &["scheme", "host", "httpHeaders[0].name"],
            ),
            (&group("probe: {tcpSocket: {port: 0}}"), &["tcpSocket.port: 0"]),
            (&group("probe: {exec: {command: []}}"), &["exec.command: 0 items"]),
            (&group("probe: {grpc: {}}"), &["grpc.port: missing"]),
            (&group("probe: {tcpSocket: {port: 80}, periodSeconds: -1}"), &["periodSeconds: -1"]),
        ],
    );
    warned("WorkloadGroup", &[("template: {address: 10.0.0.1}", "address has no effect")]);
    accepted(
        "WorkloadGroup",
        &[&group(
            "metadata: {labels: {app: vm}, annotations: {a/b: 'any thing'}}\nprobe: {httpGet: {path: /, port: 80, scheme: HTTPS}, periodSeconds: 5}",
        )],
    );
}
