//! Bad input gets an error that names field and value, and everything else keeps working.

use anyhow::{Result, ensure};
use tests_support::eventually;

use crate::town::{SOON, Town};

fn refused(town: &Town, yaml: &str, parts: &[&str]) -> Result<()> {
    let said = town.lab.kubectl_raw(&["apply", "-f", "-"], yaml)?.failed()?;
    for part in parts {
        ensure!(said.contains(part), "{part:?} is missing in: {said}");
    }
    Ok(())
}

#[test]
fn bad_objects_and_bad_peers_are_named_and_harm_nobody() -> Result<()> {
    let town = Town::found()?;
    refused(&town, "a: [1\nb: }", &["error"])?;
    refused(&town, "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n", &["Nonsense"])?;
    refused(
        &town,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: town, labels: {a: 'not a label!'}}\n",
        &["metadata.labels", "not a label!"],
    )?;
    let broken = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: broken, namespace: town}\nspec: {action: FORBID}\n";
    refused(&town, broken, &["spec.action", "FORBID"])?;
    let broken = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: broken, namespace: town}\nspec: {rules: [{from: [{source: {principalz: [a]}}]}]}\n";
    refused(&town, broken, &["principalz"])?;

    // Peers that do not speak HBONE: refused at 15008 of a real pod, while the pod keeps serving.
    let web = town.ipv4("town", &town.pod("town", "app=web")?)?;
    let stranger = town.pod("outside", "app=stranger")?;
    for garbage in ["head -c 4096 /dev/urandom", "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'", "true"] {
        let script =
            format!("exec 3<>/dev/tcp/{web}/15008 && {{ {garbage}; }} >&3; timeout 5 cat <&3 | head -c 64 | wc -c");
        let ended = town.lab.exec("outside", &stranger, &["bash", "-c", &script])?;
        ensure!(!ended.stdout.contains("HTTP/1.1 200"), "garbage was answered: {}", ended.stdout);
        town.get("http://web/")?;
    }
    town.proxy_says("node-2", "the refusal is logged", |line| line.contains("15008") && line.contains("error"))?;

    // A CNI call with a broken configuration answers with a CNI error and touches nothing.
    let call = "cd / && printf '{\"cniVersion\":\"9.9.9\"' | CNI_COMMAND=ADD CNI_CONTAINERID=x CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/istio-cni";
    let ended = town.lab.sandbox(&["node-exec", "node-1", "--", "sh", "-c", call])?;
    ensure!(ended.code != 0, "a broken CNI configuration was accepted");
    ensure!(ended.stdout.contains("\"code\""), "no CNI error on standard output: {} {}", ended.stdout, ended.stderr);
    eventually("and everything still works", SOON, || town.get("http://web/"))?;
    Ok(())
}
