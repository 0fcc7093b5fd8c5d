//! Clients that do not behave: each costs little, and only itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[derive(Debug, Default, Clone)]
struct Seen {
    rejected: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<String>>>,
    converged: Arc<AtomicUsize>,
}

impl Observer for Seen {
    fn rejected(&self, _type_url: &str, _node: &str, message: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        if !message.is_empty() {
            self.told.lock().unwrap().push(message.to_owned());
        }
    }

    fn converged(&self, _took: Duration) {
        self.converged.fetch_add(1, Ordering::Relaxed);
    }
}

fn refuse(response: &DeltaDiscoveryResponse, message: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail: Some(ErrorDetail { message: message.into(), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn xds_row_7_one_that_refuses_everything_is_counted_logged_once_and_sent_only_changes() {
    let seen = Seen::default();
    let mesh = Mesh::observed(Box::new(seen.clone())).await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    let mut last = client.next().await;
    for round in 0..5 {
        for again in 0..10 {
            client.send(refuse(&last, &format!("bad {round} {again}"))).await;
        }
        client.quiet().await;
        mesh.set(&[workload("a", &round.to_string(), None)]);
        last = client.next().await;
        assert_eq!(names(&last), ["a"]);
    }
    assert_eq!(seen.rejected.load(Ordering::Relaxed), 50);
    assert_eq!(seen.told.lock().unwrap().len(), 5, "the log has one line a response");
}

#[tokio::test]
async fn one_that_never_accepts_anything_is_still_told() {
    let seen = Seen::default();
    let mesh = Mesh::observed(Box::new(seen.clone())).await;
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    client.next().await;
    for round in 0..100 {
        mesh.set(&[workload("a", &round.to_string(), None)]);
        assert_eq!(names(&client.next().await), ["a"]);
    }
    let status = mesh.hub.connections().remove(0);
    assert!(status.types[0].nonce_acked.is_empty() && !status.types[0].nonce_sent.is_empty());
    assert!(seen.converged.load(Ordering::Relaxed) >= 99, "counted as sent, not as accepted");
}

#[tokio::test]
async fn one_that_does_not_read_delays_nobody_and_catches_up_in_one_push() {
    let mesh = Mesh::start().await;
    let large = |round: usize| {
        let content = "x".repeat(20_000);
        (0..100).map(|at| workload(&format!("w{at:03}"), &format!("{round}{content}"), None)).collect::<Vec<_>>()
    };
    let mut slow = mesh.open().await;
    slow.subscribe(ADDRESS, &[]).await;
    slow.next().await;
    let mut quick = mesh.open_apart().await;
    quick.subscribe(ADDRESS, &[]).await;
    quick.next().await;
    // Two megabytes a round: more than the slow one's windows, which it does not open.
    for round in 0..20 {
        mesh.set(&large(round));
        assert_eq!(quick.next().await.resources.len(), 100, "the quick one has round {round}");
    }
    let (mut responses, mut caught_up) = (0, false);
    while !caught_up {
        let response = slow.next().await;
        caught_up = response.resources.iter().all(|one| one.resource.as_ref().unwrap().value.starts_with(b"W19"));
        responses += 1;
    }
    assert!(responses <= 4, "{responses} responses for 20 rounds");
}

#[tokio::test]
async fn one_that_was_told_settings_comes_again_when_they_change() {
    let mesh = Mesh::start().await;
    let mut ours = mesh.open_greeted().await;
    ours.subscribe(ADDRESS, &[]).await;
    ours.next().await;
    let mut foreign = mesh.open().await;
    foreign.subscribe(ADDRESS, &[]).await;
    foreign.next().await;
    mesh.hub.renew();
    assert_eq!(ours.failure().await, Code::Unavailable);
    foreign.quiet().await;
}

#[tokio::test]
async fn older_and_unknown_methods_are_refused_in_plain_words() {
    let mesh = Mesh::start().await;
    for (method, part) in [("StreamAggregatedResources", "state-of-the-world"), ("Nonsense", "Nonsense is not served")]
    {
        let path = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}");
        let mut grpc = tonic::client::Grpc::new(mesh.channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let request = tonic::Request::new(DeltaDiscoveryRequest::default());
        let refused = grpc.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains(part), "{}", refused.message());
    }
}

#[tokio::test]
async fn each_of_many_that_come_between_changes_is_sent_what_there_is_then_in_order() {
    let mesh = Mesh::start().await;
    mesh.set(&[service("s"), workload("b", "1", Some("s")), workload("z", "1", None)]);
    let ordered = async |expected: &[(&str, &str)]| {
        for _ in 0..2 {
            let mut client = mesh.open().await;
            client.subscribe(ADDRESS, &[]).await;
            let response = client.next().await;
            let body = |one: &mesh_wire::discovery::Resource| one.resource.as_ref().unwrap().value.clone();
            let sent: Vec<_> = response
                .resources
                .iter()
                .map(|one| (one.name.clone(), String::from_utf8(body(one)).unwrap()))
                .collect();
            let sent: Vec<_> = sent.iter().map(|(name, body)| (name.as_str(), body.as_str())).collect();
            assert_eq!(sent, expected);
        }
    };
    // A service comes after all workloads, whatever its name.
    ordered(&[("b", "W1"), ("z", "W1"), ("s", "Ss")]).await;
    mesh.set(&[workload("a", "1", None), workload("z", "2", None)]);
    ordered(&[("a", "W1"), ("b", "W1"), ("z", "W2"), ("s", "Ss")]).await;
    mesh.unset(&[workload("b", "1", None)]);
    ordered(&[("a", "W1"), ("z", "W2"), ("s", "Ss")]).await;
    // What is for one only is not among what everybody shares.
    let secret = Resource { audience: Some("ns/sa".into()), ..workload("m", "x", None) };
    mesh.set(std::slice::from_ref(&secret));
    ordered(&[("a", "W1"), ("z", "W2"), ("s", "Ss")]).await;
    let mut entitled = mesh.open_as("ns/sa").await;
    entitled.subscribe(ADDRESS, &[]).await;
    assert_eq!(names(&entitled.next().await), ["a", "m", "z", "s"]);
    mesh.unset(&[secret]);
    ordered(&[("a", "W1"), ("z", "W2"), ("s", "Ss")]).await;
}
