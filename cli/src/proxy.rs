//! Reaching node proxies: which pod, and its admin port through the API server.

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::readiness::is_ready;

/// Which node proxy is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Any; the first that is ready.
    Any,
    /// The one on this node.
    Node(String),
    /// This very pod, or the proxy of this pod's node.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A node proxy, and the pod that was asked about when that is another.
#[derive(Debug)]
pub struct Found {
    /// The node proxy's pod.
    pub proxy: Pod,
    /// The pod that [`Which::Pod`] named, unless it is the proxy itself.
    pub about: Option<Pod>,
}

/// Every node proxy, by name.
///
/// # Errors
/// When the API server does not answer, or there is none.
pub async fn all(client: &Client, system_namespace: &str) -> Result<Vec<Pod>> {
    let api = Api::<Pod>::namespaced(client.clone(), system_namespace);
    let mut pods = api.list(&ListParams::default().labels(SELECTOR)).await.context("listing node proxies")?.items;
    ensure!(
        !pods.is_empty(),
        "no pods with label {SELECTOR} in namespace {system_namespace}: is the mesh installed? ('meltemi install')"
    );
    pods.sort_by_key(ResourceExt::name_any);
    Ok(pods)
}

/// Finds the node proxy that is meant.
///
/// # Errors
/// Says what does not exist.
pub async fn find(client: &Client, system_namespace: &str, which: &Which) -> Result<Found> {
    let proxies = all(client, system_namespace).await?;
    match which {
        Which::Any => {
            let proxy = proxies.iter().find(|pod| is_ready(pod)).or_else(|| proxies.first()).cloned();
            Ok(Found { proxy: proxy.context("no node proxy")?, about: None })
        }
        Which::Node(node) => Ok(Found { proxy: on_node(&proxies, node)?, about: None }),
        Which::Pod { namespace, name } => {
            let own = |pod: &&Pod| pod.name_any() == *name && pod.namespace().as_ref() == Some(namespace);
            if let Some(proxy) = proxies.iter().find(own) {
                return Ok(Found { proxy: proxy.clone(), about: None });
            }
            let about = Api::<Pod>::namespaced(client.clone(), namespace)
                .get_opt(name)
                .await?
                .with_context(|| format!("no pod {name} in namespace {namespace}"))?;
            let node = about.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let node = node.with_context(|| format!("pod {name} is not scheduled yet"))?;
            Ok(Found { proxy: on_node(&proxies, &node)?, about: Some(about) })
        }
    }
}

fn on_node(proxies: &[Pod], node: &str) -> Result<Pod> {
    let here = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    // During an upgrade two share a node: the ready one answers.
    let mut on: Vec<&Pod> = proxies.iter().filter(here).collect();
    on.sort_by_key(|pod| !is_ready(pod));
    on.first().map(|pod| (*pod).clone()).with_context(|| format!("no node proxy on node {node}"))
}

/// Reads `[<type>/]<name>[.<namespace>]`.
///
/// # Errors
/// When the type is not `pod` or the name is empty.
pub fn parse_target(text: &str, default_namespace: &str) -> Result<Which> {
    let name = match text.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        Some((kind, _)) => bail!("{text:?}: kind {kind:?} is not supported here, name a pod"),
        None => text,
    };
    let (name, namespace) = name.split_once('.').unwrap_or((name, default_namespace));
    ensure!(!name.is_empty() && !namespace.is_empty(), "{text:?}: expected [pod/]<name>[.<namespace>]");
    Ok(Which::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// One request without a body to the admin server of a node proxy. Returns status and body.
///
/// # Errors
/// When the pod cannot be reached or the answer is larger than any real one.
pub async fn admin(client: &Client, pod: &Pod, port: u16, method: &str, path: &str) -> Result<(u16, Bytes)> {
    exchange(client, pod, port, method, path, Bytes::new()).await
}

/// One request to a port of a pod, through the API server. Returns status and body.
///
/// # Errors
/// As [`admin`].
pub async fn exchange(
    client: &Client,
    pod: &Pod,
    port: u16,
    method: &str,
    path: &str,
    body: Bytes,
) -> Result<(u16, Bytes)> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let reach = || format!("reaching port {port} of pod {name}.{namespace}");
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    let mut forward = api.portforward(&name, &[port]).await.with_context(reach)?;
    let stream = forward.take_stream(port).with_context(reach)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(reach)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "localhost")
        .header(http::header::CONNECTION, "close")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let answer = tokio::time::timeout(TIMEOUT, sender.send_request(request)).await.with_context(reach)?;
    let answer = answer.with_context(reach)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the answer of {name}.{namespace}: {error}"))?.to_bytes();
    driver.abort();
    Ok((status, body))
}

/// A GET that must succeed and answer JSON.
///
/// # Errors
/// As [`admin`], or when the answer is not a 200 with JSON.
pub async fn get_json(client: &Client, pod: &Pod, port: u16, path: &str) -> Result<serde_json::Value> {
    let (status, body) = admin(client, pod, port, "GET", path).await?;
    ensure!(status == 200, "{} answered {status} to {path}: {}", pod.name_any(), String::from_utf8_lossy(&body).trim());
    serde_json::from_slice(&body)
        .with_context(|| format!("{} answered {path} with something else than JSON", pod.name_any()))
}

/// Selects node proxies.
const SELECTOR: &str = "app=ztunnel";
/// Longest wait for an answer.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
/// A dump of 100,000 workloads fits.
const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_pod_with_or_without_namespace() {
        let pod = |namespace: &str, name: &str| Which::Pod { namespace: namespace.into(), name: name.into() };
        assert_eq!(parse_target("web-1", "demo").unwrap(), pod("demo", "web-1"));
        assert_eq!(parse_target("pod/web-1.shop", "demo").unwrap(), pod("shop", "web-1"));
        assert!(parse_target("deployment/web", "demo").unwrap_err().to_string().contains("not supported"));
        assert!(parse_target("pod/", "demo").is_err());
    }
}
