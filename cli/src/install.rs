//! `meltemi install`: renders the charts, applies them in order, waits until each component runs.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::charts::{self, COMPONENTS, Component, Overrides};
use crate::cluster::Cluster;
use crate::output;
use crate::progress::Progress;
use crate::readiness;

/// Installs the mesh into the cluster.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi install --skip-confirmation
  meltemi install --gateway-api               for waypoints, in a cluster without the Gateway API
  meltemi install --set istiod.replicas=2 --set ztunnel.logLevel=debug
  meltemi install --dry-run")]
pub struct Install {
    /// Profile; only `profile=ambient` exists. Otherwise `<chart>.<path>=<value>`. Repeatable.
    #[arg(long, short = 's')]
    pub set: Vec<String>,
    /// Do not ask.
    #[arg(long, short = 'y')]
    pub skip_confirmation: bool,
    /// Also the definitions of the Kubernetes Gateway API, which waypoints and gateways need, if the cluster has none;
    /// those that it has are never changed.
    #[arg(long)]
    pub gateway_api: bool,
    /// How long each component may take to become ready.
    #[arg(long, default_value = "300")]
    pub readiness_timeout: u64,
    /// Send everything to the API server for checking, change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl Install {
    /// Runs the command.
    ///
    /// # Errors
    /// Names the component and why it is not ready.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        let overrides = Overrides::parse(&chart_overrides(&self.set)?)?;
        let namespace = &cluster.istio_namespace;
        let rendered: Vec<(Component, Vec<Value>)> = COMPONENTS
            .iter()
            .map(|component| Ok((*component, charts::render(*component, namespace, &overrides)?)))
            .collect::<Result<_>>()?;
        let client = cluster.client().await?;
        let question = format!(
            "This will install Meltemi {} with profile \"ambient\" into namespace {namespace}.",
            env!("CARGO_PKG_VERSION")
        );
        output::confirm(&question, self.skip_confirmation || self.dry_run)?;
        let params = PatchParams { dry_run: self.dry_run, ..PatchParams::apply(FIELD_MANAGER).force() };
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply(&client, &space, namespace, &params).await?;
        if self.gateway_api {
            self.install_gateway_api(&client, &params).await?;
        }
        let timeout = Duration::from_secs(self.readiness_timeout);
        for (component, objects) in &rendered {
            let progress = Progress::start(component.title);
            let outcome = self.install_one(&client, namespace, objects, &params, timeout).await;
            match outcome {
                Ok(()) => progress.done(&format!("✔ {} installed", component.title)),
                Err(error) => {
                    progress.done(&format!("✘ {} encountered an error: {error:#}", component.title));
                    bail!("{} is not installed; mend the cause and run the same command again", component.title);
                }
            }
        }
        if self.dry_run {
            output::note("✔ Dry run complete: nothing was changed");
            return Ok(());
        }
        output::note("✔ Installation complete");
        output::note("The ambient profile is installed. Put a namespace into the mesh:");
        output::note("  kubectl label namespace <name> istio.io/dataplane-mode=ambient");
        output::note("and see who is in it:  meltemi ztunnel-config workloads");
        Ok(())
    }

    async fn install_gateway_api(&self, client: &Client, params: &PatchParams) -> Result<()> {
        let all = Api::<CustomResourceDefinition>::all(client.clone()).list_metadata(&ListParams::default()).await;
        let group = format!(".{}", mesh_api::gateway::GROUP);
        if all.context("listing definitions")?.items.iter().any(|one| one.name_any().ends_with(&group)) {
            output::note("✔ Gateway API: the cluster has definitions, which stay as they are");
            return Ok(());
        }
        for definition in charts::gateway_api()? {
            apply(client, &definition, "", params).await?;
        }
        output::note("✔ Gateway API installed");
        Ok(())
    }

    async fn install_one(
        &self,
        client: &Client,
        namespace: &str,
        objects: &[Value],
        params: &PatchParams,
        timeout: Duration,
    ) -> Result<()> {
        for object in objects {
            apply(client, object, namespace, params).await?;
        }
        if self.dry_run {
            return Ok(());
        }
        readiness::wait(client, namespace, objects, timeout).await
    }
}

/// Takes `profile=` out of the `--set` items and checks it.
fn chart_overrides(items: &[String]) -> Result<Vec<String>> {
    let mut rest = Vec::new();
    for item in items {
        match item.strip_prefix("profile=") {
            Some("ambient") => {}
            Some(other) => bail!("--set profile={other}: unknown profile, there is: ambient"),
            None => rest.push(item.clone()),
        }
    }
    Ok(rest)
}

/// Applies one object by server-side apply.
///
/// # Errors
/// Names the object and what the API server said.
pub async fn apply(client: &Client, object: &Value, default_namespace: &str, params: &PatchParams) -> Result<()> {
    let (api, name) = api_for(client, object, default_namespace).await?;
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let mut object = object.clone();
    if kind == "ValidatingWebhookConfiguration"
        && let Some(live) = api.get_opt(&name).await.with_context(|| format!("reading {kind} {name}"))?
    {
        keep_failure_policy(&mut object, &live.data);
    }
    api.patch(&name, params, &Patch::Apply(&object)).await.with_context(|| format!("applying {kind} {name}"))?;
    Ok(())
}

/// The control plane makes its webhooks strict once it answers: applying the chart again must not open them.
fn keep_failure_policy(object: &mut Value, live: &Value) {
    let strict: Vec<Value> = live
        .get("webhooks")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|hook| hook.get("failurePolicy").is_some_and(|policy| policy == "Fail"))
        .filter_map(|hook| hook.get("name").cloned())
        .collect();
    for hook in object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        if hook.get("name").is_some_and(|name| strict.contains(name))
            && let Some(fields) = hook.as_object_mut()
        {
            fields.insert("failurePolicy".to_owned(), "Fail".into());
        }
    }
}

/// The endpoint of an object's kind, and the object's name.
///
/// # Errors
/// When the object lacks a kind or name, or the cluster does not know the kind.
pub async fn api_for(client: &Client, object: &Value, default_namespace: &str) -> Result<(Api<DynamicObject>, String)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").context("an object lacks its kind")?;
    let version = text("/apiVersion").with_context(|| format!("a {kind} lacks its apiVersion"))?;
    let name = text("/metadata/name").with_context(|| format!("a {kind} lacks its name"))?;
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let (resource, scope) = resource(client, &gvk).await?;
    let api = match scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = text("/metadata/namespace").unwrap_or(default_namespace);
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    Ok((api, name.to_owned()))
}

/// A kind whose CRD was applied a moment ago may take a moment to be served.
async fn resource(client: &Client, gvk: &GroupVersionKind) -> Result<(ApiResource, Scope)> {
    let deadline = tokio::time::Instant::now() + DISCOVERY_TIMEOUT;
    loop {
        match pinned_kind(client, gvk).await {
            Ok((resource, capabilities)) => return Ok((resource, capabilities.scope)),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error)
                    .with_context(|| format!("the cluster does not serve {}/{} {}", gvk.group, gvk.version, gvk.kind));
            }
            Err(_) => tokio::time::sleep(DISCOVERY_POLL).await,
        }
    }
}

/// The manager that installers of this API have always used, so that an earlier installation is taken over.
pub const FIELD_MANAGER: &str = "istio-operator";
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
const DISCOVERY_POLL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_that_was_made_strict_stays_strict() {
        let hooks = |first: &str, second: &str| json!({"webhooks": [{"name": "a", "failurePolicy": first}, {"name": "b", "failurePolicy": second}]});
        let mut object = hooks("Ignore", "Ignore");
        keep_failure_policy(&mut object, &hooks("Fail", "Ignore"));
        assert_eq!(object, hooks("Fail", "Ignore"));
        keep_failure_policy(&mut object, &json!({}));
        assert_eq!(object, hooks("Fail", "Ignore"));
    }

    #[test]
    fn only_the_ambient_profile_is_accepted() {
        let set = |items: &[&str]| chart_overrides(&items.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(set(&["profile=ambient", "istiod.replicas=2"]).unwrap(), ["istiod.replicas=2"]);
        assert!(set(&["profile=demo"]).unwrap_err().to_string().contains("unknown profile"));
    }
}
