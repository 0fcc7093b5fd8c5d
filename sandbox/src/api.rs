//! The API server: Kubernetes' REST interface over the [`Store`](crate::store::Store).
//!
//! A request is read in this order: `serve` (TLS) or `client` (in process) → `user` (who) → `route`
//! (what) → `read`, `watch`, `write`, `patching`, `deletion`, `reviews` or `streams`. The object
//! semantics that need no server (schemas, patches, field ownership) are pure modules beside this
//! one.

mod addresses;
mod admission;
mod attributes;
mod body;
mod bootstrap;
mod builtin;
mod client;
mod clock;
mod crds;
mod defaults;
mod deletion;
mod discovery;
pub mod faults;
mod keys;
mod names;
mod negotiate;
mod openapi_routes;
mod overlay;
mod patching;
mod path;
mod pki;
mod pods;
mod protobuf;
mod query;
mod rbac;
mod read;
mod resources;
mod reviews;
mod route;
mod scale;
mod screen;
mod selector;
mod serve;
mod specs;
mod status;
mod streams;
mod table;
mod tokens;
mod user;
mod watch;
mod webhooks;
mod write;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};

use self::{
    addresses::Addresses,
    faults::Faults,
    keys::Keys,
    openapi_routes::Documents,
    pki::{AdminToken, Pki},
    read::Snapshots,
    resources::Catalog,
    tokens::Signer,
};
pub(crate) use self::{
    crds::CLEANUP,
    deletion::{DeleteOptions, Propagation},
    resources::Resource,
    write::Target,
};
pub use self::{
    pki::{ClientCertificate, PkiError},
    status::{ApiError, Cause, Subject},
    tokens::ISSUER,
};
use crate::{
    backend::NodeBackend,
    gc,
    schema::Registry,
    store::{DiskError, LOG_CAPACITY_EVENTS, ResourceKey, Store},
};

/// The Kubernetes version whose behaviour is followed.
pub const KUBERNETES_MINOR: u32 = 34;

/// What an API server is made of.
#[derive(Clone)]
pub struct ApiConfig {
    /// Where logs, commands and forwarded ports come from.
    pub node_backend: Arc<dyn NodeBackend>,
    /// Build information shown by `/version` behind the Kubernetes version.
    pub version: String,
    /// Addresses under which pods reach this server: the endpoints of `default/kubernetes`.
    pub advertise: Vec<SocketAddr>,
    /// Range of IPv4 cluster IPs; the first address belongs to `default/kubernetes`.
    pub service_ipv4: Ipv4Net,
    /// Range of IPv6 cluster IPs.
    pub service_ipv6: Ipv6Net,
    /// Events kept per resource for watches.
    pub log_capacity_events: usize,
    /// Directory in which objects and keys outlive the server; without one they end with it.
    pub store_dir: Option<PathBuf>,
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiConfig")
            .field("version", &self.version)
            .field("advertise", &self.advertise)
            .field("service_ipv4", &self.service_ipv4)
            .field("service_ipv6", &self.service_ipv6)
            .finish_non_exhaustive()
    }
}

impl ApiConfig {
    /// The sandbox's usual ranges, with nodes behind `node_backend`.
    pub fn new(node_backend: Arc<dyn NodeBackend>) -> Self {
        Self {
            node_backend,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            advertise: Vec::new(),
            service_ipv4: Ipv4Net::new_assert([10, 96, 0, 0].into(), 16),
            service_ipv6: Ipv6Net::new_assert([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0].into(), 112),
            log_capacity_events: LOG_CAPACITY_EVENTS,
            store_dir: None,
        }
    }
}

/// An API server. One per sandbox, shared by every connection.
pub struct ApiServer {
    pub(crate) store: Arc<Store>,
    pub(crate) config: ApiConfig,
    catalog: Catalog,
    addresses: Addresses,
    snapshots: Snapshots,
    documents: Documents,
    faults: Faults,
    pki: Pki,
    signer: Signer,
    admin_token: AdminToken,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiServer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why an API server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Keys or certificates could not be made.
    #[error("the API server has no certificates")]
    Pki(#[from] PkiError),
    /// The directory of the store cannot be used.
    #[error("the API server has no store")]
    Store(#[from] DiskError),
    /// The file with the keys cannot be used.
    #[error("using {path}")]
    Keys {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The first objects were refused.
    #[error("creating the first {what} failed")]
    Bootstrap {
        /// Which object.
        what: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}

impl ApiServer {
    /// A server with its own certificate authority, the built-in resources and the first objects.
    /// The garbage collector runs as a task of the current runtime until the server is dropped.
    ///
    /// # Errors
    ///
    /// [`StartError`]; retrying does not help.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(config: ApiConfig) -> Result<Arc<Self>, StartError> {
        let schemas = Registry::builtin();
        let store = match &config.store_dir {
            Some(dir) => Store::open(config.log_capacity_events, dir)?,
            None => Store::new(config.log_capacity_events),
        };
        let Keys { pki, signer, admin_token } = Keys::load(config.store_dir.as_deref())?;
        let server = Arc::new(Self {
            store: Arc::new(store),
            catalog: Catalog::builtin(&schemas),
            addresses: Addresses::new(config.service_ipv4, config.service_ipv6),
            snapshots: Snapshots::default(),
            pki,
            signer,
            admin_token,
            documents: Documents::default(),
            faults: Faults::default(),
            config,
        });
        server.resume();
        bootstrap::create(&server)?;
        tokio::spawn(gc::run(Arc::downgrade(&server)));
        Ok(server)
    }

    /// Takes up what stored objects stand for: definitions are served, addresses are taken.
    fn resume(&self) {
        for definition in self.store.list(&ResourceKey::definitions(), None).items {
            self.serve_definition(definition.value());
        }
        for service in self.store.list(&ResourceKey::new("", "services"), None).items {
            self.addresses.retake(&addresses::of_service(service.value()));
        }
    }

    /// The certificate authority's certificate, PEM: the content of `kube-root-ca.crt`.
    pub fn ca_pem(&self) -> String {
        self.pki.ca_pem()
    }

    /// A kubeconfig for the administrator.
    pub fn admin_kubeconfig(&self, server_url: &str) -> String {
        self.admin_token.kubeconfig(server_url, &self.ca_pem())
    }

    /// A client certificate of this server's authority for `user`, a member of `groups`.
    ///
    /// # Errors
    ///
    /// [`PkiError`] when signing fails.
    pub fn client_certificate(&self, user: &str, groups: &[&str]) -> Result<ClientCertificate, PkiError> {
        self.pki.client_certificate(user, groups)
    }

    /// A TLS configuration for [`ApiServer::serve`], valid for the usual names of an API server, for
    /// loopback, for the address of `default/kubernetes`, and for `addresses`.
    ///
    /// # Errors
    ///
    /// [`PkiError`] when signing fails.
    pub fn tls(&self, addresses: &[IpAddr]) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned);
        let mut all = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        all.extend(self.addresses.first());
        all.extend(addresses);
        self.pki.server_config(&names, &all)
    }

    /// The resource whose objects are stored under a key.
    pub(crate) fn resource(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.catalog.current().by_key(key).cloned()
    }

    /// All objects.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
