//! `meltemi waypoint`: the life cycle of layer-7 proxies inside the mesh.

mod apply;
mod delete;
mod list;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use mesh_api::labels;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::gateway_pod::LABEL_MAX;
use crate::output::{self, Format};

/// Adds, lists and removes waypoints: the layer-7 proxies of a namespace or a service.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi waypoint apply -n demo --enroll-namespace --wait     a waypoint for every service of the namespace
  meltemi waypoint apply -n demo --name pods --for workload    one for calls to pod addresses
  meltemi waypoint list -A
  meltemi waypoint status -n demo                              waits until they are ready
  meltemi waypoint delete waypoint -n demo")]
pub struct Waypoint {
    /// Name of the waypoint.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the Gateway of a waypoint without applying it.
    Generate(Shape),
    /// Create a waypoint, or change it.
    Apply(apply::Apply),
    /// Remove waypoints.
    Delete(delete::Delete),
    /// List waypoints.
    List(list::List),
    /// Show whether waypoints are ready, and wait until they are.
    Status(list::Status),
}

/// What a waypoint is for.
#[derive(Debug, Args)]
struct Shape {
    /// Which traffic passes it: calls to services, to workloads, to both, or none.
    #[arg(long = "for")]
    traffic: Option<Traffic>,
    /// Revision of the control plane that owns it.
    #[arg(long, short = 'r')]
    revision: Option<String>,
}

/// Values of the label `istio.io/waypoint-for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Traffic {
    /// Calls to service addresses.
    Service,
    /// Calls to pod addresses.
    Workload,
    /// Both.
    All,
    /// None.
    None,
}

impl Waypoint {
    /// Runs the command.
    ///
    /// # Errors
    /// Each says what to do about it.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        let name = if self.name.is_empty() { DEFAULT_NAME } else { self.name.as_str() };
        ensure!(name != "none", "--name none: the name is reserved, it means no waypoint; choose another");
        match self.command {
            Command::Generate(_) | Command::Apply(_) => can_be_named(name)?,
            Command::Delete(_) | Command::List(_) | Command::Status(_) => {}
        }
        match self.command {
            Command::Generate(shape) => {
                output::machine(Format::Yaml, &gateway(cluster.namespace.as_deref(), name, &shape))
            }
            Command::Apply(apply) => apply.run(cluster, name).await,
            Command::Delete(delete) => delete.run(cluster).await,
            Command::List(list) => list.run(cluster).await,
            Command::Status(status) => status.run(cluster).await,
        }
    }
}

impl Traffic {
    fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// Whether services and namespaces can ask for a waypoint of that name.
fn can_be_named(name: &str) -> Result<()> {
    let length = name.len();
    ensure!(
        length <= LABEL_MAX,
        "--name {name}: {length} characters are too many, the label {} that names a waypoint takes {LABEL_MAX}; choose a \
         shorter name",
        labels::USE_WAYPOINT
    );
    Ok(())
}

/// The Gateway that makes a waypoint.
fn gateway(namespace: Option<&str>, name: &str, shape: &Shape) -> Value {
    let mut wanted = serde_json::Map::new();
    if let Some(traffic) = shape.traffic {
        wanted.insert(labels::WAYPOINT_FOR.to_owned(), traffic.label().into());
    }
    if let Some(revision) = &shape.revision {
        wanted.insert(labels::REVISION.to_owned(), revision.as_str().into());
    }
    let mut metadata = serde_json::Map::from_iter([("name".to_owned(), name.into())]);
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    if !wanted.is_empty() {
        metadata.insert("labels".to_owned(), wanted.into());
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {
            "gatewayClassName": labels::WAYPOINT_CLASS,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    })
}

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(mesh_api::gateway::GROUP, "v1", "Gateway"), "gateways")
}

fn gateways(client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource()),
        None => Api::all_with(client.clone(), &resource()),
    }
}

/// All Gateways, of every class, in a namespace or everywhere.
async fn all(client: &Client, namespace: Option<&str>) -> Result<Vec<DynamicObject>> {
    let listed = gateways(client, namespace).list(&ListParams::default()).await;
    let mut found = match listed {
        Ok(list) => list.items,
        Err(error) => return Err(explained(error)),
    };
    found.sort_by_key(|one| (one.namespace(), one.name_any()));
    Ok(found)
}

/// Names of the Gateways of a namespace, of every class.
///
/// # Errors
/// As for any list.
pub(crate) async fn names(client: &Client, namespace: &str) -> Result<Vec<String>> {
    Ok(all(client, Some(namespace)).await?.iter().map(ResourceExt::name_any).collect())
}

/// A missing definition is the mistake that everybody makes once.
fn explained(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if status.code == 404 && !status.message.contains(" not found") => {
            anyhow::anyhow!(
                "the cluster has no Kubernetes Gateway API: its definitions must be installed first, \
                 'meltemi install --gateway-api' does it, or 'kubectl apply --server-side -f deploy/crds/gateway-api'"
            )
        }
        _ => anyhow::Error::new(error).context("asking for Gateways"),
    }
}

fn is_waypoint(gateway: &DynamicObject) -> bool {
    gateway.data.pointer("/spec/gatewayClassName").and_then(Value::as_str) == Some(labels::WAYPOINT_CLASS)
}

/// The condition that says whether a waypoint takes traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Programmed {
    status: String,
    kind: String,
    reason: String,
    message: String,
}

impl Programmed {
    fn of(gateway: &DynamicObject) -> Self {
        let conditions = gateway.data.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|one| text(one, "type") == PROGRAMMED);
        match found {
            Some(one) => Self {
                status: text(one, "status").to_owned(),
                kind: PROGRAMMED.to_owned(),
                reason: text(one, "reason").to_owned(),
                message: text(one, "message").to_owned(),
            },
            None => Self {
                status: "False".to_owned(),
                kind: PROGRAMMED.to_owned(),
                reason: "Pending".to_owned(),
                message: "no controller has looked at it yet".to_owned(),
            },
        }
    }

    fn is_true(&self) -> bool {
        self.status == "True"
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Waits until all of these waypoints are programmed.
async fn wait(client: &Client, names: &[(String, String)], budget: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + budget;
    loop {
        let mut waiting = Vec::new();
        for (namespace, name) in names {
            let found = gateways(client, Some(namespace)).get_opt(name).await.map_err(explained)?;
            let found = found.with_context(|| format!("waypoint {namespace}/{name} is gone"))?;
            let programmed = Programmed::of(&found);
            if !programmed.is_true() {
                waiting.push(format!("{namespace}/{name}: {} {}", programmed.reason, programmed.message));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "after {}s not ready: {}\nSee 'kubectl describe gateway' and 'kubectl get pods -l gateway.networking.k8s.io/gateway-name'",
                budget.as_secs(),
                waiting.join("; ")
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

const DEFAULT_NAME: &str = "waypoint";
const API_VERSION: &str = "gateway.networking.k8s.io/v1";
const PROGRAMMED: &str = "Programmed";
/// How often the cluster is asked.
const POLL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_only_when_asked_for() {
        let bare = gateway(None, "waypoint", &Shape { traffic: None, revision: None });
        assert_eq!(bare["metadata"], json!({"name": "waypoint"}));
        assert_eq!(bare["spec"]["gatewayClassName"], "istio-waypoint");
        assert_eq!(bare["spec"]["listeners"], json!([{"name": "mesh", "port": 15008, "protocol": "HBONE"}]));
        let shape = Shape { traffic: Some(Traffic::All), revision: Some("next".to_owned()) };
        let full = gateway(Some("shop"), "gate", &shape);
        assert_eq!(
            full["metadata"],
            json!({"name": "gate", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all", "istio.io/rev": "next"}})
        );
    }

    #[test]
    fn a_waypoint_that_no_label_can_name_is_not_made() {
        assert!(can_be_named(&"x".repeat(63)).is_ok());
        let error = can_be_named(&"x".repeat(64)).unwrap_err().to_string();
        assert!(error.contains("64 characters") && error.contains("istio.io/use-waypoint"), "{error}");
    }

    #[test]
    fn a_gateway_without_condition_is_not_ready() {
        let mut object =
            DynamicObject::new("w", &resource()).data(json!({"spec": {"gatewayClassName": labels::WAYPOINT_CLASS}}));
        assert!(is_waypoint(&object));
        assert!(!Programmed::of(&object).is_true());
        object.data =
            json!({"status": {"conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed"}]}});
        assert!(Programmed::of(&object).is_true());
        assert!(!is_waypoint(&object));
    }
}
