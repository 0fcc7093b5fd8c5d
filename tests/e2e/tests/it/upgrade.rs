//! Replacing node proxies, one node after the other, refuses no connection.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::town::{SOON, Town};

#[test]
fn a_rolling_restart_of_the_node_proxies_fails_no_request() -> Result<()> {
    let town = Town::found()?;
    town.start_load()?;
    let before = town.lab.pods("istio-system", "app=ztunnel")?;
    town.lab.kubectl(&["rollout", "restart", "-n", "istio-system", "daemonset/ztunnel"])?;
    eventually("two new proxies serve and both old ones are gone", SOON * 2, || {
        let now = town.lab.pods("istio-system", "app=ztunnel")?;
        ensure!(now.len() == 2 && now.iter().all(|pod| !before.contains(pod)), "{now:?}");
        let path = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        let ready = town.lab.kubectl(&["get", "pods", "-n", "istio-system", "-l", "app=ztunnel", "-o", path])?;
        ensure!(ready.split_whitespace().all(|one| one == "True"), "{ready}");
        Ok(())
    })?;
    for _ in 0..5 {
        town.get("http://web/")?;
    }
    let summary = town.end_load()?;
    ensure!(summary.get("requests").and_then(Value::as_u64) > Some(0), "{summary}");
    ensure!(summary.get("failed").and_then(Value::as_u64) == Some(0), "requests failed: {summary}");
    Ok(())
}
