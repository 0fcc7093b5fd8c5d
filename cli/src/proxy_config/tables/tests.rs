//! Tables from a dump as the proxy writes it.

use super::*;

fn dump() -> Value {
    json!({
        "listeners": [
            {"kind": "tunnel", "addresses": ["*"], "port": 15008, "podPort": 15008, "protocol": "HBONE", "hostname": "",
             "tls": {"mode": "terminate", "identity": "mesh", "certificates": [
                {"names": ["spiffe://td/ns/demo/sa/waypoint"], "state": "valid", "expirationTime": "2999-01-01T00:00:00Z"}]},
             "destination": "the ports below", "policies": []},
            {"kind": "service", "name": "web.demo.svc.cluster.local:80", "addresses": ["10.96.0.9", "fd00::9"], "port": 80,
             "protocol": "HTTP", "hostname": "web.demo.svc.cluster.local", "destination": "2 routes", "policies": ["demo/allow"]},
            {"kind": "listener", "addresses": ["*"], "port": 443, "podPort": 8443, "protocol": "HTTPS", "hostname": "*.example.com",
             "tls": {"mode": "terminate", "identity": "own", "certificates": [
                {"names": ["a.example.com"], "state": "expired", "expirationTime": "2001-01-01T00:00:00Z"}]},
             "destination": "1 route", "policies": [], "refuseAll": "policy demo/x cannot be enforced"},
        ],
        "routes": [
            {"listener": "web.demo.svc.cluster.local:80", "port": 80, "hosts": ["*"], "order": 1,
             "match": "any path, header x-tester is \"yes\"", "route": "HTTPRoute demo/web rule 0 (testers)",
             "backends": [{"service": "web-v2.demo.svc.cluster.local:80", "share": "100%"}],
             "effects": ["time-out: 300ms", "retries: 2 more after 503"], "policies": ["demo/allow"]},
            {"listener": "web.demo.svc.cluster.local:80", "port": 80, "hosts": ["*"], "order": 2, "match": "any path",
             "route": "HTTPRoute demo/web rule 3", "effects": [], "policies": ["demo/allow"],
             "backends": [{"service": "web.demo.svc.cluster.local:80", "share": "90%"},
                          {"error": 500, "reason": "no service web-v9", "share": "10%"}]},
            {"listener": "https:443", "port": 443, "hosts": ["a.example.com", "b.example.com", "c.example.com"], "order": 1,
             "match": "path is \"/old\" or below", "route": "HTTPRoute demo/edge rule 0", "answer": "redirects with 301, path \"/new\""},
        ],
        "clusters": [
            {"name": "outbound|80||web.demo.svc.cluster.local", "service": "web.demo.svc.cluster.local", "port": 80,
             "subset": "", "endpointsTotal": 3, "endpointsHealthy": 1, "endpointsEjected": 1, "transport": ["HBONE"],
             "balancer": "least request", "breakersOpen": ["requests"], "stats": {"upstream_rq_active": 7},
             "endpoints": [
                {"address": "10.0.0.1:8080", "id": "Kubernetes//Pod/demo/web-1", "status": "HEALTHY", "ejected": false,
                 "transport": "HBONE to 10.0.0.1:15008", "locality": "eu/a", "activeRequests": 7},
                {"address": "10.0.0.2:8080", "id": "Kubernetes//Pod/demo/web-2", "status": "HEALTHY", "ejected": true},
                {"address": "[fd00::3]:8080", "id": "x", "status": "UNHEALTHY", "ejected": false}]},
            {"name": "outbound|443|old|shop.example.com", "endpointsTotal": 0, "endpoints": []},
            {"name": "outbound|443||api.example.com", "service": "api.example.com", "port": 443, "subset": "",
             "refuse": "no roots", "endpoints": [{"address": "0.0.0.0:443", "hostname": "api.example.com", "status": "HEALTHY"}]},
        ],
    })
}

fn cells(rows: Vec<Row>) -> Vec<String> {
    rows.into_iter().map(|row| row.cells.join("|")).collect()
}

fn fqdn(host: &str) -> Filter {
    Filter { fqdn: Some(host.into()), ..Filter::default() }
}

#[test]
fn routes_stand_in_order_with_what_they_do() {
    assert_eq!(
        cells(routes(&dump(), &Filter::default())),
        [
            "web.demo.svc.cluster.local:80|*|1|any path, header x-tester is \"yes\"|HTTPRoute demo/web rule 0 (testers)|\
             web-v2.demo.svc.cluster.local:80|time-out: 300ms; retries: 2 more after 503|demo/allow",
            "web.demo.svc.cluster.local:80|*|2|any path|HTTPRoute demo/web rule 3|\
             90% web.demo.svc.cluster.local:80, 10% answers with 500: no service web-v9|-|demo/allow",
            "https:443|a.example.com,b.example.com and 1 more|1|path is \"/old\" or below|HTTPRoute demo/edge rule 0|\
             redirects with 301, path \"/new\"|-|-",
        ]
    );
}

#[test]
fn routes_are_found_by_host_port_and_listener() {
    let count = |filter: Filter| routes(&dump(), &filter).len();
    assert_eq!(count(fqdn("web")), 2);
    assert_eq!(count(fqdn("WEB.demo")), 2);
    assert_eq!(count(fqdn("we")), 0, "labels are whole");
    assert_eq!(count(fqdn("c.example.com")), 1, "hosts that the table cuts count too");
    assert_eq!(count(Filter { port: Some(443), ..Filter::default() }), 1);
    assert_eq!(count(Filter { name: Some("https:443".into()), ..Filter::default() }), 1);
    assert_eq!(count(Filter { name: Some("https".into()), port: Some(80), ..Filter::default() }), 0);
}

#[test]
fn clusters_tell_who_is_left_and_what_is_open() {
    assert_eq!(
        cells(clusters(&dump(), &Filter::default())),
        [
            "web.demo.svc.cluster.local|80|-|1/3|1|HBONE|least request|requests|7",
            "shop.example.com (no longer configured)|-|-|0/0|0|-|-|-|0",
            "api.example.com|443|-|0/0|0|REFUSED: no roots|-|-|0",
        ]
    );
    assert_eq!(clusters(&dump(), &fqdn("api.example.com")).len(), 1);
    assert_eq!(clusters(&dump(), &Filter { subset: Some("old".into()), ..Filter::default() }).len(), 0);
}

#[test]
fn endpoints_tell_health_and_ejection_apart() {
    let shown = cells(endpoints(&dump(), &fqdn("web")));
    assert_eq!(
        shown.first().unwrap(),
        "10.0.0.1:8080|HEALTHY|OK|outbound|80||web.demo.svc.cluster.local|web-1.demo|HBONE to 10.0.0.1:15008|eu/a|7"
    );
    let with = |status: &str| endpoints(&dump(), &Filter { status: Some(status.into()), ..fqdn("web") }).len();
    assert_eq!((with("healthy"), with("unhealthy"), with("ejected")), (1, 1, 1));
    let at = |address: &str| endpoints(&dump(), &Filter { address: Some(address.into()), ..Filter::default() }).len();
    assert_eq!((at("10.0.0.2"), at("10.0.0.2:8080"), at("fd00::3"), at("10.0.0.9")), (1, 1, 1, 0));
    assert_eq!(endpoints(&dump(), &Filter { port: Some(80), ..Filter::default() }).len(), 3);
    assert!(cells(endpoints(&dump(), &fqdn("api")))[0].starts_with("api.example.com:443|"));
    let source = &endpoints(&dump(), &fqdn("web"))[0].source;
    assert_eq!(source["cluster"], "outbound|80||web.demo.svc.cluster.local");
}

#[test]
fn listeners_tell_whose_certificate_until_when() {
    assert_eq!(
        cells(listeners(&dump(), &Filter::default())),
        [
            "*|15008|HBONE|*|spiffe://td/ns/demo/sa/waypoint|2999-01-01T00:00:00Z|the ports below|-",
            "10.96.0.9,fd00::9|80|HTTP|web.demo.svc.cluster.local|-|-|2 routes|demo/allow",
            "*|443 (pod: 8443)|HTTPS|*.example.com|a.example.com|EXPIRED 2001-01-01T00:00:00Z|1 route|\
             REFUSES ALL: policy demo/x cannot be enforced",
        ]
    );
    assert_eq!(listeners(&dump(), &fqdn("b.example.com")).len(), 1, "a wildcard covers it");
    assert_eq!(listeners(&dump(), &Filter { port: Some(8443), ..Filter::default() }).len(), 1);
    assert_eq!(listeners(&dump(), &Filter { address: Some("fd00::9".into()), ..Filter::default() }).len(), 1);
}
