//! On-demand subscriptions: what was asked for, what was sent because of it, and what is given up.

use super::*;

impl Client {
    async fn unsubscribe(&mut self, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect();
        self.send(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            resource_names_unsubscribe: names,
            ..Default::default()
        })
        .await;
    }

    /// Everything sent before was taken in: an unknown name is answered.
    async fn settled(&mut self) {
        self.subscribe(ADDRESS, &["unknown"]).await;
        let response = self.next().await;
        assert_eq!((names(&response), response.removed_resources.clone()), (vec![], vec!["unknown".to_owned()]));
    }
}

fn member(name: &str, content: &str) -> Resource {
    workload(name, content, Some("ns/svc"))
}

#[tokio::test]
async fn a_name_asked_for_comes_again_after_it_was_gone() {
    let mesh = Mesh::start().await;
    mesh.set(&[workload("w", "1", None)]);
    let mut client = mesh.open().await;
    client.on_demand(ADDRESS).await;
    client.next().await;
    client.subscribe(ADDRESS, &["w"]).await;
    assert_eq!(names(&client.next().await), ["w"]);
    mesh.unset(&[workload("w", "1", None)]);
    assert_eq!(client.next().await.removed_resources, ["w"]);
    mesh.set(&[workload("w", "2", None)]);
    assert_eq!(names(&client.next().await), ["w"]);
}

#[tokio::test]
async fn giving_up_a_service_gives_up_its_workloads_but_not_those_asked_for_otherwise() {
    let mesh = Mesh::start().await;
    mesh.set(&[member("w1", "1"), member("w2", "1"), service("ns/svc")]);
    let mut client = mesh.open().await;
    client.on_demand(ADDRESS).await;
    client.next().await;
    client.subscribe(ADDRESS, &["ns/svc", "net/w2"]).await;
    assert_eq!(names(&client.next().await), ["w1", "w2", "ns/svc"]);
    client.unsubscribe(&["ns/svc"]).await;
    client.settled().await;
    mesh.set(&[member("w1", "2"), member("w2", "2")]);
    assert_eq!(names(&client.next().await), ["w2"]);
    // Asked for again, it is sent again.
    client.subscribe(ADDRESS, &["ns/svc"]).await;
    assert_eq!(names(&client.next().await), ["w1", "w2", "ns/svc"]);
}

#[tokio::test]
async fn who_gives_up_the_wildcard_keeps_what_it_asked_for_by_name() {
    let mesh = Mesh::start().await;
    mesh.set(&[workload("a", "1", None), workload("b", "1", None)]);
    let mut client = mesh.open().await;
    client.subscribe(ADDRESS, &[]).await;
    assert_eq!(names(&client.next().await), ["a", "b"]);
    client.subscribe(ADDRESS, &["a"]).await;
    assert_eq!(names(&client.next().await), ["a"]);
    client.unsubscribe(&["*"]).await;
    client.settled().await;
    mesh.set(&[workload("a", "2", None), workload("b", "2", None)]);
    assert_eq!(names(&client.next().await), ["a"]);
    mesh.unset(&[workload("a", "2", None), workload("b", "2", None)]);
    assert_eq!(client.next().await.removed_resources, ["a"]);
}

#[tokio::test]
async fn what_is_local_to_the_node_is_followed_unasked() {
    let mesh = Mesh::start().await;
    let local = Resource { node: Some("n1".into()), ..workload("l", "1", None) };
    mesh.set(std::slice::from_ref(&local));
    let mut client = mesh.open().await;
    client.on_demand(ADDRESS).await;
    assert_eq!(names(&client.next().await), ["l"]);
    client.unsubscribe(&["l"]).await;
    client.settled().await;
    mesh.unset(&[local]);
    assert_eq!(client.next().await.removed_resources, ["l"]);
}
