//! Connections that come before what they need.

use std::time::Duration;

use mesh_wire::security::{Action, Scope};

use crate::state::fixture::*;
use crate::state::{POLICY_WAIT, WORKLOAD_WAIT};

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_its_workload_and_wakes_on_insert() {
    let mut world = World::new();
    let state = world.state.clone();
    let waiter = tokio::spawn(async move { state.await_local_workload("w", "a", "w").await });
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut local = pod("a/w", "10.0.0.1");
    local.node = NODE.to_owned();
    world.add([address(local)]);
    assert!(waiter.await.unwrap().is_some());
    let started = tokio::time::Instant::now();
    assert!(world.state.await_local_workload("other", "a", "w").await.is_none());
    assert_eq!(started.elapsed(), WORKLOAD_WAIT);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_policy_holds_a_connection_for_a_second_then_refuses_it_by_name() {
    let mut named = pod("db/w", "10.0.0.1");
    named.authorization_policies = vec!["db/p1".into()];
    let mut world = World::new().with([address(named)]);
    let workload = world.snapshot().workloads().next().unwrap().clone();
    let started = tokio::time::Instant::now();
    let missing = world.state.await_policies(&workload, POLICY_WAIT).await.unwrap_err();
    assert_eq!(started.elapsed(), POLICY_WAIT);
    assert_eq!(missing.to_string(), "policy db/p1 of workload db/w is not known to this proxy yet");

    let (state, waiting) = (world.state.clone(), workload.clone());
    let waiter = tokio::spawn(async move { state.await_policies(&waiting, POLICY_WAIT).await });
    tokio::task::yield_now().await;
    world.add_policy(policy("db/p1", Scope::WorkloadSelector, Action::Deny));
    assert_eq!(waiter.await.unwrap().unwrap().applied.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_current_record_decides_which_policies_are_needed() {
    let mut named = pod("db/w", "10.0.0.1");
    named.authorization_policies = vec!["db/p1".into()];
    let mut world = World::new().with([address(named)]);
    let old = world.snapshot().workloads().next().unwrap().clone();
    world.add([address(pod("db/w", "10.0.0.1"))]);
    assert!(world.state.await_policies(&old, POLICY_WAIT).await.unwrap().applied.is_empty());
}
