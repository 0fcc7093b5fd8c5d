//! `meltemi proxy-status`: which proxies are connected to the control plane, and whether they have what it last sent.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::control_plane;
use crate::output::{self, Format};
use crate::proxy;

/// Shows the proxies that are connected to the control plane.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi proxy-status
  meltemi proxy-status -v 1            one column a type: SYNCED, STALE or ERROR
  meltemi proxy-status -n istio-system -o json")]
pub struct ProxyStatus {
    /// One proxy: <pod>[.<namespace>].
    proxy: Option<String>,
    /// How to print.
    #[arg(long, short = 'o', default_value = "table")]
    output: Shape,
    /// 0: subscribed types; 1: the state of each type.
    #[arg(long, short = 'v', default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    verbosity: u8,
}

/// How the list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people.
    Table,
    /// For machines.
    Json,
    /// For machines, readable.
    Yaml,
}

/// A connected proxy.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    /// `<pod>.<namespace>`.
    name: String,
    cluster: String,
    istiod: String,
    version: String,
    types: Vec<(String, State)>,
    /// As the control plane tells it.
    source: Value,
}

/// How far a proxy is with one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It accepted what was sent last.
    Synced,
    /// It has not answered yet.
    Stale,
    /// It refused what was sent last.
    Error,
    /// Nothing was sent.
    NotSent,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
            Self::NotSent => "NOT SENT",
        }
    }
}

impl ProxyStatus {
    /// Runs the command.
    ///
    /// # Errors
    /// There is no control plane, or it cannot be reached.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        let client = cluster.client().await?;
        if let Some(target) = &self.proxy {
            return one(cluster, &client, target).await;
        }
        let mut rows = Vec::new();
        for pod in control_plane::pods(&client, &cluster.istio_namespace).await? {
            let name = pod.name_any();
            let answer = control_plane::get(&client, &pod, "/debug/syncz").await?;
            rows.extend(connections(&answer).map(|one| row(one, &name)));
        }
        if let Some(namespace) = &cluster.namespace {
            rows.retain(|row| row.name.rsplit_once('.').is_some_and(|(_, of)| of == namespace));
        }
        rows.sort_by(|a, b| (&a.name, &a.istiod).cmp(&(&b.name, &b.istiod)));
        let sources = || rows.iter().map(|row| row.source.clone()).collect::<Vec<_>>();
        match self.output {
            Shape::Json => output::machine(Format::Json, &sources()),
            Shape::Yaml => output::machine(Format::Yaml, &sources()),
            Shape::Table if self.verbosity == 0 => output::table(&HEADER, rows.iter().map(Row::summary).collect()),
            Shape::Table => {
                let (header, cells) = detailed(&rows);
                output::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), cells)
            }
        }
    }
}

/// A node proxy has one set of resources and no generated configuration to compare.
async fn one(cluster: &Cluster, client: &kube::Client, target: &str) -> Result<()> {
    let which = proxy::parse_target(target, &cluster.istio_namespace)?;
    let found = proxy::find(client, &cluster.istio_namespace, &which).await?;
    ensure!(found.about.is_none(), "{target}: not a proxy; 'meltemi proxy-status' lists them");
    let (name, namespace) = (found.proxy.name_any(), found.proxy.namespace().unwrap_or_default());
    output::line(format!(
        "{name}.{namespace} is a node proxy, whose configuration cannot be compared: see 'meltemi ztunnel-config all {name}.{namespace}'"
    ))
}

fn connections(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("connected").and_then(Value::as_array).into_iter().flatten()
}

fn row(connection: &Value, istiod: &str) -> Row {
    let text = |key: &str| connection.get(key).and_then(Value::as_str).unwrap_or_default();
    let id = text("proxy");
    // `<type>~<address>~<pod>.<namespace>~<domain>`
    let name = id.split('~').nth(2).filter(|name| !name.is_empty()).unwrap_or(id).to_owned();
    let types = connection.get("types").and_then(Value::as_array).into_iter().flatten();
    let mut types: Vec<_> = types.map(|one| (type_text(one, "typeUrl").to_owned(), state(one))).collect();
    types.sort_by(|a, b| a.0.cmp(&b.0));
    let mut source = connection.clone();
    if let Some(fields) = source.as_object_mut() {
        fields.insert("istiod".to_owned(), json!(istiod));
    }
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let (cluster, version) = (or_dash(text("cluster")), or_dash(text("version")));
    Row { name, cluster, istiod: istiod.to_owned(), version, types, source }
}

fn type_text<'a>(one: &'a Value, key: &str) -> &'a str {
    one.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn state(one: &Value) -> State {
    if one.get("lastError").is_some_and(|error| !error.is_null()) {
        return State::Error;
    }
    match (type_text(one, "nonceSent"), type_text(one, "nonceAcked")) {
        ("", _) => State::NotSent,
        (sent, acked) if sent == acked => State::Synced,
        _ => State::Stale,
    }
}

/// The usual abbreviation of a type.
fn short(type_url: &str) -> &str {
    match type_url.rsplit('/').next().unwrap_or_default() {
        "envoy.config.cluster.v3.Cluster" => "CDS",
        "envoy.config.listener.v3.Listener" => "LDS",
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => "EDS",
        "envoy.config.route.v3.RouteConfiguration" => "RDS",
        "envoy.extensions.transport_sockets.tls.v3.Secret" => "SDS",
        "envoy.config.core.v3.TypedExtensionConfig" => "ECDS",
        "istio.networking.nds.v1.NameTable" => "NDS",
        "istio.workload.Address" | "istio.workload.Workload" => "WDS",
        "istio.security.Authorization" => "WADS",
        "meltemi.l7.v1.Resource" => "L7",
        _ => type_url,
    }
}

impl Row {
    fn summary(&self) -> Vec<String> {
        let mut names: Vec<_> = self.types.iter().map(|(url, _)| short(url)).collect();
        names.sort_unstable();
        names.dedup();
        let types = match names.as_slice() {
            [] => "0".to_owned(),
            names => format!("{} ({})", names.len(), names.join(",")),
        };
        vec![self.name.clone(), self.cluster.clone(), self.istiod.clone(), self.version.clone(), types]
    }
}

/// One column a type: the usual ones always, others where some proxy asks for them.
fn detailed(rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut columns: Vec<&str> = ALWAYS.to_vec();
    let seen: std::collections::BTreeSet<_> = rows.iter().flat_map(|row| &row.types).map(|(url, _)| url).collect();
    for url in seen {
        if !columns.contains(&short(url)) {
            columns.push(short(url));
        }
    }
    let cell = |row: &Row, column: &str| {
        let state = row.types.iter().find(|(url, _)| short(url) == column).map(|(_, state)| *state);
        state.map_or("IGNORED", State::name).to_owned()
    };
    let cells = rows.iter().map(|row| {
        let mut cells = vec![row.name.clone(), row.cluster.clone()];
        cells.extend(columns.iter().map(|column| cell(row, column)));
        cells.extend([row.istiod.clone(), row.version.clone()]);
        cells
    });
    let cells = cells.collect();
    let header = ["NAME", "CLUSTER"].into_iter().chain(columns).chain(["ISTIOD", "VERSION"]);
    (header.map(str::to_owned).collect(), cells)
}

const HEADER: [&str; 5] = ["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"];
/// Types that always have a column.
const ALWAYS: [&str; 5] = ["CDS", "LDS", "EDS", "RDS", "ECDS"];

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Value {
        json!({
            "proxy": "ztunnel~10.244.1.2~ztunnel-x7k.istio-system~cluster.local", "cluster": "Kubernetes", "version": "",
            "types": [
                {"typeUrl": "type.googleapis.com/istio.workload.Address", "nonceSent": "n2", "nonceAcked": "n1"},
                {"typeUrl": "type.googleapis.com/istio.security.Authorization", "nonceSent": "n1", "nonceAcked": "n1"},
            ],
        })
    }

    #[test]
    fn a_node_proxy_is_named_by_its_pod_with_the_types_it_asks_for() {
        let row = row(&connection(), "istiod-1");
        assert_eq!(row.summary(), ["ztunnel-x7k.istio-system", "Kubernetes", "istiod-1", "-", "2 (WADS,WDS)"]);
    }

    #[test]
    fn details_show_the_state_of_each_type() {
        let mut broken = connection();
        broken["types"][1]["lastError"] = "bad".into();
        let rows = [row(&connection(), "istiod-1"), row(&broken, "istiod-1")];
        let (header, cells) = detailed(&rows);
        let column = |name: &str| header.iter().position(|one| one == name).unwrap();
        assert_eq!(cells[0][column("WDS")], "STALE");
        assert_eq!((cells[0][column("WADS")].as_str(), cells[1][column("WADS")].as_str()), ("SYNCED", "ERROR"));
        assert_eq!(cells[0][column("CDS")], "IGNORED");
    }
}
