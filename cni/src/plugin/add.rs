//! ADD: a pod gets its network. Ambient pods wait here for the agent.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::error::{CniError, Code};
use super::log::Log;
use super::request::{PodArgs, Request};
use super::result::{self, PrevResult};
use super::unix_http;
use crate::eligibility::Eligibility;
use crate::event::{self, AddEvent};

/// Runs ADD and returns the result to print.
///
/// # Errors
/// [`CniError`]; the pod does not start and the runtime tries again.
pub fn run(request: &Request, log: &mut Log) -> Result<String, CniError> {
    let config = &request.config;
    let version = if config.cni_version.is_empty() { "0.1.0" } else { &config.cni_version };
    let previous = config.prev_result.as_ref().filter(|value| !value.is_null());
    let previous = previous.map(|value| PrevResult::parse(value, version)).transpose();
    let previous = previous.map_err(|error| CniError::new(Code::Decode, "prevResult is not readable", error))?;
    let pod = PodArgs::parse(&request.args)?;
    let name = format!("{}/{}", pod.namespace, pod.name);
    match destiny(request, &pod, log)? {
        Destiny::Pass(why) => log.debug("pod passes", &[("pod", &name), ("reason", why)]),
        Destiny::Capture => {
            capture(request, &pod, previous.as_ref())?;
            log.info("pod is captured", &[("pod", &name)]);
        }
    }
    match &previous {
        Some(previous) => previous.print(version).map_err(|error| CniError::new(Code::Internal, "result", error)),
        None => Ok(result::empty(version)),
    }
}

enum Destiny {
    Pass(&'static str),
    Capture,
}

fn destiny(request: &Request, pod: &PodArgs, log: &mut Log) -> Result<Destiny, CniError> {
    let config = &request.config;
    // Before anything that the agent provides: after a reboot the agent's own pod comes through here.
    if pod.name.starts_with(AGENT_POD_PREFIX) && pod.namespace == config.pod_namespace {
        return Ok(Destiny::Pass("agent"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CniError::new(Code::Internal, "starting", error))?;
    let kubeconfig = config.cni_agent_run_dir.join(event::KUBECONFIG);
    let client = runtime.block_on(connect(&kubeconfig)).map_err(|error| {
        CniError::new(
            Code::Internal,
            format!("kubeconfig {} of the node agent (istio-cni-node)", kubeconfig.display()),
            error,
        )
    })?;
    if pod.name.is_empty() || pod.namespace.is_empty() {
        return Ok(Destiny::Pass("not a pod of Kubernetes"));
    }
    let eligibility = Eligibility::new(config.enablement_selectors.clone(), config.exclude_namespaces.clone());
    if eligibility.excludes(&pod.namespace) {
        return Ok(Destiny::Pass("excluded namespace"));
    }
    if !config.ambient_enabled {
        return Ok(Destiny::Pass("ambient mode is off"));
    }
    match runtime.block_on(is_ambient(&client, pod, &eligibility, config.enable_ambient_detection_retry, log)) {
        Ok(true) => Ok(Destiny::Capture),
        Ok(false) => Ok(Destiny::Pass("not ambient")),
        // Without an answer nobody knows whether the pod may talk in the clear.
        Err(error) => Err(CniError::new(
            Code::Internal,
            format!("cannot tell whether pod {}/{} belongs to the mesh", pod.namespace, pod.name),
            error,
        )),
    }
}

async fn connect(kubeconfig: &Path) -> Result<Client, Box<dyn std::error::Error>> {
    // Only fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
    config.connect_timeout = Some(API_TIMEOUT);
    config.read_timeout = Some(API_TIMEOUT);
    // Attempts are counted here.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn is_ambient(
    client: &Client,
    pod: &PodArgs,
    eligibility: &Eligibility,
    patient: bool,
    log: &mut Log,
) -> Result<bool, String> {
    let attempts = if patient { PATIENT_ATTEMPTS } else { ATTEMPTS };
    let mut last = String::new();
    for attempt in 1..=attempts {
        match tokio::time::timeout(API_TIMEOUT, look(client, pod, eligibility)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = crate::agent::settle::error_chain(&error),
            Err(_) => last = format!("no answer from the API server within {API_TIMEOUT:?}"),
        }
        log.warn("asking the API server failed", &[("attempt", &attempt.to_string()), ("error", &last)]);
        if attempt < attempts {
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }
    Err(last)
}

async fn look(client: &Client, pod: &PodArgs, eligibility: &Eligibility) -> kube::Result<bool> {
    let (pods, namespaces) =
        (Api::<Pod>::namespaced(client.clone(), &pod.namespace), Api::<Namespace>::all(client.clone()));
    let (found, namespace) = tokio::try_join!(pods.get(&pod.name), namespaces.get(&pod.namespace))?;
    Ok(eligibility.captures(&found, &namespace.metadata.labels.unwrap_or_default()))
}

/// The pod starts only after the agent's word that its traffic is captured.
fn capture(request: &Request, pod: &PodArgs, previous: Option<&PrevResult>) -> Result<(), CniError> {
    let ips = previous.map(PrevResult::ips).transpose();
    let event = AddEvent {
        netns: request.netns.clone(),
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        ips: ips.map_err(|error| CniError::new(Code::Decode, "prevResult is not readable", error))?,
        pod_uid: pod.uid.clone(),
    };
    let socket = request.config.cni_agent_run_dir.join(event::SOCKET);
    let body = serde_json::to_string(&event).map_err(|error| CniError::new(Code::Internal, "event", error))?;
    let failed = |details: String| {
        let name = format!("{}/{}", pod.namespace, pod.name);
        CniError::new(Code::Internal, format!("node agent (istio-cni-node) has not captured pod {name}"), details)
    };
    match unix_http::post(&socket, event::PATH, body, EVENT_TIMEOUT) {
        Ok((200, _)) => Ok(()),
        Ok((status, text)) => Err(failed(format!("status {status}: {}", text.trim()))),
        Err(error) => Err(failed(format!("{}: {error}", socket.display()))),
    }
}

/// Pods of the agent's own DaemonSet.
const AGENT_POD_PREFIX: &str = "istio-cni-node-";
/// The whole exchange with the agent.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// One question to the API server.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// One more than needed, for a connection that broke.
const ATTEMPTS: u32 = 2;
/// Where the configuration asks for patience.
const PATIENT_ATTEMPTS: u32 = 30;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
