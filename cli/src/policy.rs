//! `meltemi policy simulate`: which connections a policy would allow or refuse, before it is applied.
//!
//! The control plane computes the answer with the functions that translate and evaluate real policies, on the objects
//! that it has right now.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::control_plane;
use crate::output::{self, Format};
use crate::proxy;

/// Works with policies.
#[derive(Debug, Args)]
pub struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Which connections would be decided otherwise.
    Simulate(Simulate),
}

/// Compares the mesh as it is with the mesh as it would be.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi policy simulate -f policy.yaml                     every pair of workloads
  meltemi policy simulate -f policy.yaml --connections       the connections that are open right now
  meltemi policy simulate --delete AuthorizationPolicy/old -n demo
  meltemi policy simulate -f policy.yaml --exit-code         for a pipeline: fails if something would be refused")]
struct Simulate {
    /// File with AuthorizationPolicies and PeerAuthentications; `-` reads standard input.
    #[arg(long, short = 'f')]
    file: Vec<PathBuf>,
    /// A policy that would be deleted: <kind>/<name>[.<namespace>].
    #[arg(long)]
    delete: Vec<String>,
    /// Compare the open connections of all node proxies instead of pairs of workloads.
    #[arg(long)]
    connections: bool,
    /// Fail when a connection that is allowed now would be refused.
    #[arg(long)]
    exit_code: bool,
    /// Port of the node proxies that is asked for connections.
    #[arg(long, default_value_t = 15000)]
    proxy_admin_port: u16,
    /// How to print.
    #[arg(long, short = 'o', default_value = "short")]
    output: Format,
}

impl Policy {
    /// Runs the command.
    ///
    /// # Errors
    /// Says which object cannot be read, or that the control plane does not answer.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        let Command::Simulate(simulate) = self.command;
        simulate.run(cluster).await
    }
}

impl Simulate {
    async fn run(self, cluster: &Cluster) -> Result<()> {
        ensure!(
            !self.file.is_empty() || !self.delete.is_empty(),
            "nothing to simulate: name a file with -f, or a policy with --delete"
        );
        let client = cluster.client().await?;
        let namespace = cluster.namespace_or(&client);
        let mut objects = Vec::new();
        for path in &self.file {
            objects.extend(read(path, namespace)?);
        }
        let deleted = self.delete.iter().map(|one| target(one, namespace)).collect::<Result<Vec<_>>>()?;
        let mut connections = Vec::new();
        if self.connections {
            connections = recorded(&client, cluster, self.proxy_admin_port).await?;
            ensure!(
                !connections.is_empty(),
                "no open connections between workloads; leave --connections out to compare pairs"
            );
        }
        let request = json!({"apply": objects, "delete": deleted, "connections": connections});
        let pod = control_plane::any(&client, &cluster.istio_namespace).await?;
        let answer = control_plane::post(&client, &pod, "/debug/simulate", &request).await?;
        if self.output == Format::Short {
            render(&answer)?;
        } else {
            output::machine(self.output, &answer)?;
        }
        let refused = number(&answer, "refused");
        ensure!(!self.exit_code || refused == 0, "{refused} connections that are allowed now would be refused");
        Ok(())
    }
}

/// Every document of a file, in the namespace to work in unless it names one.
fn read(path: &Path, namespace: &str) -> Result<Vec<Value>> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).context("reading standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("{shown} is not YAML"))?;
    let mut objects = Vec::new();
    for mut document in documents.into_iter().filter(|document| !document.is_null()) {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !KINDS.contains(&kind.as_str()) {
            bail!("{shown}: kind {kind:?} cannot be simulated, expected one of {}", KINDS.join(", "));
        }
        let metadata = document.get_mut("metadata").and_then(Value::as_object_mut);
        let metadata = metadata.with_context(|| format!("{shown}: {kind} without metadata.name"))?;
        metadata.entry("namespace").or_insert_with(|| namespace.into());
        objects.push(document);
    }
    Ok(objects)
}

/// Reads `<kind>/<name>[.<namespace>]`.
fn target(text: &str, namespace: &str) -> Result<Value> {
    let expected =
        || format!("{text:?}: expected <kind>/<name>[.<namespace>], for example AuthorizationPolicy/old.demo");
    let (kind, name) = text.split_once('/').with_context(expected)?;
    let (name, namespace) = name.split_once('.').unwrap_or((name, namespace));
    let known = KINDS.into_iter().find(|known| known.eq_ignore_ascii_case(kind));
    let kind = known.with_context(|| format!("{text:?}: kind {kind:?} is not one of {}", KINDS.join(", ")))?;
    ensure!(!name.is_empty(), expected());
    Ok(json!({"kind": kind, "namespace": namespace, "name": name}))
}

/// Connections that node proxies let in and that are open right now.
async fn recorded(client: &Client, cluster: &Cluster, port: u16) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for pod in proxy::all(client, &cluster.istio_namespace).await? {
        let answer = proxy::get_json(client, &pod, port, "/debug/connections").await;
        let answer = answer.with_context(|| format!("asking {} for its connections", pod.name_any()))?;
        let open = answer.get("connections").and_then(Value::as_array).into_iter().flatten();
        let text = |one: &Value, pointer: &str| one.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        all.extend(open.filter(|one| text(one, "/direction").as_deref() == Some("inbound")).map(|one| {
            let target = text(one, "/hboneAddr").filter(|addr| addr.parse::<std::net::SocketAddr>().is_ok());
            json!({
                "source": text(one, "/source/identity"),
                "sourceAddress": text(one, "/src"),
                "destination": target.or_else(|| text(one, "/dst")),
            })
        }));
    }
    Ok(all)
}

fn number(answer: &Value, key: &str) -> u64 {
    answer.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn render(answer: &Value) -> Result<()> {
    let list = |key: &str| answer.get(key).and_then(Value::as_array).into_iter().flatten();
    for note in list("notes").filter_map(Value::as_str) {
        output::note(format!("note: {note}"));
    }
    let rows: Vec<_> = list("changes").map(cells).collect();
    if !rows.is_empty() {
        output::table(&HEADER, rows)?;
    }
    let (compared, refused, allowed) =
        (number(answer, "compared"), number(answer, "refused"), number(answer, "allowed"));
    let more = number(answer, "left_off");
    output::line(format!("{compared} compared: {refused} would be refused, {allowed} would be allowed"))?;
    if more > 0 {
        output::note(format!("{more} more changes are not shown"));
    }
    Ok(())
}

fn cells(change: &Value) -> Vec<String> {
    let text = |pointer: &str| change.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let verdict = if change.pointer("/after/allowed") == Some(&Value::Bool(true)) { "ALLOW" } else { "REFUSE" };
    let port = change.get("port").and_then(Value::as_u64).map_or("any".to_owned(), |port| port.to_string());
    vec![verdict.to_owned(), text("/source"), text("/destination"), port, text("/after/reason")]
}

const HEADER: [&str; 5] = ["BECOMES", "SOURCE", "DESTINATION", "PORT", "WHY"];
const KINDS: [&str; 2] = ["AuthorizationPolicy", "PeerAuthentication"];
/// More than any policy.
const FILE_BYTES_MAX: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_get_the_namespace_to_work_in() {
        let file = std::env::temp_dir().join(format!("meltemi-policy-{}.yaml", std::process::id()));
        std::fs::write(
            &file,
            "kind: AuthorizationPolicy\nmetadata: {name: a}\n---\n---\nkind: PeerAuthentication\nmetadata: {name: b, namespace: c}\n",
        )
        .unwrap();
        let objects = read(&file, "demo");
        std::fs::write(&file, "kind: Pod\nmetadata: {name: a}\n").unwrap();
        let other = read(&file, "demo");
        std::fs::remove_file(&file).unwrap();
        let namespaces: Vec<_> = objects.unwrap().iter().map(|one| one["metadata"]["namespace"].clone()).collect();
        assert_eq!(namespaces, ["demo", "c"]);
        assert!(other.unwrap_err().to_string().contains("kind \"Pod\" cannot be simulated"));
    }

    #[test]
    fn a_deleted_policy_is_named_with_its_kind() {
        let found = target("authorizationpolicy/old", "demo").unwrap();
        assert_eq!(found, json!({"kind": "AuthorizationPolicy", "namespace": "demo", "name": "old"}));
        assert_eq!(target("PeerAuthentication/x.shop", "demo").unwrap()["namespace"], "shop");
        assert!(target("old", "demo").unwrap_err().to_string().contains("expected <kind>/<name>"));
        assert!(target("Service/old", "demo").unwrap_err().to_string().contains("is not one of"));
    }

    #[test]
    fn a_change_is_one_line() {
        let change = json!({"source": "demo/sleep", "destination": "web.demo", "port": 8080,
            "before": {"allowed": true}, "after": {"allowed": false, "reason": "explicitly denied by policy demo/p rule 0"}});
        assert_eq!(
            cells(&change),
            ["REFUSE", "demo/sleep", "web.demo", "8080", "explicitly denied by policy demo/p rule 0"]
        );
    }
}
