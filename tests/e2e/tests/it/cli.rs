//! The command line, as people and scripts use it.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::town::Town;

#[test]
fn people_and_scripts_can_look_into_the_mesh() -> Result<()> {
    let town = Town::found()?;
    let ok = |args: &[&str]| town.lab.meltemi(args)?.ok();

    let table = ok(&["ztunnel-config", "workloads", "--workload-namespace", "town"])?;
    ensure!(table.starts_with("NAMESPACE"), "{table}");
    ensure!(table.lines().skip(1).count() == 3 && table.lines().skip(1).all(|line| line.ends_with("HBONE")), "{table}");
    let json: Vec<Value> =
        serde_json::from_str(&ok(&["zc", "workloads", "--workload-namespace", "town", "-o", "json"])?)?;
    ensure!(json.len() == 3);
    let services = ok(&["zc", "services", "--service-namespace", "town"])?;
    ensure!(services.contains("web") && services.contains("2/2"), "{services}");
    let certificates = ok(&["zc", "certificates", "--node", "node-2"])?;
    ensure!(
        certificates.contains("spiffe://cluster.local/ns/town/sa/web") && certificates.contains("Leaf"),
        "{certificates}"
    );
    ensure!(!certificates.contains("sa/client"), "node-2 holds a certificate of node-1's pod: {certificates}");
    town.lab.apply("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: town}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [nobody]}}]}]}\n")?;
    tests_support::eventually("the policy is shown", crate::town::SOON, || {
        let policies = ok(&["zc", "policies", "--policy-namespace", "town"])?;
        ensure!(policies.contains("Deny") && policies.contains("Namespace"), "{policies}");
        Ok(())
    })?;
    ok(&["zc", "connections"])?;

    let version = ok(&["version"])?;
    for part in ["client version: ", "control plane version: ", "(2 proxies)"] {
        ensure!(version.contains(part), "{part:?} is missing in {version}");
    }
    let client = town.pod("town", "app=client")?;
    let allowed = ok(&["explain", &format!("{client}.town"), "web.town:80"])?;
    ensure!(allowed.contains("ALLOWED") && allowed.contains("HBONE"), "{allowed}");

    ensure!(town.lab.meltemi(&["zc", "workloads", "-o", "xml"])?.code == 64);
    ensure!(town.lab.meltemi(&["nonsense"])?.code == 64);
    ensure!(town.lab.meltemi(&["install", "--set", "profile=demo", "-y"])?.failed()?.contains("unknown profile"));
    Ok(())
}

#[test]
fn install_twice_leave_and_uninstall() -> Result<()> {
    let town = Town::found()?;
    town.lab.install()?;
    town.get("http://web/")?;
    let said = town.lab.meltemi(&["uninstall", "--purge", "-y"])?.failed()?;
    ensure!(said.contains("still in the mesh"), "{said}");
    town.lab.meltemi(&["unenroll", "town"])?.ok()?;
    town.get("http://web/")?;
    town.lab.meltemi(&["uninstall", "--purge", "-y"])?.ok()?;
    // Pods of before and pods born after both have their plain network.
    town.get("http://web/")?;
    town.lab.kubectl(&["rollout", "restart", "-n", "town", "deploy/web"])?;
    town.lab.rolled_out("town", "web")?;
    tests_support::eventually("plain traffic goes on", crate::town::SOON, || town.get("http://web/"))?;
    Ok(())
}
