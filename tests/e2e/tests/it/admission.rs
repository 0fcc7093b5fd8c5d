//! The API server asks the control plane before it stores an object of the mesh.

use anyhow::{Result, ensure};
use tests_support::eventually;

use crate::town::{SOON, Town};

const DEFAULT: &str = "validatingwebhookconfiguration/istiod-default-validator";
const OWN: &str = "validatingwebhookconfiguration/istio-validator-istio-system";

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: town}}\nspec: {spec}\n"
    )
}

/// What neither schema nor rules of the definition can say.
const BAD: &str = "{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}";
const GOOD: &str = "{action: DENY, rules: [{from: [{source: {ipBlocks: [203.0.113.0/24]}}]}]}";

fn strict(town: &Town, what: &str) -> Result<()> {
    eventually(what, SOON, || {
        for configuration in [DEFAULT, OWN] {
            let policy = town.lab.field("", configuration, ".webhooks[0].failurePolicy")?;
            ensure!(policy == "Fail", "{configuration}: failurePolicy {policy:?}");
            let bundle = town.lab.field("", configuration, ".webhooks[0].clientConfig.caBundle")?;
            ensure!(bundle.len() > 500, "{configuration}: caBundle {bundle:?}");
        }
        Ok(())
    })
}

#[test]
fn what_the_schema_cannot_see_is_rejected_or_warned_about_by_the_webhook() -> Result<()> {
    let town = Town::found()?;
    strict(&town, "both configurations are strict once the webhook answers")?;
    let ended = town.lab.kubectl_raw(&["apply", "-f", "-"], &policy(BAD))?;
    let said = ended.failed()?;
    for part in
        ["denied the request", "spec.rules[0].from[0].source.ipBlocks[0]", "10.0.0.0/33", "expected an IP address"]
    {
        ensure!(said.contains(part), "{part:?} is missing in: {said}");
    }
    let dry = town.lab.kubectl_raw(&["apply", "--dry-run=server", "-f", "-"], &policy(BAD))?.failed()?;
    ensure!(dry.contains("denied the request"), "{dry}");
    town.lab.apply(&policy(GOOD))?;
    // An update is judged as a new object is; what is rejected leaves the last good state.
    let said = town.lab.kubectl_raw(&["apply", "-f", "-"], &policy(BAD))?.failed()?;
    ensure!(said.contains("denied the request"), "{said}");
    let kept = town.lab.field("town", "authorizationpolicy/p", ".spec.rules[0].from[0].source.ipBlocks[0]")?;
    ensure!(kept == "203.0.113.0/24", "{kept}");
    town.lab.kubectl(&["delete", "-n", "town", "authorizationpolicy", "p"])?;

    let lenient = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: open, namespace: town}\nspec: {mtls: {mode: DISABLE}}\n";
    let ended = town.lab.kubectl_raw(&["apply", "-f", "-"], lenient)?;
    ensure!(ended.code == 0 && ended.stderr.contains("Warning"), "{} {}", ended.stdout, ended.stderr);
    ensure!(ended.stderr.contains("mode DISABLE is PERMISSIVE in ambient"), "{}", ended.stderr);

    // Somebody opens it: it is closed again, and installing once more leaves it closed.
    for configuration in [DEFAULT, OWN] {
        let edit = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"},{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]"#;
        town.lab.kubectl(&["patch", configuration, "--type=json", "-p", edit])?;
    }
    strict(&town, "an edit is undone")?;
    town.lab.install()?;
    for configuration in [DEFAULT, OWN] {
        let policy = town.lab.field("", configuration, ".webhooks[0].failurePolicy")?;
        ensure!(policy == "Fail", "{configuration} after a second installation: {policy:?}");
    }
    Ok(())
}
