//! Plain kubectl works against the sandbox.

use anyhow::{Result, ensure};
use tests_support::Lab;

#[test]
fn kubectl_works_as_against_a_cluster() -> Result<()> {
    let lab = Lab::up()?;
    let ok = |args: &[&str]| lab.kubectl(args);
    lab.apply(include_str!("../../../demo/manifests/apps.yaml"))?;
    ensure!(lab.apply(include_str!("../../../demo/manifests/apps.yaml"))?.contains("unchanged"));
    ok(&["rollout", "status", "-n", "demo", "deploy/web", "--timeout=20s"])?;
    ok(&["wait", "-n", "demo", "deploy/web", "--for=condition=Available", "--timeout=10s"])?;
    let wide = ok(&["get", "pods", "-n", "demo", "-o", "wide"])?;
    ensure!(wide.contains("NODE") && wide.contains("node-2") && wide.contains("1/1"), "{wide}");
    ensure!(ok(&["get", "deploy", "web", "-n", "demo", "-o", "yaml"])?.contains("kind: Deployment"));
    ensure!(ok(&["get", "svc", "web", "-n", "demo", "-o", "jsonpath={.spec.ports[0].port}"])? == "80");
    ok(&["label", "ns", "demo", "a=b"])?;
    ensure!(ok(&["get", "ns", "-l", "a=b", "-o", "name"])?.trim() == "namespace/demo");
    ok(&["label", "ns", "demo", "a-"])?;
    ok(&["annotate", "deploy/web", "-n", "demo", "note=hello"])?;
    ok(&[
        "patch",
        "deploy/web",
        "-n",
        "demo",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#,
    ])?;
    ok(&["patch", "deploy/web", "-n", "demo", "--type=merge", "-p", r#"{"spec":{"replicas":1}}"#])?;
    ok(&[
        "patch",
        "deploy/web",
        "-n",
        "demo",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"X","value":"1"}]}]}}}}"#,
    ])?;
    let env =
        ok(&["get", "deploy/web", "-n", "demo", "-o", "jsonpath={.spec.template.spec.containers[0].env[*].name}"])?;
    ensure!(env.contains("POD_NAME") && env.contains('X'), "a strategic patch merges by name, found {env}");
    ok(&["rollout", "status", "-n", "demo", "deploy/web", "--timeout=20s"])?;
    ok(&["exec", "-n", "demo", "deploy/sleep", "--", "load", "get", "http://web/"])?;
    let failed = lab.exec("demo", "deploy/sleep", &["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!((failed.code, failed.stdout.trim()) == (7, "out") && failed.stderr.contains("err"), "{failed:?}");
    ok(&["logs", "-n", "demo", "deploy/web"])?;
    let kinds = ok(&["api-resources"])?;
    for kind in ["deployments", "endpointslices", "leases", "customresourcedefinitions"] {
        ensure!(kinds.contains(kind), "{kind} is missing in {kinds}");
    }
    ok(&["delete", "ns", "demo", "--timeout=30s"])?;
    let gone = lab.kubectl_raw(&["get", "ns", "demo"], "")?.failed()?;
    ensure!(gone.contains("not found"), "{gone}");
    Ok(())
}
