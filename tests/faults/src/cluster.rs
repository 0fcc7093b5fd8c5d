//! An API server with a synthetic cluster in it, which can go away and come back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use sandbox::api::faults::Faults;
use sandbox::api::{ApiConfig, ApiServer};
use sandbox::backend::NoNodes;
use sandbox::store::{CommitError, Expect, Object, ObjectKey, ResourceKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::objects::{PodId, Size};
use crate::wait::eventually;

/// The API server, listening on loopback.
pub struct Cluster {
    server: Arc<ApiServer>,
    addr: SocketAddr,
    serving: Mutex<Option<JoinHandle<()>>>,
    files: TempDir,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts one with the mesh's definitions and namespace, and nothing else.
    ///
    /// # Errors
    /// The server does not start, or a definition is refused.
    pub async fn start() -> Result<Self> {
        // The first one to come wins: all are the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = ApiServer::new(ApiConfig::new(NoNodes::shared()))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let files = tempfile::tempdir()?;
        let cluster = Self { server, addr, serving: Mutex::default(), files };
        std::fs::write(cluster.kubeconfig(), cluster.server.admin_kubeconfig(&format!("https://{addr}")))?;
        cluster.serve(listener)?;
        cluster.define().await.context("installing the definitions")?;
        cluster.put(&namespaces(), json!({"metadata": {"name": SYSTEM, "uid": "system"}}))?;
        let account = json!({"metadata": {"name": ZTUNNEL, "namespace": SYSTEM, "uid": "ztunnel-account"}});
        cluster.put(&ResourceKey::new("", "serviceaccounts"), account)?;
        Ok(cluster)
    }

    /// Where the kubeconfig of the administrator is.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }

    /// A folder that lives as long as the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.files.path()
    }

    /// What the server does wrong on demand.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// A client of the administrator, without a connection: it works while nobody else is served.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.server.client()
    }

    /// Refuses connections and ends those that are open: after this nobody hears of a change.
    ///
    /// # Errors
    /// Somebody still watches.
    pub async fn stop(&self) -> Result<()> {
        let task = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // Cancelled, as it should be.
            let _ = task.await;
        }
        // Tasks of connections are only told to end; until they have, they still tell of changes.
        eventually("connections have ended", STOP, async || {
            let open = self.faults().open_watches();
            ensure!(open == 0, "{open} watches are open");
            Ok(())
        })
        .await
    }

    /// Serves again, under the same address.
    ///
    /// # Errors
    /// Somebody has taken the port.
    pub fn resume(&self) -> Result<()> {
        self.serve(TcpListener::bind(self.addr).context("listening again")?)
    }

    fn serve(&self, listener: TcpListener) -> Result<()> {
        let served = self.server.clone().serve(vec![listener], self.server.tls(&[])?);
        let task = tokio::spawn(async move { drop(served.await) });
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    /// Creates or replaces an object in the store, past every check of the server.
    ///
    /// # Errors
    /// Its namespace does not exist.
    pub fn put(&self, resource: &ResourceKey, object: Value) -> Result<Arc<Object>> {
        let text = |field: &str| object.get("metadata")?.get(field)?.as_str();
        let key = ObjectKey::new(text("namespace"), text("name").context("an object without a name")?);
        loop {
            let current = self.server.store().get(resource, &key);
            let expect = current.map_or(Expect::Absent, |one| Expect::Revision(one.revision()));
            match self.server.store().put(resource, &key, object.clone(), expect) {
                Err(CommitError::Stale { .. } | CommitError::Exists { .. }) => {}
                done => return Ok(done?),
            }
        }
    }

    /// An object in the store.
    #[must_use]
    pub fn get(&self, resource: &ResourceKey, namespace: Option<&str>, name: &str) -> Option<Arc<Object>> {
        self.server.store().get(resource, &ObjectKey::new(namespace, name))
    }

    /// Takes an object out of the store.
    ///
    /// # Errors
    /// It is not there, or somebody else changes it.
    pub fn remove(&self, resource: &ResourceKey, namespace: Option<&str>, name: &str) -> Result<()> {
        let key = ObjectKey::new(namespace, name);
        let current = self.server.store().get(resource, &key).context("nothing to remove")?;
        self.server.store().remove(resource, &key, None, current.revision())?;
        Ok(())
    }

    /// Puts in the synthetic cluster, with a policy in every second namespace.
    ///
    /// # Errors
    /// An object is refused.
    pub fn populate(&self, size: Size) -> Result<()> {
        for namespace in 0..size.namespaces() {
            self.put(&namespaces(), Size::namespace_object(namespace))?;
            if namespace % 2 == 0 {
                self.put(&policies(), Size::policy_object(namespace))?;
            }
        }
        for node in 0..size.nodes() {
            self.put(&ResourceKey::new("", "nodes"), size.node_object(node))?;
        }
        for service in 0..size.services() {
            self.put(&ResourceKey::new("", "services"), size.service_object(service))?;
            self.put(&slices(), size.slice_object(service, |_| true))?;
            self.put(&ResourceKey::new("apps", "replicasets"), size.replica_set_object(service))?;
        }
        for pod in (0..size.pods).map(PodId) {
            // The text is made now, as a server that has been up for a while has made it long ago.
            self.put(&pods(), size.pod_object(pod, true))?.json();
        }
        Ok(())
    }

    /// One pod becomes ready or not, and the slice of its service says so too.
    ///
    /// # Errors
    /// An object is refused.
    pub fn set_ready(&self, size: Size, pod: PodId, ready: bool) -> Result<()> {
        self.put(&pods(), size.pod_object(pod, ready))?;
        self.put(&slices(), size.slice_object(size.service_of(pod), |one| one != pod || ready))?;
        Ok(())
    }

    /// A token of the node proxies' account, for the control plane.
    ///
    /// # Errors
    /// The server gives none.
    pub async fn proxy_token(&self) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), SYSTEM);
        let spec = TokenRequestSpec { audiences: vec![AUDIENCE.to_owned()], ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(ZTUNNEL, &PostParams::default(), &request).await?;
        Ok(answer.status.context("a token")?.token)
    }

    /// The root that the control plane has made for itself, PEM.
    ///
    /// # Errors
    /// It has not yet.
    pub async fn mesh_root(&self) -> Result<Vec<u8>> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), SYSTEM);
        let secret = secrets.get("istio-ca-secret").await?;
        let root = secret.data.and_then(|mut data| data.remove("ca-cert.pem"));
        Ok(root.context("ca-cert.pem in the secret of the authority")?.0)
    }

    async fn define(&self) -> Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = 0;
        for folder in ["deploy/charts/base/crds", "deploy/crds/gateway-api"] {
            for file in std::fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())? {
                let path = file?.path();
                let text = std::fs::read_to_string(&path)?;
                for definition in serde_saphyr::from_multiple::<CustomResourceDefinition>(&text)
                    .with_context(|| path.display().to_string())?
                {
                    api.create(&PostParams::default(), &definition)
                        .await
                        .with_context(|| path.display().to_string())?;
                    found += 1;
                }
            }
        }
        ensure!(found > 0, "there are no definitions");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(task) = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Keys of kinds that few need.
pub mod configs {
    use sandbox::store::ResourceKey;

    /// Leases.
    #[must_use]
    pub fn leases() -> ResourceKey {
        ResourceKey::new("coordination.k8s.io", "leases")
    }

    /// ConfigMaps.
    #[must_use]
    pub fn maps() -> ResourceKey {
        ResourceKey::new("", "configmaps")
    }
}

/// Pods.
#[must_use]
pub fn pods() -> ResourceKey {
    ResourceKey::new("", "pods")
}

/// Namespaces.
#[must_use]
pub fn namespaces() -> ResourceKey {
    ResourceKey::namespaces()
}

/// Services.
#[must_use]
pub fn services() -> ResourceKey {
    ResourceKey::new("", "services")
}

/// EndpointSlices.
#[must_use]
pub fn slices() -> ResourceKey {
    ResourceKey::new("discovery.k8s.io", "endpointslices")
}

/// AuthorizationPolicies.
#[must_use]
pub fn policies() -> ResourceKey {
    ResourceKey::new("security.istio.io", "authorizationpolicies")
}

/// Namespace of the control plane.
pub const SYSTEM: &str = "istio-system";
const ZTUNNEL: &str = "ztunnel";
const STOP: Duration = Duration::from_secs(5);
const AUDIENCE: &str = "istio-ca";
