//! Protocol rows of the workload discovery specification that need no network.

#![allow(clippy::indexing_slicing)] // reason: tests

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const A: &str = "type.example/A";
const B: &str = "type.example/B";

/// Keeps what is in force; refuses what says `bad`.
#[derive(Default)]
struct Store {
    live: BTreeMap<String, Vec<u8>>,
}

impl Handler for Store {
    fn apply(&mut self, _: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        for resource in resources {
            if resource.value == b"bad" {
                rejected.push(Rejection::new(resource.name, "field: bad, expected good"));
            } else {
                self.live.insert(resource.name, resource.value);
            }
        }
        for name in removed {
            self.live.remove(&name);
        }
        rejected
    }
}

fn client() -> DeltaClient {
    DeltaClient::new(Node { id: "ztunnel~1.1.1.1~a.b~b.svc".into(), ..Default::default() }, &[A, B])
}

fn resource(type_url: &str, name: &str, version: &str, value: &[u8]) -> WireResource {
    WireResource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(prost_types::Any { type_url: type_url.to_owned(), value: value.to_vec() }),
        ..Default::default()
    }
}

fn response(type_url: &str, nonce: &str, resources: Vec<WireResource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn versions(client: &DeltaClient, type_url: &str) -> BTreeMap<String, String> {
    let requests = client.start_stream([]);
    let request = requests.into_iter().find(|request| request.type_url == type_url).unwrap();
    request.initial_resource_versions.into_iter().collect()
}

#[test]
fn the_first_requests_are_wildcards_with_the_node() {
    for (request, url) in client().start_stream([]).iter().zip([A, B]) {
        assert_eq!(request.type_url, url);
        assert_eq!(request.node.as_ref().unwrap().id, "ztunnel~1.1.1.1~a.b~b.svc");
        assert!(request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty() && request.response_nonce.is_empty());
    }
}

#[test]
fn wds_row_1_empty_answers_to_every_type_make_it_ready() {
    let (mut client, mut store) = (client(), Store::default());
    let handled = client.handle_response(response(A, "n1", vec![], &[]), &mut store);
    assert_eq!(handled.request.response_nonce, "n1");
    assert_eq!(handled.request.error_detail, None);
    assert_eq!(handled.request.node, None);
    assert!(!client.is_ready());
    client.handle_response(response(B, "n2", vec![], &[]), &mut store);
    assert!(client.is_ready());
}

#[test]
fn wds_row_5_the_good_part_is_applied_and_the_refusal_names_the_rest() {
    let (mut client, mut store) = (client(), Store::default());
    let resources = vec![resource(A, "good", "1", b"x"), resource(A, "ill", "1", b"bad")];
    let handled = client.handle_response(response(A, "n1", resources, &[]), &mut store);
    assert_eq!(handled.request.response_nonce, "n1");
    assert_eq!(handled.request.error_detail.unwrap().message, "ill: field: bad, expected good");
    assert_eq!(store.live.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(versions(&client, A), BTreeMap::from([("good".into(), "1".into())]));
    assert!(!client.is_ready(), "a refused first response does not count");
}

#[test]
fn a_refused_update_keeps_the_earlier_version() {
    let (mut client, mut store) = (client(), Store::default());
    client.handle_response(response(A, "n1", vec![resource(A, "r", "1", b"x")], &[]), &mut store);
    client.handle_response(response(A, "n2", vec![resource(A, "r", "2", b"bad")], &[]), &mut store);
    assert_eq!(store.live["r"], b"x");
    assert_eq!(versions(&client, A)["r"], "1");
}

#[test]
fn wds_row_6_and_7_a_new_stream_resumes_and_forgets_what_was_removed() {
    let (mut client, mut store) = (client(), Store::default());
    let resources = vec![resource(A, "N", "ab12", b"x"), resource(A, "M", "7", b"x")];
    client.handle_response(response(A, "n1", resources, &[]), &mut store);
    assert_eq!(versions(&client, A), BTreeMap::from([("N".into(), "ab12".into()), ("M".into(), "7".into())]));
    assert!(versions(&client, B).is_empty());
    let handled = client.handle_response(response(A, "n2", vec![], &["N", "never-known"]), &mut store);
    assert_eq!(handled.request.error_detail, None, "removing what is unknown is no error");
    assert_eq!(versions(&client, A), BTreeMap::from([("M".into(), "7".into())]));
}

#[test]
fn unknown_types_are_acknowledged_and_ignored() {
    let (mut client, mut store) = (client(), Store::default());
    let handled = client
        .handle_response(response("type.example/C", "n1", vec![resource("x", "r", "1", b"bad")], &[]), &mut store);
    assert_eq!((handled.request.type_url.as_str(), handled.request.error_detail), ("type.example/C", None));
    assert!(store.live.is_empty());
}

#[test]
fn content_of_another_type_or_none_is_refused() {
    let (mut client, mut store) = (client(), Store::default());
    let empty = WireResource { name: "empty".into(), ..Default::default() };
    let handled =
        client.handle_response(response(A, "n1", vec![resource(B, "other", "1", b"x"), empty], &[]), &mut store);
    assert_eq!(
        handled.request.error_detail.unwrap().message,
        format!("other: type {B:?} in a response of {A:?}; empty: no content")
    );
    assert!(store.live.is_empty() && versions(&client, A).is_empty());
}

#[test]
fn a_refusal_of_very_many_resources_is_cut() {
    let (mut client, mut store) = (client(), Store::default());
    let resources = (0..5000).map(|n| resource(A, &format!("r{n}"), "1", b"bad")).collect();
    let handled = client.handle_response(response(A, "n1", resources, &[]), &mut store);
    let message = handled.request.error_detail.unwrap().message;
    assert!(message.len() < REFUSAL_BYTES_MAX + 32 && message.ends_with("more"), "{}", message.len());
    assert_eq!(handled.rejected.len(), 5000);
}

proptest! {
    /// What a client says it has is what its store has, whatever came in.
    #[test]
    fn known_names_equal_the_store(
        steps in proptest::collection::vec(
            proptest::collection::vec((0_u8..6, any::<bool>(), any::<bool>()), 0..6), 0..8)
    ) {
        let (mut client, mut store) = (client(), Store::default());
        for (n, step) in steps.into_iter().enumerate() {
            let (mut resources, mut removed) = (Vec::new(), BTreeSet::new());
            for (name, remove, bad) in step {
                let name = format!("r{name}");
                if remove {
                    removed.insert(name);
                } else if !resources.iter().any(|known: &WireResource| known.name == name) {
                    let value = if bad { b"bad".to_vec() } else { n.to_string().into_bytes() };
                    resources.push(resource(A, &name, &n.to_string(), &value));
                }
            }
            let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
            client.handle_response(response(A, &n.to_string(), resources, &removed), &mut store);
            let live: BTreeMap<_, _> =
                store.live.iter().map(|(name, value)| (name.clone(), String::from_utf8(value.clone()).unwrap())).collect();
            prop_assert_eq!(versions(&client, A), live);
        }
    }
}

fn on_demand() -> DeltaClient {
    client().on_demand(A)
}

#[test]
fn on_demand_starts_with_everything_and_nothing_at_once() {
    let requests = on_demand().start_stream([]);
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["*"]);
    assert!(requests[1].resource_names_subscribe.is_empty() && requests[1].resource_names_unsubscribe.is_empty());
}

#[test]
fn on_demand_is_ready_without_an_answer_to_what_nobody_asked() {
    let (mut client, mut store) = (on_demand(), Store::default());
    assert!(!client.is_ready());
    client.handle_response(response(B, "n1", vec![], &[]), &mut store);
    assert!(client.is_ready());
}

#[test]
fn on_demand_asks_in_a_request_of_its_own_and_is_answered_by_name_alias_or_absence() {
    let (mut client, mut store) = (on_demand(), Store::default());
    let request = client.subscribe("n1/10.0.0.7".into()).unwrap();
    assert_eq!((request.type_url.as_str(), request.response_nonce.as_str()), (A, ""));
    assert_eq!(request.resource_names_subscribe, ["n1/10.0.0.7"]);
    assert!(request.node.is_none() && request.initial_resource_versions.is_empty());
    let mut pod = resource(A, "c//Pod/a/b", "1", b"x");
    pod.aliases = vec!["n1/10.0.0.7".into()];
    let handled = client.handle_response(response(A, "n1", vec![pod], &["n1/10.9.9.9"]), &mut store);
    assert_eq!(handled.answered, ["c//Pod/a/b", "n1/10.0.0.7", "n1/10.9.9.9"]);
    assert_eq!(handled.request.response_nonce, "n1");
    assert!(client.subscribe("x".into()).is_some(), "a name may be asked for again");
    assert!(DeltaClient::new(Node::default(), &[A]).subscribe("x".into()).is_none(), "not where all is sent");
}

#[test]
fn wds_row_6_on_demand_names_what_it_has_and_what_it_waits_for_on_a_new_stream() {
    let (mut client, mut store) = (on_demand(), Store::default());
    client.handle_response(response(A, "n1", vec![resource(A, "known", "ab12", b"x")], &[]), &mut store);
    let requests = client.start_stream(["n1/10.0.0.8"]);
    let wanted = [("known".to_owned(), "ab12".to_owned()), ("n1/10.0.0.8".to_owned(), String::new())];
    assert_eq!(requests[0].initial_resource_versions.clone().into_iter().collect::<BTreeMap<_, _>>(), wanted.into());
    assert!(requests[1].initial_resource_versions.is_empty(), "not for types that are sent as a whole");
}

#[test]
fn one_bad_resource_keeps_unready_until_an_answer_is_usable_as_a_whole() {
    let (mut client, mut store) = (client(), Store::default());
    client.handle_response(response(B, "n1", vec![], &[]), &mut store);
    let both = vec![resource(A, "good", "1", b"x"), resource(A, "broken", "1", b"bad")];
    let handled = client.handle_response(response(A, "n2", both, &[]), &mut store);
    assert_eq!(handled.request.error_detail.unwrap().message, "broken: field: bad, expected good");
    assert!(store.live.contains_key("good") && !client.is_ready());
    client.handle_response(response(A, "n3", vec![resource(A, "other", "1", b"x")], &[]), &mut store);
    assert!(client.is_ready());
}

fn names(list: &[&str]) -> std::collections::BTreeSet<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

#[test]
fn a_listed_type_follows_names_and_tells_only_the_difference() {
    let mut client = client().listed(A);
    assert_eq!(client.start_stream([])[0].resource_names_subscribe, ["*"]);
    let request = client.follow(A, names(&["a/x", "a/y"]), &names(&[])).unwrap();
    assert_eq!(request.resource_names_subscribe, ["a/x", "a/y"]);
    assert!(request.resource_names_unsubscribe.is_empty() && request.response_nonce.is_empty());
    assert_eq!(client.follow(A, names(&["a/x", "a/y"]), &names(&[])), None);
    let request = client.follow(A, names(&["a/y", "a/z"]), &names(&["pod"])).unwrap();
    assert_eq!(request.resource_names_subscribe, ["a/z"]);
    assert_eq!(request.resource_names_unsubscribe, ["a/x", "pod"]);
    assert_eq!(client.follow(B, names(&["a"]), &names(&[])), None, "all of it is subscribed to");
}

#[test]
fn a_new_stream_follows_what_is_listed_and_forgets_what_was_released() {
    let (mut client, mut store) = (client().listed(A), Store::default());
    client.follow(A, names(&["a/x"]), &names(&[]));
    let both = vec![resource(A, "pod", "1", b"x"), resource(A, "a/x", "2", b"y")];
    client.handle_response(response(A, "n1", both, &[]), &mut store);
    client.follow(A, names(&["a/y"]), &names(&["pod"]));
    let request = client.start_stream([]).remove(0);
    assert_eq!(request.resource_names_subscribe, ["*", "a/y"]);
    assert_eq!(request.resource_names_unsubscribe, ["*"]);
    assert!(request.initial_resource_versions.is_empty(), "{request:?}");
}
