//! Authorization: who may call whom, and how a refusal explains itself.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests_support::eventually;
use tests_support::run::kubectl;

use crate::town::{SOON, Town};

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: town}}\nspec: {spec}\n"
    )
}

#[test]
fn a_refusal_names_who_whom_which_rule_and_what_would_allow_it() -> Result<()> {
    let town = Town::found()?;
    let deny = r#"{selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {principals: ["cluster.local/ns/town/sa/client"]}}]}]}"#;
    town.lab.apply(&policy("no-client", deny))?;
    let said = eventually("the client is refused", SOON, || town.refused("http://web/"))?;
    ensure!(!said.contains("timed out"), "a refusal is quick, but: {said}");
    let line = town.proxy_says("node-2", "the refusal is logged", |line| line.contains("town/no-client"))?;
    for part in ["spiffe://cluster.local/ns/town/sa/client", "spiffe://cluster.local/ns/town/sa/web"] {
        ensure!(line.contains(part), "{part} is missing in {line}");
    }
    let client = town.pod("town", "app=client")?;
    let explained = town.lab.meltemi(&["explain", &format!("{client}.town"), "web.town:80"])?.ok()?;
    for part in ["REFUSED", "town/no-client", "to allow it"] {
        ensure!(explained.contains(part), "{part} is missing in {explained}");
    }
    // The policy says in its status that it is enforced.
    let path = r#".status.conditions[?(@.type=="ZtunnelAccepted")].status"#;
    eventually("the status says accepted", SOON, || {
        let status = town.lab.field("town", "authorizationpolicy/no-client", path)?;
        ensure!(status == "True", "ZtunnelAccepted is {status:?}");
        Ok(())
    })?;
    town.lab.kubectl(&["delete", "authorizationpolicy", "no-client", "-n", "town"])?;
    eventually("the client may call again", SOON, || town.get("http://web/"))?;
    Ok(())
}

#[test]
fn allow_rules_open_exactly_what_they_say() -> Result<()> {
    let town = Town::found()?;
    town.lab.apply(&policy("nothing", "{}"))?;
    eventually("an empty policy refuses everything", SOON, || town.refused("http://web/"))?;

    let by_principal = r#"{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {principals: ["cluster.local/ns/town/sa/client"]}}], to: [{operation: {ports: ["8080"]}}]}]}"#;
    town.lab.apply(&policy("client-http", by_principal))?;
    eventually("the named client may call the named port", SOON, || town.get("http://web/"))?;
    let other_port = town.lab.exec("town", "deploy/client", &["load", "half-close", "web:9000"])?;
    ensure!(!other_port.stdout.contains("half-closed"), "port 9000 was not allowed, but answered");
    let stranger = town.pod("outside", "app=stranger")?;
    town.lab.exec("outside", &stranger, &["load", "get", "http://web.town/", "--timeout", "2"])?.failed()?;

    let by_namespace = r#"{rules: [{from: [{source: {namespaces: ["town"]}}]}]}"#;
    town.lab.apply(&policy("client-http", by_namespace))?;
    eventually("the namespace may call every port", SOON, || {
        let said = town.check(&["half-close", "web:9000"])?;
        ensure!(said.contains("half-closed"), "{said:?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_live_connection_is_closed_within_a_second_of_a_policy_that_denies_it() -> Result<()> {
    let town = Town::found()?;
    // A connection that stays open: the mirror waits for more.
    let mut child = Command::new(kubectl().context("kubectl")?)
        .args(["exec", "-i", "-n", "town", "deploy/client", "--", "bash", "-c"])
        .arg("exec 3<>/dev/tcp/web/9000 && echo one >&3 && read -r line <&3 && echo got $line && cat <&3; echo closed")
        .env("KUBECONFIG", town.lab.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("output")?));
    let first = lines.next().context("no answer")??;
    ensure!(first == "got one", "the connection answered {first:?}");
    let deny = r#"{action: DENY, rules: [{from: [{source: {principals: ["cluster.local/ns/town/sa/client"]}}]}]}"#;
    town.lab.apply(&policy("no-client", deny))?;
    let applied = Instant::now();
    let closed = lines.next().context("no end")??;
    let took = applied.elapsed();
    child.wait()?;
    ensure!(closed == "closed", "after the policy came {closed:?}");
    ensure!(took < Duration::from_millis(1500), "the connection was closed after {took:?}");
    town.proxy_says("node-2", "the log says why", |line| line.contains("policy") && line.contains("town/no-client"))?;
    Ok(())
}
