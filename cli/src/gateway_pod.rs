//! Finding the pod of a waypoint or gateway by whatever people call it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::output;
use crate::readiness::is_ready;
use crate::waypoint;

/// What was named: `[<kind>/]<name>[.<namespace>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    kind: Kind,
    name: String,
    namespace: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Deployment,
    Gateway,
    /// A pod of that name, else a Gateway, else a Deployment.
    Any,
}

impl Named {
    fn read(text: &str, default_namespace: &str) -> Result<Self> {
        let (kind, name) = match text.split_once('/') {
            None => (Kind::Any, text),
            Some(("pod" | "pods" | "po", name)) => (Kind::Pod, name),
            Some(("deployment" | "deployments" | "deploy", name)) => (Kind::Deployment, name),
            Some(("gateway" | "gateways" | "gtw" | "waypoint", name)) => (Kind::Gateway, name),
            Some((kind, _)) => {
                bail!("{text:?}: kind {kind:?} is not supported here, name a pod, a deployment or a gateway")
            }
        };
        let (name, namespace) = name.split_once('.').unwrap_or((name, default_namespace));
        ensure!(!name.is_empty() && !namespace.is_empty(), "{text:?}: expected [<kind>/]<name>[.<namespace>]");
        Ok(Self { kind, name: name.to_owned(), namespace: namespace.to_owned() })
    }
}

/// Whether `text` names a gateway by its kind, so that it cannot be a pod.
pub(crate) fn is_gateway(text: &str) -> bool {
    matches!(text.split_once('/'), Some(("gateway" | "gateways" | "gtw" | "waypoint", _)))
}

/// The pod that is meant; of several one that is ready. Without a target: the only Gateway of the namespace.
///
/// # Errors
/// Says what does not exist, and what does.
pub(crate) async fn find(client: &Client, default_namespace: &str, target: Option<&str>) -> Result<Pod> {
    let Some(target) = target else { return only(client, default_namespace).await };
    let named = Named::read(target, default_namespace)?;
    let Named { kind, name, namespace } = &named;
    if matches!(kind, Kind::Pod | Kind::Any) {
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        match pods.get_opt(name).await? {
            Some(pod) => return checked(pod),
            None if *kind == Kind::Pod => bail!("no pod {name} in namespace {namespace}"),
            None => {}
        }
    }
    if matches!(kind, Kind::Gateway | Kind::Any) {
        let pods = pods_of(client, namespace, name).await?;
        if !pods.is_empty() {
            return one_of(pods);
        }
    }
    if matches!(kind, Kind::Deployment | Kind::Any)
        && let Some(found) = Api::<Deployment>::namespaced(client.clone(), namespace).get_opt(name).await?
    {
        let labels = found.spec.and_then(|spec| spec.selector.match_labels).unwrap_or_default();
        let pods = list(client, namespace, &selector(&labels)).await?;
        ensure!(!pods.is_empty(), "deployment {name} in namespace {namespace} has no pods");
        return one_of(pods);
    }
    Err(missing(client, &named).await)
}

/// Pods of a Gateway, by the label that names it. Where its name is too long for a label, by the Deployment that it owns.
async fn pods_of(client: &Client, namespace: &str, gateway: &str) -> Result<Vec<Pod>> {
    if gateway.len() <= LABEL_MAX {
        return list(client, namespace, &format!("{GATEWAY_NAME}={gateway}")).await;
    }
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(GATEWAY_NAME);
    let all = deployments.list(&labelled).await.context("listing deployments of gateways")?.items;
    match all.into_iter().find(|one| is_owned(one, gateway)).and_then(|one| one.spec) {
        Some(spec) => list(client, namespace, &selector(&spec.selector.match_labels.unwrap_or_default())).await,
        None => Ok(Vec::new()),
    }
}

fn is_owned(deployment: &Deployment, gateway: &str) -> bool {
    deployment.owner_references().iter().any(|owner| owner.kind == "Gateway" && owner.name == gateway)
}

async fn only(client: &Client, namespace: &str) -> Result<Pod> {
    let pods = list(client, namespace, GATEWAY_NAME).await?;
    let gateways: BTreeMap<String, Vec<Pod>> = pods.into_iter().fold(BTreeMap::new(), |mut all, pod| {
        all.entry(pod.labels().get(GATEWAY_NAME).cloned().unwrap_or_default()).or_default().push(pod);
        all
    });
    match gateways.len() {
        0 => bail!("no pod of a waypoint or gateway in namespace {namespace}: name one, as <name>.<namespace>"),
        1 => one_of(gateways.into_values().next().unwrap_or_default()),
        _ => {
            let names: Vec<String> = gateways.into_keys().collect();
            bail!("namespace {namespace} has several gateways, name one of {}", names.join(", "))
        }
    }
}

/// Pods of ztunnel and of applications have no layer-7 configuration.
fn checked(pod: Pod) -> Result<Pod> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    if pod.labels().get("app").is_some_and(|app| app == "ztunnel") {
        bail!("{name}.{namespace} is a node proxy, which sees connections only: use 'meltemi ztunnel-config'");
    }
    let ours = pod.labels().contains_key(GATEWAY_NAME) || pod.labels().contains_key("gateway.istio.io/managed");
    ensure!(
        ours,
        "{name}.{namespace} is neither a waypoint nor a gateway (it has no label {GATEWAY_NAME}): \
         'meltemi waypoint list -n {namespace}' names those that exist"
    );
    Ok(pod)
}

fn one_of(mut pods: Vec<Pod>) -> Result<Pod> {
    pods.sort_by_key(|pod| (!is_ready(pod), pod.metadata.deletion_timestamp.is_some(), pod.name_any()));
    let count = pods.len();
    let pod = pods.into_iter().next().context("no pod")?;
    let name = format!("{}.{}", pod.name_any(), pod.namespace().unwrap_or_default());
    ensure!(is_ready(&pod), "none of {count} pods is ready; name one to ask it all the same, for example {name}");
    if count > 1 {
        output::note(format!("{name}, one of {count}; each has its own connections, breakers and ejected endpoints"));
    }
    checked(pod)
}

/// What does exist, for whoever mistyped.
async fn missing(client: &Client, named: &Named) -> anyhow::Error {
    let Named { kind, name, namespace } = named;
    let what = match kind {
        Kind::Deployment => "deployment",
        Kind::Gateway => "pod of a gateway",
        Kind::Any | Kind::Pod => "pod, gateway or deployment",
    };
    let error = format!("no {what} {name} in namespace {namespace}");
    match waypoint::names(client, namespace).await {
        Ok(names) if names.iter().any(|one| one == name) => anyhow::anyhow!(
            "gateway {namespace}/{name} has no pods yet: 'kubectl describe gateway {name} -n {namespace}' says why"
        ),
        Ok(names) if !names.is_empty() => anyhow::anyhow!("{error}; its gateways are {}", names.join(", ")),
        Ok(_) => anyhow::anyhow!("{error}, which has no gateways"),
        Err(_) => anyhow::anyhow!(error),
    }
}

async fn list(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default().labels(selector)).await.context("listing pods")?.items)
}

fn selector(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Names the Gateway that a pod is of.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Longest value of a label.
pub(crate) const LABEL_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    #[test]
    fn a_target_may_name_its_kind_and_namespace() {
        let read = |text: &str| Named::read(text, "demo").unwrap();
        let named = |kind, name: &str, namespace: &str| Named { kind, name: name.into(), namespace: namespace.into() };
        assert_eq!(read("waypoint"), named(Kind::Any, "waypoint", "demo"));
        assert_eq!(read("pod/waypoint-1.shop"), named(Kind::Pod, "waypoint-1", "shop"));
        assert_eq!(read("deploy/waypoint"), named(Kind::Deployment, "waypoint", "demo"));
        assert_eq!(read("gateway/edge.shop"), named(Kind::Gateway, "edge", "shop"));
        for wrong in ["service/x", "pod/", ".shop", "x."] {
            assert!(Named::read(wrong, "demo").is_err(), "{wrong}");
        }
        assert!(is_gateway("gateway/edge") && !is_gateway("edge") && !is_gateway("pod/edge"));
    }

    fn pod(labels: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.namespace = Some("demo".into());
        pod.metadata.labels = Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
        pod
    }

    #[test]
    fn a_gateway_whose_name_fits_no_label_is_found_by_what_it_owns() {
        let long = "x".repeat(64);
        let mut deployment = Deployment::default();
        assert!(!is_owned(&deployment, &long));
        let owner = |kind: &str| OwnerReference { kind: kind.into(), name: long.clone(), ..OwnerReference::default() };
        deployment.metadata.owner_references = Some(vec![owner("ReplicaSet")]);
        assert!(!is_owned(&deployment, &long));
        deployment.metadata.owner_references = Some(vec![owner("ReplicaSet"), owner("Gateway")]);
        assert!(is_owned(&deployment, &long) && !is_owned(&deployment, &"x".repeat(65)));
    }

    #[test]
    fn other_pods_are_told_where_to_look() {
        assert!(checked(pod(&[(GATEWAY_NAME, "waypoint")])).is_ok());
        let error = checked(pod(&[("app", "ztunnel")])).unwrap_err().to_string();
        assert!(error.contains("ztunnel-config"), "{error}");
        let error = checked(pod(&[("app", "web")])).unwrap_err().to_string();
        assert!(error.contains("neither a waypoint nor a gateway"), "{error}");
    }
}
