//! A control plane on loopback with everything of the authenticated port.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use istiod::auth::certificate::ClientCertificates;
use istiod::auth::{Attempts, AuthError, Authenticator, TokenReviewer, TrustDomains};
use istiod::ca::authority::Lifetimes;
use istiod::ca::impersonation::Claim;
use istiod::ca::material::CaMaterial;
use istiod::ca::service::{CaSettings, CertificateService, LiveAnswer, LivePods};
use istiod::ca::serving::{Serving, dns_names};
use istiod::ca::{Authority, self_signed};
use istiod::gate::{CurrentPromises, Gate, RateLimiter};
use istiod::listen::{self, Bounds};
use istiod::metrics::{HubMetrics, Metrics};
use istiod::publish::TYPES;
use istiod::serve::HttpServer;
use istiod::translate::Model;
use istiod::world::{Change, Object, Pod};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mesh_core::drain::DrainSignal;
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use mesh_wire::ca::IstioCertificateRequest;
use mesh_wire::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh_wire::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_wire::type_url;
use mesh_xds::server::{AdsService, Hub, HubOptions};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// Tokens are `audience:namespace:account:pod`.
#[derive(Default)]
struct Tokens(Arc<AtomicUsize>);

impl TokenReviewer for Tokens {
    async fn review(&self, token: &str, _audiences: &[String]) -> Result<TokenReviewStatus, AuthError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let parts: Vec<_> = token.split(':').collect();
        let [audience, namespace, account, pod] = parts[..] else {
            return Ok(TokenReviewStatus::default());
        };
        let status = json!({
            "authenticated": true,
            "audiences": [audience],
            "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": [pod],
                    "authentication.kubernetes.io/pod-uid": [format!("uid-{pod}")],
                },
            },
        });
        Ok(serde_json::from_value(status).unwrap())
    }
}

/// Knows nothing that the world does not know.
struct Empty;

impl LivePods for Empty {
    async fn fetch(&self, _claim: &Claim) -> Result<LiveAnswer, kube::Error> {
        Ok(LiveAnswer::default())
    }
}

pub(crate) const ZTUNNEL: &str = "istio-ca:istio-system:ztunnel:zt";

pub(crate) struct Plane {
    pub(crate) endpoint: Endpoint,
    pub(crate) addr: SocketAddr,
    pub(crate) root_pem: String,
    pub(crate) authority: Arc<Authority>,
    /// Replaces the authority.
    pub(crate) rotate: watch::Sender<Arc<Authority>>,
    pub(crate) material: CaMaterial,
    /// Token reviews so far.
    pub(crate) reviews: Arc<AtomicUsize>,
    _drain: DrainSignal,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::bounded(Bounds::default()).await
    }

    pub(crate) async fn bounded(bounds: Bounds) -> Self {
        let material = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
        let current = Arc::new(Authority::new(&material).unwrap());
        let (rotate, authority) = watch::channel(current.clone());
        let serving = Serving::new(dns_names(&[], "default", "istio-system"), authority.clone()).unwrap();
        let metrics = Arc::new(Metrics::new(&mesh_telemetry::metrics::Registry::new()));
        let options = HubOptions { hold: Duration::from_millis(20), ..HubOptions::default() };
        let hub = Hub::new(&TYPES, options, Box::new(HubMetrics(metrics.clone())));
        hub.set_ready(true);
        let reviews = Arc::new(AtomicUsize::new(0));
        let authenticator = Arc::new(Authenticator {
            reviewer: Tokens(reviews.clone()),
            audiences: vec!["istio-ca".into()],
            cluster_id: "Kubernetes".into(),
            cluster_aliases: Vec::new(),
            trust_domains: TrustDomains::default(),
            attempts: Attempts::default(),
        });
        let gate = Gate {
            authenticator: Some(authenticator.clone()),
            identity_check: true,
            limiter: Arc::new(RateLimiter::new(100)),
            promises: CurrentPromises::default(),
            workloads: None,
        };
        let settings = CaSettings {
            trusted_node_accounts: vec![NamespacedName::new("istio-system", "ztunnel")],
            lifetimes: Lifetimes { default: Duration::from_secs(86_400), max: Duration::from_secs(90 * 86_400) },
        };
        let model = Arc::new(RwLock::new(model()));
        let clients = Arc::new(ClientCertificates::new(authority.clone()).unwrap());
        let certificates = CertificateService::new(authenticator, Empty, model, authority, settings, metrics);
        let certificates = IstioCertificateServiceServer::new(certificates);
        let listener = listen::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let routes = Routes::new(AdsService::new(hub, Arc::new(gate)))
            .add_service(certificates.max_decoding_message_size(64 << 10));
        let server = HttpServer {
            name: "secure",
            listener,
            tls: Some(Arc::new(serving.server_config_for(clients.clone()).unwrap())),
            clients: Some(clients),
            plain_http2: true,
            bounds,
            keepalive: (Duration::from_secs(30), Duration::from_secs(10)),
            max_age: None,
            router: routes.prepare().into_axum_router(),
        };
        let (signal, drain) = mesh_core::drain::channel();
        tokio::spawn(server.run(drain.clone()));
        tokio::spawn(serving.run(drain));
        let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap();
        let root_pem = material.root_pem.clone();
        Self { endpoint, addr, root_pem, authority: current, rotate, material, reviews, _drain: signal }
    }

    /// Waits until the port is served under another root.
    pub(crate) async fn is_served_under(&self, root_pem: &str) {
        let served = async {
            while self.channel("istiod.istio-system.svc", root_pem).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), served).await.expect("a certificate of the new authority");
    }

    /// A client that trusts the plane's root and shows what `shown` says.
    pub(crate) async fn connect(&self, shown: Option<Identity>) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.root_pem));
        let mut tls = tls.domain_name("istiod.istio-system.svc");
        if let Some(identity) = shown {
            tls = tls.identity(identity);
        }
        self.endpoint.clone().tls_config(tls)?.connect().await
    }

    pub(crate) async fn channel(&self, name: &str, root_pem: &str) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root_pem)).domain_name(name);
        self.endpoint.clone().tls_config(tls)?.connect().await
    }

    pub(crate) async fn stream(&self, token: Option<&str>, namespace: &str) -> Result<DeltaDiscoveryResponse, Status> {
        let (_, response) = open(self.connect(None).await.unwrap(), token, &[], namespace).await?;
        Ok(response)
    }

    pub(crate) async fn certificate(&self, token: &str, identity: &str, days: i64) -> Result<Vec<String>, Status> {
        certify(self.connect(None).await.unwrap(), Some(token), Some(identity), &csr(), days).await
    }
}

/// A request for a certificate, with a fresh key.
pub(crate) fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// Opens a stream and takes its headers and its first response.
pub(crate) async fn open(
    channel: Channel,
    token: Option<&str>,
    headers: &[(&'static str, &'static str)],
    namespace: &str,
) -> Result<(MetadataMap, DeltaDiscoveryResponse), Status> {
    let (requests, stream) = mpsc::channel(1);
    let node = Node { id: format!("ztunnel~1.1.1.1~zt.{namespace}~{namespace}.svc"), ..Node::default() };
    let first = DeltaDiscoveryRequest { node: Some(node), type_url: type_url::ADDRESS.into(), ..Default::default() };
    requests.send(first).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(stream));
    authorize(&mut request, token);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let response = client.delta_aggregated_resources(request).await?;
    let told = response.metadata().clone();
    let mut responses = response.into_inner();
    Ok((told, responses.message().await?.expect("an answer")))
}

/// Asks for a certificate.
pub(crate) async fn certify(
    channel: Channel,
    token: Option<&str>,
    identity: Option<&str>,
    csr: &str,
    days: i64,
) -> Result<Vec<String>, Status> {
    let value = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) };
    let fields = identity.map(|identity| ("ImpersonatedIdentity".to_owned(), value(identity))).into_iter().collect();
    let metadata = Some(prost_types::Struct { fields });
    let wanted = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: days * 86_400, metadata };
    let mut request = Request::new(wanted);
    authorize(&mut request, token);
    let mut client = IstioCertificateServiceClient::new(channel);
    Ok(client.create_certificate(request).await?.into_inner().cert_chain)
}

fn authorize<T>(request: &mut Request<T>, token: Option<&str>) {
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
}

/// The node proxy and one pod of x/y on the same node.
fn model() -> Model {
    let mut model = Model::default();
    for (namespace, name, account) in [("istio-system", "zt", "ztunnel"), ("x", "pod", "y")] {
        model.apply(Change::Upsert(Object::Pod(Pod {
            key: NamespacedName::new(namespace, name),
            uid: format!("uid-{name}").into(),
            service_account: account.into(),
            node: "n1".into(),
            labels: Default::default(),
            workload_name: name.into(),
            ips: Box::default(),
            ready: true,
            host_network: false,
            redirected: false,
            ports: Box::default(),
            binding: None,
        })));
    }
    model
}
