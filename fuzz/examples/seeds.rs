//! Writes what a fuzzer starts from: well-formed inputs of every decoder. `cargo run -p fuzz --example seeds`

use std::path::Path;

use mesh_wire::discovery::{DeltaDiscoveryResponse, Resource};
use mesh_wire::security::{self, string_match::MatchType};
use mesh_wire::{l7, type_url, workload as wire, zds};
use prost::Message;

fn main() -> std::io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (decoder, inputs) in all() {
        let corpus = corpora.join(decoder);
        std::fs::create_dir_all(&corpus)?;
        for (n, input) in inputs.into_iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{n}")), input)?;
        }
    }
    Ok(())
}

type Seeds = (&'static str, Vec<Vec<u8>>);

fn all() -> Vec<Seeds> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    vec![
        (
            "baggage",
            texts(&[
                "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1",
                "cloud.region=r1,cloud.availability_zone=z1\nk8s.pod.name=a=b,,=,x",
                "k8s.cronjob.name=c,k8s.job.name=j",
            ]),
        ),
        (
            "forwarded",
            texts(&[
                "for=\"10.1.0.5:4000\";host=cart.shop.svc.cluster.local",
                "for=\"[fd00::5]:4000\"",
                "host=\"x\"; host=y",
            ]),
        ),
        (
            "hbone_request",
            texts(&[
                "10.1.0.77:8080",
                "cart.shop.svc.cluster.local:80",
                "[fd00::77]:8080",
                "10.1.0.77:15006",
                "172.20.0.9:80",
            ]),
        ),
        ("hbone_connection", connections()),
        ("wds", responses()),
        ("authorization", policies()),
        ("zds", packets()),
        ("dns", queries()),
        (
            "local_config",
            texts(&[LOCAL, "{}", "workloads: [{uid: u, name: n, namespace: s, workloadIps: [10.0.0.1]}]"]),
        ),
        ("proxy_protocol", peers()),
        ("proxy_header", headers()),
        ("tls_hello", hellos()),
        ("strict", texts(&REQUESTS)),
        (
            "detect",
            texts(&[
                "GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "M-SEARCH * HTTP/1.0\nhost: a\n\n",
                "abcdefghijklmnopqrstuvwxyzabcdefg / HTTP/1.1\r\n\r\n",
                "SSH-2.0-OpenSSH_9.6\r\n",
            ]),
        ),
        ("socks", socks()),
        ("l7_resource", l7_resources()),
        (
            "request_target",
            texts(&[
                "/a/./b/../c%2Dd?x=1\nShop.example:8080\nclose, x-hop",
                "//x\\..%2f%5c/%2e%2E/%252e\n[2001:db8::1]:443\nkeep-alive",
                "/100%/%2%35/%%61\na.b.\nhost",
                "/files/\u{e9};p=1/..;/~\nuser@h\nupgrade, te",
            ]),
        ),
    ]
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut bytes = length.iter().skip(1).copied().collect::<Vec<u8>>();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HPACK literals without indexing: method CONNECT and an authority.
fn connect_headers() -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "CONNECT"), (":authority", "10.1.0.77:8080"), ("baggage", "service.name=web")] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or_default());
            block.extend(text.as_bytes());
        }
    }
    block
}

fn connections() -> Vec<Vec<u8>> {
    let headers = connect_headers();
    let (first, rest) = headers.split_at(headers.len() / 2);
    vec![
        [frame(1, 4, 1, &headers), frame(0, 1, 1, b"hello")].concat(),
        [frame(1, 0, 1, first), frame(9, 4, 1, rest), frame(3, 0, 1, &[0, 0, 0, 8])].concat(),
        [frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]), frame(6, 0, 0, &[7; 8]), frame(8, 0, 0, &[0, 1, 0, 0])].concat(),
        [frame(1, 4, 1, &headers), frame(8, 0, 1, &[0, 0, 1, 0]), frame(7, 0, 0, &[0; 8])].concat(),
    ]
}

fn socks() -> Vec<Vec<u8>> {
    let asked: [&[u8]; 6] = [
        &[5, 1, 0, 1, 10, 1, 0, 77, 31, 144],
        &[5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 0, 77, 0, 80],
        b"\x05\x01\x00\x03\x09cart.shop\x00\x50GET /",
        b"\x05\x01\x00\x03\x0910.1.0.77\x00\x50",
        b"\x05\x02\x00\x03\x03\xff\xfe\xfd\x00\x50",
        &[5, 1, 0, 9],
    ];
    let greeted = asked.map(|request| [&[5, 2, 2, 0], request].concat());
    [vec![5, 1, 2], vec![4, 1, 0, 80], vec![5, 0]].into_iter().chain(greeted).collect()
}

fn l7_resources() -> Vec<Vec<u8>> {
    let exact =
        |text: &str| l7::StringMatch { kind: Some(l7::string_match::Kind::Exact(text.into())), ignore_case: false };
    let path = |kind| Some(l7::PathMatch { kind: Some(kind), ignore_case: false });
    let matches = [
        l7::HttpMatch { path: path(l7::path_match::Kind::SegmentPrefix("/shop".into())), ..Default::default() },
        l7::HttpMatch { path: path(l7::path_match::Kind::Regex("/[^/]+/Ping".into())), ..Default::default() },
        l7::HttpMatch {
            headers: vec![l7::HeaderMatch { name: "x-user".into(), value: Some(exact("anna")) }],
            ..Default::default()
        },
    ];
    let entries = matches.into_iter().zip(0..).map(|(matching, rule)| l7::HttpEntry { r#match: Some(matching), rule });
    let backend = l7::weighted_backend::Target::Backend(1);
    let backends = vec![l7::WeightedBackend { weight: 9, target: Some(backend), ..Default::default() }];
    let rewrite =
        |kind| l7::Rewrite { authority: "new.example".into(), path: Some(l7::PathRewrite { kind: Some(kind) }) };
    let forward = l7::HttpRule {
        action: Some(l7::http_rule::Action::Forward(l7::Forward { backends })),
        rewrite: Some(rewrite(l7::path_rewrite::Kind::Prefix("/new/".into()))),
        request_headers: Some(l7::HeaderEdits {
            remove: vec!["x-gone".into()],
            set: vec![l7::Header { name: "x-who".into(), value: "%REQ(x-user?x-id):9%".into(), template: true }],
            add: vec![l7::Header { name: "host".into(), value: "h".into(), template: false }],
        }),
        cors: Some(l7::Cors { origins: vec![exact("https://*.shop.io")], ..Default::default() }),
        retry: Some(l7::Retry { attempts: 2, conditions: vec!["5xx".into()], ..Default::default() }),
        fault: Some(l7::Fault { abort_http_status: 503, abort_per_million: 9, ..Default::default() }),
        ..Default::default()
    };
    let regex = l7::RegexRewrite { pattern: "^/(.*)$".into(), substitution: "/x/\\1".into() };
    let replace = l7::HttpRule { rewrite: Some(rewrite(l7::path_rewrite::Kind::Regex(regex))), ..forward.clone() };
    let redirect = l7::Redirect { scheme: "https".into(), status: 301, ..Default::default() };
    let redirect = l7::HttpRule { action: Some(l7::http_rule::Action::Redirect(redirect)), ..Default::default() };
    let host = l7::VirtualHost { hostnames: vec!["*.example".into()], entries: entries.collect() };
    let table = l7::HttpTable { hosts: vec![host], rules: vec![forward, replace, redirect] };
    let rule = l7::AuthorizationRule {
        from: vec![l7::AuthorizationSource { principals: vec!["cluster.local/ns/*".into()], ..Default::default() }],
        to: vec![l7::AuthorizationOperation { paths: vec!["/v1/{*}/items".into()], ..Default::default() }],
        when: vec![l7::AuthorizationCondition {
            key: "request.headers[x-user]".into(),
            values: vec!["an*".into()],
            ..Default::default()
        }],
    };
    let policy =
        l7::Authorization { namespace: "shop".into(), name: "p".into(), rules: vec![rule], ..Default::default() };
    let resource = |kind| l7::Resource { kind: Some(kind) }.encode_to_vec();
    vec![
        resource(l7::resource::Kind::Port(l7::Port { http: Some(table.clone()), ..Default::default() })),
        resource(l7::resource::Kind::Listener(l7::Listener {
            http: Some(table),
            authorizations: vec![policy.clone()],
            ..Default::default()
        })),
        resource(l7::resource::Kind::Proxy(l7::Proxy { authorizations: vec![policy], ..Default::default() })),
    ]
}

fn responses() -> Vec<Vec<u8>> {
    let service = wire::Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: "cart.shop.svc.cluster.local".into(),
        addresses: vec![wire::NetworkAddress {
            network: "n1".into(),
            address: vec![172, 20, 0, 9],
            ..Default::default()
        }],
        ports: vec![wire::Port { service_port: 80, target_port: 8080, ..Default::default() }],
        load_balancing: Some(wire::LoadBalancing { routing_preference: vec![1, 2], mode: 2, ..Default::default() }),
        ..Default::default()
    };
    let workload = wire::Workload {
        uid: "Kubernetes//Pod/shop/cart-1".into(),
        name: "cart-1".into(),
        namespace: "shop".into(),
        network: "n1".into(),
        addresses: vec![vec![10, 1, 0, 77], vec![0xfd; 16]],
        tunnel_protocol: 1,
        services: [("shop/cart.shop.svc.cluster.local".to_owned(), wire::PortList { ports: service.ports.clone() })]
            .into(),
        authorization_policies: vec!["shop/p".into()],
        ..Default::default()
    };
    let response = |resources: Vec<(&str, wire::address::Type)>, removed: &[&str]| {
        let resources = resources.into_iter().map(|(name, resource)| Resource {
            name: name.into(),
            version: "1".into(),
            resource: Some(prost_types::Any {
                type_url: type_url::ADDRESS.into(),
                value: wire::Address { r#type: Some(resource) }.encode_to_vec(),
            }),
            ..Default::default()
        });
        DeltaDiscoveryResponse {
            type_url: type_url::ADDRESS.into(),
            nonce: "n".into(),
            resources: resources.collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }
        .encode_to_vec()
    };
    let (of_service, of_workload) = (wire::address::Type::Service(service), wire::address::Type::Workload(workload));
    let (key, uid) = ("shop/cart.shop.svc.cluster.local", "Kubernetes//Pod/shop/cart-1");
    vec![
        response(vec![(key, of_service.clone()), (uid, of_workload.clone())], &[]),
        response(vec![(uid, of_workload.clone()), (key, of_service.clone())], &["Kubernetes//Pod/shop/other"]),
        [response(vec![(uid, of_workload)], &[]), response(vec![(key, of_service)], &[uid])].concat(),
    ]
}

fn policies() -> Vec<Vec<u8>> {
    let text = |matched| security::StringMatch { match_type: Some(matched) };
    let of = |matched: security::Match, action: i32| {
        let clauses = vec![security::Clause { matches: vec![matched] }];
        security::Authorization {
            name: "p".into(),
            namespace: "db".into(),
            action,
            rules: vec![security::Rule { clauses }],
            ..Default::default()
        }
        .encode_to_vec()
    };
    let network = security::Address { address: vec![10, 2, 0, 0], length: 16 };
    vec![
        of(
            security::Match {
                principals: vec![text(MatchType::Prefix("cluster.local/ns/we".into()))],
                ..Default::default()
            },
            0,
        ),
        of(security::Match { not_principals: vec![text(MatchType::Presence(()))], ..Default::default() }, 1),
        of(security::Match { source_ips: vec![network], not_destination_ports: vec![5432], ..Default::default() }, 0),
    ]
}

fn packets() -> Vec<Vec<u8>> {
    use zds::workload_request::Payload;
    let info = zds::WorkloadInfo { name: "cart-1".into(), namespace: "shop".into(), service_account: "cart".into() };
    [
        Payload::Add(zds::AddWorkload { uid: "u".into(), workload_info: Some(info) }),
        Payload::Keep(zds::KeepWorkload { uid: "u".into() }),
        Payload::Del(zds::DelWorkload { uid: "u".into() }),
        Payload::SnapshotSent(zds::SnapshotSent {}),
    ]
    .map(|payload| zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec())
    .into()
}

fn queries() -> Vec<Vec<u8>> {
    let name = b"\x04cart\x04shop\x03svc\x07cluster\x05local\x00";
    let query = |flags: u16, kind: u16, extra: &[u8], additional: u8| {
        let mut bytes = vec![0x12, 0x34];
        bytes.extend(flags.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 0, 0, additional]);
        bytes.extend(name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(extra);
        bytes
    };
    // The root, OPT, a payload of 1232 bytes.
    let edns = [0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0];
    vec![query(0x0100, 1, &[], 0), query(0x0100, 28, &edns, 1), query(0x8180, 1, &[], 0), query(0x2800, 6, &[], 0)]
}

fn peers() -> Vec<Vec<u8>> {
    let peer = |family: u8, name: &str| [&[family; 38], name.as_bytes()].concat();
    vec![
        peer(0, "spiffe://cluster.local/ns/shop/sa/web"),
        peer(1, "spiffe://td/ns//sa/"),
        peer(2, "not an identity"),
        peer(3, &format!("spiffe://{}/ns/a/sa/b", "t".repeat(2100))),
    ]
}

/// PROXY headers, each with what a client says then.
fn headers() -> Vec<Vec<u8>> {
    let two = |command: u8, family: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap_or_default().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, body, b"GET /"].concat()
    };
    let extension = [4, 0, 2, 0, 0];
    vec![
        b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\nGET /".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 65535 1\r\n".to_vec(),
        b"PROXY UNKNOWN ignored\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 +8080 080\r\n".to_vec(),
        // One byte more than a line may have.
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).into_bytes(),
        two(0x21, 0x11, &[&[10; 8], [0x1f, 0x90, 0, 80].as_slice(), &extension].concat()),
        two(0x21, 0x21, &[0xfd; 36]),
        two(0x20, 0, &[]),
        two(0x21, 0x31, &[7; 216]),
    ]
}

/// TLS hellos: in one record, in several, without a name, and with one that is none.
fn hellos() -> Vec<Vec<u8>> {
    let name = |name: &str| list(2, &list(2, &[&[0], list(2, name.as_bytes()).as_slice()].concat()));
    let whole = hello(Some(&name("Shop.example.com.")));
    let (first, second) = whole.split_at(50);
    vec![
        [record(&whole), record(b"more")].concat(),
        [record(first), record(second)].concat(),
        record(&hello(None)),
        record(&hello(Some(&name("10.0.0.1")))),
        record(&hello(Some(&name("not a name")))),
        record(&[1, 0, 0, 1, 0]),
    ]
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1], list(2, fragment).as_slice()].concat()
}

/// A ClientHello of TLS 1.3 with this body of the extension `server_name`.
fn hello(server_name: Option<&[u8]>) -> Vec<u8> {
    let extension = |kind: u8, body: &[u8]| [&[0, kind], list(2, body).as_slice()].concat();
    let share = [&[0, 0x1d], list(2, &[9; 32]).as_slice()].concat();
    let extensions = [
        server_name.map(|body| [&[0, 0], body].concat()).unwrap_or_default(),
        extension(43, &[2, 3, 4]),
        extension(10, &[0, 2, 0, 0x1d]),
        extension(13, &[0, 2, 4, 3]),
        extension(51, &list(2, &share)),
    ]
    .concat();
    let body =
        [&[3, 3], [5; 32].as_slice(), &[0], &list(2, &[0x13, 1]), &list(1, &[0]), &list(2, &extensions)].concat();
    [&[1], list(3, &body).as_slice()].concat()
}

/// A length of so many bytes, and then so many bytes.
fn list(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
    length.into_iter().skip(4 - width).chain(bytes.iter().copied()).collect()
}

/// Requests on connections of HTTP/1: what passes, what waits, and what is refused.
const REQUESTS: [&str; 8] = [
    "\r\nGET /a?b=c HTTP/1.1\r\nHost: a:80\r\nX-Tab:\ta\tb \r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\nA;name=value\r\n0123456789\r\n0\r\nx-t: v\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket                    \r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\n\r\nx",
    "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /#f HTTP/1.1\nHost : a\r\n folded\r\n\r\n",
    "PUT / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length:  1 \r\n\r\n\nPUT / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
];

const LOCAL: &str = r#"
workloads:
- uid: Kubernetes//Pod/shop/cart-1
  name: cart-1
  namespace: shop
  serviceAccount: cart
  workloadIps: [10.1.0.77]
  protocol: HBONE
  node: node-1
  network: n1
  services: {"shop/cart.shop.svc.cluster.local": {"80": 8080}}
services:
- name: cart
  namespace: shop
  hostname: cart.shop.svc.cluster.local
  vips: ["n1/172.20.0.9"]
  ports: {"80": 8080}
  loadBalancer: {routingPreferences: [Region, Zone], mode: Failover, healthPolicy: OnlyHealthy}
policies:
- name: p
  namespace: shop
  scope: Namespace
  action: Allow
  rules: [[[{principals: [{Exact: cluster.local/ns/shop/sa/web}], notDestinationPorts: [81]}]]]
"#;
