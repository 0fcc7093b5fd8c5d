//! Resources that are for one principal only: for everybody else they do not exist.

use super::*;

fn secret(name: &str, content: &str, audience: &str) -> Resource {
    Resource { audience: Some(audience.into()), ..workload(name, content, Some("a/gw")) }
}

fn group(audience: &str) -> Resource {
    Resource { audience: Some(audience.into()), ..service("a/gw") }
}

#[tokio::test]
async fn only_its_own_principal_gets_a_resource() {
    let mesh = Mesh::start().await;
    mesh.set(&[group("a/wp"), secret("a/gw/one", "1", "a/wp"), workload("public", "1", None)]);
    for (principal, all, asked) in [
        (Some("a/wp"), vec!["a/gw/one", "public", "a/gw"], vec!["a/gw/one", "a/gw"]),
        (Some("b/wp"), vec!["public"], vec![]),
        (None, vec!["public"], vec![]),
    ] {
        let open = async || match principal {
            Some(principal) => mesh.open_as(principal).await,
            None => mesh.open().await,
        };
        let mut everything = open().await;
        everything.subscribe(ADDRESS, &[]).await;
        assert_eq!(names(&everything.next().await), all, "{principal:?}");
        let mut by_name = open().await;
        by_name.on_demand(ADDRESS).await;
        by_name.next().await;
        by_name.subscribe(ADDRESS, &["a/gw", "net/a/gw/one"]).await;
        let response = by_name.next().await;
        assert_eq!(names(&response), asked, "{principal:?}");
        assert_eq!(response.removed_resources.is_empty(), !asked.is_empty(), "as if it did not exist");
    }
}

#[tokio::test]
async fn changes_of_it_are_told_to_nobody_else_and_who_loses_it_is_told() {
    let mesh = Mesh::start().await;
    mesh.set(&[group("a/wp"), secret("a/gw/one", "1", "a/wp")]);
    let mut own = mesh.open_as("a/wp").await;
    own.subscribe(ADDRESS, &["a/gw"]).await;
    assert_eq!(names(&own.next().await), ["a/gw/one", "a/gw"]);
    let mut other = mesh.open_as("b/wp").await;
    other.subscribe(ADDRESS, &["a/gw"]).await;
    other.next().await;
    let mut wildcard = mesh.open().await;
    wildcard.subscribe(ADDRESS, &[]).await;
    wildcard.next().await;
    mesh.set(&[secret("a/gw/one", "2", "a/wp"), secret("a/gw/two", "1", "a/wp")]);
    assert_eq!(names(&own.next().await), ["a/gw/one", "a/gw/two"]);
    other.quiet().await;
    wildcard.quiet().await;
    mesh.set(&[secret("a/gw/one", "3", "b/wp")]);
    let lost = own.next().await;
    assert_eq!(names(&lost), Vec::<&str>::new());
    assert_eq!(lost.removed_resources, ["a/gw/one"]);
}
