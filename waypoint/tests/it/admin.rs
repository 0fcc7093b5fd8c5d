//! What the admin port tells: everything that somebody who looks for a fault needs, and no key.

use std::time::Duration;

use mesh_identity::testing::{IssueOptions, TestCa, pem};
use mesh_wire::l7::{self, Protocol};
use serde_json::Value;

use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{self, address, allow, listener, port, proxy, service, workload};
use crate::world::World;

/// The JSON that a path of the admin port answers.
async fn admin(world: &World, path: &str) -> (Value, String) {
    let text = world.get(15000, path).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    // Large answers come in chunks.
    let body: String = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body.split("\r\n").skip(1).step_by(2).collect()
    } else {
        body.to_owned()
    };
    (serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")), body)
}

isolated_test! {
    async fn the_dump_of_a_gateway_names_certificates_and_holds_no_key() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::Http(Duration::ZERO)).await;
        let addresses = vec![
            service("one", "10.1.1.1", 80, 8080),
            address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)])),
        ];
        let ca = TestCa::new();
        let names = vec!["a.example.com".to_owned()];
        let issued = ca.issue_with(&IssueOptions { uris: vec![], dns_names: names, ..IssueOptions::default() });
        let pair = l7::KeyPair { chain: pem(issued.leaf()).into_bytes(), key: issued.key_pem().into_bytes() };
        let tls = l7::ServerTls { certificates: vec![pair.clone()], ..l7::ServerTls::default() };
        let mut https = l7::Listener { hostname: "a.example.com".into(), tls: Some(tls), ..listener("https", 443, Protocol::Https, "one") };
        https.target_port = 8443;
        // The upstream wants a client certificate: its key is no business of anybody's either.
        let mutual = l7::ClientTls { mode: l7::client_tls::Mode::Mutual.into(), client: Some(pair), sni: "one".into(), ..l7::ClientTls::default() };
        https.backends[0].policy = Some(l7::TrafficPolicy { tls: Some(mutual), ..l7::TrafficPolicy::default() });
        let world = World::gateway(&[https], addresses).await;
        let (dump, text) = admin(&world, "/config_dump").await;
        let key = issued.key_pem();
        let secret = key.lines().find(|line| !line.starts_with("-----")).unwrap();
        assert!(!text.contains(secret) && !text.contains("PRIVATE"), "a key is in the dump");
        let shown = &dump["listeners"][0];
        assert_eq!((&shown["section"], &shown["port"], &shown["podPort"]), (&"https".into(), &443.into(), &8443.into()));
        assert_eq!(shown["tls"]["certificates"][0]["names"][0], "a.example.com");
        assert_eq!((&shown["tls"]["certificates"][0]["state"], &shown["tls"]["clientCertificate"]), (&"valid".into(), &"none".into()));
        let cluster = &dump["clusters"][0];
        assert_eq!((&cluster["tls"]["mode"], &cluster["tls"]["sni"]), (&"MUTUAL".into(), &"one".into()));
        assert_eq!(cluster["tls"]["clientCertificate"]["names"][0], "a.example.com");
        assert_eq!(cluster["transport"][0], "mutual TLS in HBONE");
        let (_, text) = admin(&world, "/clusters").await;
        assert!(!text.contains(secret) && !text.contains("PRIVATE"), "a key is among the clusters");
        assert_eq!(dump["leftOut"]["routes"], 0);
    }
}

isolated_test! {
    async fn the_dump_of_a_waypoint_has_routes_in_order_and_what_was_refused() {
        let _one = Endpoint::start("127.0.0.2", "one", Application::Http(Duration::ZERO)).await;
        let addresses = vec![
            service("one", "10.1.1.1", 80, 8080),
            address(&workload("one-1", "127.0.0.2", "one", &[("one", 80, 8080)])),
        ];
        let mut one = port("one", "10.1.1.1", 80, Protocol::Http);
        one.http = listener("x", 1, Protocol::Http, "one").http;
        let table = one.http.as_mut().unwrap();
        table.rules[0].origin = Some(l7::Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: "r".into(), ..l7::Origin::default() });
        let path = l7::PathMatch { kind: Some(l7::path_match::Kind::Exact("/first".into())), ignore_case: false };
        let first = l7::HttpMatch { path: Some(path), ..l7::HttpMatch::default() };
        table.hosts[0].entries.insert(0, l7::HttpEntry { r#match: Some(first), rule: 0 });
        one.authorizations = vec![allow("readers", "cluster.local/ns/shop/sa/client")];
        let bytes = port("one", "10.1.1.1", 81, Protocol::Tcp);
        let world = World::waypoint(proxy(), &[one.clone(), bytes], addresses).await;
        let (dump, _) = admin(&world, "/config_dump").await;
        let rows = dump["routes"].as_array().unwrap();
        let shown: Vec<_> = rows.iter().map(|row| format!("{} {} {}: {}", row["listener"], row["order"], row["match"], row["route"])).collect();
        assert_eq!(shown, [
            r#""one.shop.svc.cluster.local:80" 1 "path is \"/first\"": "HTTPRoute shop/r rule 0""#,
            r#""one.shop.svc.cluster.local:80" 2 "any path": "HTTPRoute shop/r rule 0""#,
            r#""one.shop.svc.cluster.local:81" 1 "every other connection": """#,
        ]);
        assert_eq!(rows[0]["policies"][0], "shop/readers");
        assert_eq!((&rows[0]["backends"][0]["service"], &rows[0]["backends"][0]["healthy"]), (&"one.shop.svc.cluster.local:80".into(), &1.into()));
        assert_eq!(dump["listeners"][0]["protocol"], "HBONE");
        let endpoint = &dump["clusters"][0]["endpoints"][0];
        assert_eq!((&endpoint["address"], &endpoint["status"]), (&"127.0.0.2:8080".into(), &"HEALTHY".into()));
        // A change that cannot be used: what was there stays, and the dump says why.
        let mut bad = one.clone();
        bad.default_backend = 9;
        world.port(&bad);
        let refused = async |world: &World| admin(world, "/config_dump").await.0["refused"][0]["reason"].is_string();
        world.eventually("the refusal is shown", refused).await;
        let (dump, _) = admin(&world, "/config_dump").await;
        assert_eq!(dump["refused"][0]["resource"], *resources::port_name(&one));
        assert!(dump["refused"][0]["reason"].as_str().unwrap().starts_with("default_backend: 9, expected an index below 1"));
        assert_eq!(dump["routes"].as_array().unwrap().len(), 3);
        // And a good one puts it right.
        let mut good = one.clone();
        good.by_hostname = true;
        world.port(&good);
        let right = async |world: &World| admin(world, "/config_dump").await.0["refused"].as_array().unwrap().is_empty();
        world.eventually("nothing is refused any more", right).await;
    }
}
