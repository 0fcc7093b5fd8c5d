//! Taking a pod into the mesh and out of it: rules, proxy, probe set, annotation, in an order that never lets a byte
//! out in the clear.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use mesh_api::labels;
use mesh_core::env::parse_bool;
use mesh_sys::netns::NetNs;
use mesh_wire::zds::WorkloadInfo;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::annotate;
use super::cache::Cache;
use super::decide::addresses;
use super::discover;
use crate::config::Config;
use crate::redirect::{self, HostRules, PodRules, RedirectError};
use crate::zds::{PodEntry, Proxies, ZdsError};

/// Does the work for one node. Shared by the plugin's events and the watch.
pub struct Enroller {
    client: Client,
    config: Config,
    cache: Arc<Cache>,
    proxies: Proxies,
    host: std::sync::Mutex<HostRules>,
    /// Steps of one pod must never mix with those of the same pod from elsewhere.
    turns: std::sync::Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

/// Why a pod is not as wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The pod may have ended. Not retried: its next change is a new chance.
    #[error("no network namespace was found for pod {pod}")]
    NoNamespace {
        /// namespace/name.
        pod: String,
    },
    /// Not retried.
    #[error("network namespace {path} of pod {pod} cannot be opened")]
    OpenNamespace {
        /// namespace/name.
        pod: String,
        /// As the runtime named it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A value of the pod's annotations. Not retried.
    #[error("annotation {name} of pod {pod}: {reason}")]
    Annotation {
        /// namespace/name.
        pod: String,
        /// Which annotation.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Not retried.
    #[error("redirect rules of pod {pod}")]
    Rules {
        /// namespace/name.
        pod: String,
        /// What went wrong.
        #[source]
        source: RedirectError,
    },
    /// Retried: the rules are in place, so the pod's traffic is refused until then.
    #[error("pod {pod}")]
    Proxy {
        /// namespace/name.
        pod: String,
        /// What went wrong.
        #[source]
        source: ZdsError,
    },
    /// Retried.
    #[error("probe rules of the node")]
    Host(#[source] RedirectError),
    /// Retried.
    #[error("annotating pod {pod}")]
    Annotate {
        /// namespace/name.
        pod: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl EnrolError {
    /// Whether trying again, without any change of the pod, can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Proxy { .. } | Self::Host(_) | Self::Annotate { .. })
    }
}

impl Enroller {
    /// With nothing enrolled yet.
    #[must_use]
    pub fn new(client: Client, config: Config, cache: Arc<Cache>, proxies: Proxies, host: HostRules) -> Self {
        Self { client, config, cache, proxies, host: std::sync::Mutex::new(host), turns: std::sync::Mutex::default() }
    }

    /// Takes in a pod that has not started yet. `netns` is the path that the plugin was given.
    ///
    /// Rules come first: whatever fails after them, nothing of the pod gets out in the clear.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn admit(&self, pod: &Pod, ips: &[IpAddr], netns: PathBuf) -> Result<(), EnrolError> {
        let _turn = self.turn(pod).await;
        let rules = self.rules(pod)?;
        let held = self.reserve(pod, ips, Some(netns)).await?;
        self.capture(pod, Arc::clone(&held), rules).await?;
        self.serve(pod, held).await?;
        self.with_host(|host| host.add(&uid(pod), ips))?;
        self.finish(pod).await
    }

    /// Takes in a pod that is running.
    ///
    /// The proxy comes first, so that the rules send new connections to listeners that are there already: nothing is
    /// refused at the switch. When the proxy does not take the pod, the rules are put in force all the same and the
    /// pod's traffic is refused until it does.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn add(&self, pod: &Pod) -> Result<(), EnrolError> {
        let _turn = self.turn(pod).await;
        let (uid, ips) = (uid(pod), addresses(pod));
        let rules = self.rules(pod)?;
        let held = self.reserve(pod, &ips, None).await?;
        if let Err(error) = self.serve(pod, Arc::clone(&held)).await {
            self.capture(pod, held, rules).await?;
            self.annotate(pod, Some(labels::REDIRECTION_PENDING)).await?;
            return Err(error);
        }
        self.with_host(|host| host.add(&uid, &ips))?;
        if let Err(error) = self.capture(pod, held, rules).await {
            self.undo(pod).await;
            return Err(error);
        }
        self.finish(pod).await
    }

    /// Makes an entry for the pod before anything else, so that a snapshot taken meanwhile does not lose it.
    async fn reserve(&self, pod: &Pod, ips: &[IpAddr], path: Option<PathBuf>) -> Result<Arc<NetNs>, EnrolError> {
        self.cache.reserve(entry(pod));
        match self.open(pod, ips, path).await {
            Ok(netns) => Ok(self.cache.hold(&uid(pod), netns)),
            Err(error) => {
                self.cache.remove(&uid(pod));
                Err(error)
            }
        }
    }

    async fn capture(&self, pod: &Pod, netns: Arc<NetNs>, rules: PodRules) -> Result<(), EnrolError> {
        let applied = blocking(move || redirect::apply(&netns, &rules)).await;
        applied.map_err(|source| {
            self.cache.remove(&uid(pod));
            EnrolError::Rules { pod: full_name(pod), source }
        })
    }

    async fn serve(&self, pod: &Pod, netns: Arc<NetNs>) -> Result<(), EnrolError> {
        let PodEntry { uid, info, .. } = entry(pod);
        let served = self.proxies.add(uid, info, netns).await;
        served.map_err(|source| EnrolError::Proxy { pod: full_name(pod), source })
    }

    async fn finish(&self, pod: &Pod) -> Result<(), EnrolError> {
        self.annotate(pod, Some(labels::REDIRECTION_ENABLED)).await?;
        tracing::info!(target: SCOPE, pod = %full_name(pod), uid = uid(pod), "pod enrolled");
        Ok(())
    }

    /// The pod stays outside: the proxy and the node forget it.
    async fn undo(&self, pod: &Pod) {
        if let Err(error) = self.with_host(|host| host.remove(&uid(pod))) {
            tracing::warn!(target: SCOPE, pod = %full_name(pod), %error, "probe address of the pod stays");
        }
        if let Err(error) = self.proxies.delete(&uid(pod)).await {
            tracing::warn!(target: SCOPE, pod = %full_name(pod), %error, "node proxy may go on serving the pod");
        }
    }

    /// Takes a pod out. `gone` says that its processes have ended, so that its rules end with it.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn remove(&self, pod: &Pod, gone: bool) -> Result<(), EnrolError> {
        let _turn = self.turn(pod).await;
        let (uid, name) = (uid(pod), full_name(pod));
        self.with_host(|host| host.remove(&uid))?;
        let held = match self.cache.remove(&uid) {
            None if !gone => self.search(pod, &addresses(pod)).await.map(Arc::new),
            held => held,
        };
        if held.is_none() && !gone {
            tracing::warn!(target: SCOPE, pod = %name, "no process of the pod was found; its rules stay until it ends");
        }
        // Rules first: the application's traffic goes on, and only then the proxy lets go of its connections.
        if let (Some(netns), false) = (held, gone) {
            let removed = blocking(move || redirect::remove(&netns)).await;
            removed.map_err(|source| EnrolError::Rules { pod: name.clone(), source })?;
        }
        self.proxies.delete(&uid).await.map_err(|source| EnrolError::Proxy { pod: name.clone(), source })?;
        match self.annotate(pod, None).await {
            Err(error) if !gone => return Err(error),
            _ => {}
        }
        tracing::info!(target: SCOPE, pod = %name, %uid, "pod removed");
        Ok(())
    }

    /// Follows changed addresses of an enrolled pod.
    ///
    /// # Errors
    /// [`EnrolError::Host`].
    pub fn update_addresses(&self, pod: &Pod) -> Result<(), EnrolError> {
        self.with_host(|host| host.add(&pod.uid().unwrap_or_default(), &addresses(pod)))
    }

    /// After a start: takes over the pods that an earlier agent has enrolled. Changes nothing for them.
    pub async fn adopt(&self, pods: &[Pod]) {
        self.recall(pods);
        let wanted: BTreeMap<String, Vec<IpAddr>> =
            pods.iter().map(|pod| (pod.uid().unwrap_or_default(), addresses(pod))).collect();
        let root = self.config.paths.host_proc.clone();
        let mut found = blocking(move || discover::namespaces(&root, &wanted)).await;
        for pod in pods {
            let (uid, name) = (pod.uid().unwrap_or_default(), full_name(pod));
            self.cache.reserve(entry(pod));
            self.host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remember(&uid, &addresses(pod));
            let Some(netns) = found.remove(&uid) else {
                tracing::warn!(target: SCOPE, pod = %name, "no process of an enrolled pod was found; its proxy is left as it is");
                continue;
            };
            let netns = self.cache.hold(&uid, netns);
            let rules = match self.rules(pod) {
                Ok(rules) if self.config.reconcile_rules => rules,
                _ => continue,
            };
            if let Err(error) = blocking(move || redirect::apply(&netns, &rules)).await {
                tracing::error!(target: SCOPE, pod = %name, %error, "bringing the rules of an enrolled pod up to date failed");
            }
        }
    }

    /// Probes of a pod whose addresses are not known at the moment must go on as before.
    fn recall(&self, pods: &[Pod]) {
        let homeless: Vec<String> = pods.iter().filter(|pod| addresses(pod).is_empty()).map(uid).collect();
        if homeless.is_empty() {
            return;
        }
        if let Err(error) = self.with_host(|host| host.recall(&homeless)) {
            tracing::warn!(target: SCOPE, %error, "probes of enrolled pods without an address may fail for a moment");
        }
    }

    /// Puts the node's own rules in force.
    ///
    /// # Errors
    /// [`EnrolError::Host`].
    pub fn sync_node(&self) -> Result<(), EnrolError> {
        self.with_host(|host| host.sync())
    }

    /// Takes the node's own rules away.
    ///
    /// # Errors
    /// [`EnrolError::Host`].
    pub fn leave_node(&self) -> Result<(), EnrolError> {
        self.with_host(|host| host.delete())
    }

    /// Waits until nobody else works on the pod. Entries that nobody holds are dropped on the way.
    async fn turn(&self, pod: &Pod) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(uid(pod)).or_default())
        };
        turn.lock_owned().await
    }

    async fn open(&self, pod: &Pod, ips: &[IpAddr], path: Option<PathBuf>) -> Result<NetNs, EnrolError> {
        let Some(path) = path else {
            if let Some(held) = self.cache.netns(&pod.uid().unwrap_or_default())
                && let Ok(held) = held.try_clone()
            {
                return Ok(held);
            }
            return self.search(pod, ips).await.ok_or_else(|| EnrolError::NoNamespace { pod: full_name(pod) });
        };
        let own = self.config.paths.host_root.join(path.strip_prefix("/").unwrap_or(&path));
        NetNs::open(&own).map_err(|source| EnrolError::OpenNamespace { pod: full_name(pod), path: own, source })
    }

    async fn search(&self, pod: &Pod, ips: &[IpAddr]) -> Option<NetNs> {
        let uid = pod.uid().unwrap_or_default();
        let (root, wanted) = (self.config.paths.host_proc.clone(), [(uid.clone(), ips.to_vec())].into());
        blocking(move || discover::namespaces(&root, &wanted)).await.remove(&uid)
    }

    fn rules(&self, pod: &Pod) -> Result<PodRules, EnrolError> {
        let flag = |name: &str| pod.annotations().get(name).and_then(|text| parse_bool(text));
        let interfaces = pod.annotations().get(labels::REROUTE_INTERFACES).map(String::as_str).unwrap_or_default();
        let interfaces = interfaces.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse);
        let interfaces = interfaces.collect::<Result<_, String>>().map_err(|reason| EnrolError::Annotation {
            pod: full_name(pod),
            name: labels::REROUTE_INTERFACES,
            reason,
        })?;
        Ok(PodRules {
            bypass_inbound: flag(labels::BYPASS_INBOUND_CAPTURE).unwrap_or(false),
            dns: flag(labels::DNS_CAPTURE).unwrap_or(self.config.dns_capture),
            interfaces,
            ipv6: self.config.ipv6,
            probes: self.config.probes.clone(),
        })
    }

    async fn annotate(&self, pod: &Pod, value: Option<&str>) -> Result<(), EnrolError> {
        let namespace = pod.namespace().unwrap_or_default();
        annotate::redirection(&self.client, &namespace, &pod.name_any(), value)
            .await
            .map_err(|source| EnrolError::Annotate { pod: full_name(pod), source: Box::new(source) })
    }

    fn with_host(&self, work: impl FnOnce(&mut HostRules) -> Result<(), RedirectError>) -> Result<(), EnrolError> {
        let mut host = self.host.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tokio::task::block_in_place(|| work(&mut host)).map_err(EnrolError::Host)
    }
}

/// `namespace/name`.
#[must_use]
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

fn entry(pod: &Pod) -> PodEntry {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let info = WorkloadInfo {
        name: pod.name_any(),
        namespace: pod.namespace().unwrap_or_default(),
        service_account: account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()),
    };
    PodEntry { uid: uid(pod), info, netns: None }
}

/// Work that starts processes or changes the thread's network namespace, off the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Log scope.
pub(crate) const SCOPE: &str = "cni-agent";
