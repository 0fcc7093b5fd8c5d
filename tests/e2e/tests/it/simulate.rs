//! What a policy would change, before it is applied; and which proxies are in step.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::town::{SOON, Town};

const ONLY_CLIENT: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-client, namespace: town}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/town/sa/client]}}]}]
";

#[test]
fn a_simulated_policy_does_what_the_applied_one_does() -> Result<()> {
    let town = Town::found()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, ONLY_CLIENT)?;
    let file = file.display().to_string();
    let stranger = town.pod("outside", "app=stranger")?;
    let called = || town.lab.exec("outside", &stranger, &["load", "get", "http://web.town/", "--timeout", "2"]);
    called()?.ok().context("nothing is refused yet")?;

    let table = town.lab.meltemi(&["policy", "simulate", "-f", &file])?.ok()?;
    ensure!(table.contains("REFUSE") && table.contains("plaintext") && table.contains("only-client"), "{table}");
    ensure!(!table.contains("town/client "), "the client is let in: {table}");
    called()?.ok().context("a simulation changes nothing")?;
    let failed = town.lab.meltemi(&["policy", "simulate", "-f", &file, "--exit-code"])?.failed()?;
    ensure!(failed.contains("would be refused"), "{failed}");

    town.lab.apply(ONLY_CLIENT)?;
    eventually("the stranger is refused", SOON, || called()?.failed().map(drop))?;
    town.get("http://web/").context("the client is let in")?;
    let target = "AuthorizationPolicy/only-client.town";
    let json = town.lab.meltemi(&["policy", "simulate", "--delete", target, "-o", "json"])?.ok()?;
    let answer: Value = serde_json::from_str(&json)?;
    ensure!(answer["refused"] == 0 && answer["allowed"].as_u64().unwrap_or(0) > 0, "{json}");

    std::fs::write(folder.path().join("policy.yaml"), ONLY_CLIENT.replace("principals", "methods"))?;
    let said = town.lab.meltemi(&["policy", "simulate", "-f", &file])?.failed()?;
    ensure!(
        said.contains("town/only-client") && said.contains("rules[0].from[0].source"),
        "the mistake is named: {said}"
    );
    Ok(())
}

#[test]
fn every_proxy_is_listed_with_what_it_is_in_step_with() -> Result<()> {
    let town = Town::found()?;
    let table = town.lab.meltemi(&["proxy-status"])?.ok()?;
    let rows: Vec<_> = table.lines().skip(1).collect();
    ensure!(rows.len() == 2 && rows.iter().all(|row| row.starts_with("ztunnel-")), "{table}");
    ensure!(rows.iter().all(|row| row.contains("2 (WADS,WDS)") && row.contains("istiod-")), "{table}");
    eventually("all are in step", SOON, || {
        let details = town.lab.meltemi(&["ps", "-v", "1"])?.ok()?;
        ensure!(details.matches("SYNCED").count() == 4, "{details}");
        Ok(())
    })?;
    let json: Vec<Value> = serde_json::from_str(&town.lab.meltemi(&["ps", "-o", "json"])?.ok()?)?;
    ensure!(json.len() == 2 && json.iter().all(|one| one["cluster"] == "Kubernetes"), "{json:#?}");
    ensure!(town.lab.meltemi(&["ps", "-n", "town"])?.ok()?.lines().count() == 1, "no proxies in that namespace");
    Ok(())
}
