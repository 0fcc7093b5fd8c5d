//! The ports: readiness and monitoring, xDS and certificates, admission.

use std::sync::Arc;

use axum::Router;
use mesh_wire::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use mesh_xds::server::AdsService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::service::Routes;

use super::{Plane, promises};
use crate::auth::certificate::ClientCertificates;
use crate::ca::CurrentAuthority;
use crate::ca::service::{CaSettings, CertificateService};
use crate::ca::serving::Serving;
use crate::cluster::Cluster;
use crate::debug::Turns;
use crate::debug::http::{self, DebugState};
use crate::gate::{Gate, RateLimiter};
use crate::listen::{self, Bounds};
use crate::serve::HttpServer;
use crate::webhook::registration::Registrar;
use crate::webhook::{self, Webhook, WebhookMetrics};

impl Plane {
    /// Readiness, metrics and debugging.
    pub(super) async fn serve_http(&self) -> anyhow::Result<()> {
        let debug = http::debug(Arc::new(DebugState {
            hub: self.hub.clone(),
            model: self.model.clone(),
            authenticator: self.authenticator.clone(),
            namespace: self.config.namespace.as_str().into(),
            clusters: self.clusters.clone(),
            simulations: Arc::new(Semaphore::new(1)),
            turns: Turns::default(),
            mesh_report: self.mesh_report.clone(),
            warnings: self.config.warnings.clone(),
            unsafe_admin: self.config.unsafe_admin,
        }));
        let mut readiness = http::ready(self.readiness.clone());
        if self.config.debug_on_http {
            readiness = readiness.merge(debug.clone());
        }
        let monitoring = self.registry.router().merge(http::version()).merge(debug);
        self.serve_router("readiness", listen::bind(&self.config.http_addr).await?, readiness);
        self.serve_router("monitoring", listen::bind(&self.config.monitoring_addr).await?, monitoring);
        Ok(())
    }

    fn serve_router(&self, name: &'static str, listener: TcpListener, router: Router) {
        self.supervisor.spawn(name, HttpServer::open(name, listener, router).run(self.drain.clone()));
    }

    /// xDS and certificates.
    pub(super) async fn serve_grpc(&self, serving: &Serving, authority: CurrentAuthority) -> anyhow::Result<()> {
        let limiter = Arc::new(RateLimiter::new(self.config.streams_per_second));
        let authenticated = Gate {
            authenticator: self.config.xds_auth.then(|| self.authenticator.clone()),
            identity_check: self.config.identity_check,
            limiter: limiter.clone(),
            promises: promises(&self.model),
            workloads: self.workloads.clone(),
        };
        let clients = Arc::new(ClientCertificates::new(authority.clone())?);
        let certificates = IstioCertificateServiceServer::new(CertificateService::new(
            self.authenticator.clone(),
            Cluster(self.client.clone()),
            self.model.clone(),
            authority,
            CaSettings {
                trusted_node_accounts: self.config.trusted_node_accounts.clone(),
                lifetimes: self.config.lifetimes,
            },
            self.metrics.clone(),
        ))
        .max_decoding_message_size(CERTIFICATE_REQUEST_BYTES_MAX);
        let ads = AdsService::new(self.hub.clone(), Arc::new(authenticated));
        let routes = Routes::new(ads).add_service(certificates.clone());
        let listener = listen::bind(&self.config.secure_grpc_addr).await?;
        let tls = Arc::new(serving.server_config_for(clients.clone())?);
        self.serve_http2("secure gRPC", listener, Some((tls, clients)), routes);
        if let Some(addr) = &self.config.grpc_addr {
            let listener = listen::bind(addr).await?;
            tracing::warn!(addr, "xDS is served in plain text and to anybody");
            let open = Gate::<Cluster> {
                authenticator: None,
                identity_check: false,
                limiter,
                promises: promises(&self.model),
                workloads: None,
            };
            let ads = AdsService::new(self.hub.clone(), Arc::new(open));
            self.serve_http2("plain-text gRPC", listener, None, Routes::new(ads).add_service(certificates));
        }
        Ok(())
    }

    fn serve_http2(
        &self,
        name: &'static str,
        listener: TcpListener,
        secured: Option<(Arc<rustls::ServerConfig>, Arc<ClientCertificates>)>,
        routes: Routes,
    ) {
        let (tls, clients) = secured.unzip();
        let server = HttpServer {
            name,
            listener,
            tls,
            clients,
            plain_http2: true,
            bounds: Bounds::default(),
            keepalive: self.config.keepalive,
            max_age: self.config.max_connection_age,
            router: routes.prepare().into_axum_router(),
        };
        self.supervisor.spawn(name, server.run(self.drain.clone()));
    }

    /// Serves admission, and keeps the API server asking for it.
    pub(super) async fn serve_webhooks(&self, serving: &Serving, authority: CurrentAuthority) -> anyhow::Result<()> {
        let Some(addr) = &self.config.https_addr else { return Ok(()) };
        let starting = self.readiness.register("validation");
        let metrics = Arc::new(WebhookMetrics::new(&self.registry));
        let (listener, tls) = (listen::bind(addr).await?, serving.webhook_config()?);
        let webhook = Arc::new(Webhook::following(self.model.clone(), metrics.clone()));
        let server = webhook::serve(listener, tls, webhook, webhook::Limits::default(), self.drain.clone());
        self.supervisor.spawn("webhooks", server);
        let registrar = Registrar {
            client: self.client.clone(),
            authority,
            revision: self.config.revision.clone(),
            namespace: self.config.namespace.clone(),
            metrics,
        };
        self.supervisor.spawn("webhook registration", registrar.run(self.drain.clone()));
        starting.done();
        Ok(())
    }
}

/// A certificate request has some 500 bytes of PEM and a few of metadata.
const CERTIFICATE_REQUEST_BYTES_MAX: usize = 24 << 10;
