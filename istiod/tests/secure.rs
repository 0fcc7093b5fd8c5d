//! The authenticated port as a node proxy sees it: TLS, tokens, streams and certificates over loopback, with a scripted
//! token review. Rows are those of the must-pass table of the xDS server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use istiod::auth::{AuthError, Authenticator, TokenReviewer};
use istiod::ca::authority::Lifetimes;
use istiod::ca::impersonation::Claim;
use istiod::ca::service::{CaSettings, CertificateService, LiveAnswer, LivePods};
use istiod::ca::serving::{Serving, dns_names};
use istiod::ca::{Authority, self_signed};
use istiod::gate::{Gate, RateLimiter};
use istiod::listen;
use istiod::metrics::{HubMetrics, Metrics};
use istiod::publish::TYPES;
use istiod::translate::Model;
use istiod::world::{Change, Object, Pod};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
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
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request, Status};

/// Tokens are `audience:namespace:account:pod`.
struct Tokens;

impl TokenReviewer for Tokens {
    async fn review(&self, token: &str, _audiences: &[String]) -> Result<TokenReviewStatus, AuthError> {
        let parts: Vec<_> = token.split(':').collect();
        let status = json!({
            "authenticated": true,
            "audiences": [parts[0]],
            "user": {
                "username": format!("system:serviceaccount:{}:{}", parts[1], parts[2]),
                "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": [parts[3]],
                    "authentication.kubernetes.io/pod-uid": [format!("uid-{}", parts[3])],
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

const ZTUNNEL: &str = "istio-ca:istio-system:ztunnel:zt";

struct Plane {
    endpoint: Endpoint,
    root_pem: String,
}

impl Plane {
    async fn start() -> Self {
        let material = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
        let (_, authority) = watch::channel(Arc::new(Authority::new(&material).unwrap()));
        let serving = Serving::new(dns_names(&[], "default", "istio-system"), authority.clone()).unwrap();
        let metrics = Arc::new(Metrics::new(&mesh_telemetry::metrics::Registry::new()));
        let options = HubOptions { hold: Duration::from_millis(20), ..HubOptions::default() };
        let hub = Hub::new(&TYPES, options, Box::new(HubMetrics(metrics.clone())));
        hub.set_ready(true);
        let authenticator = Arc::new(Authenticator {
            reviewer: Tokens,
            audiences: vec!["istio-ca".into()],
            cluster_id: "Kubernetes".into(),
            cluster_aliases: Vec::new(),
        });
        let gate = Gate {
            authenticator: Some(authenticator.clone()),
            identity_check: true,
            limiter: Arc::new(RateLimiter::new(100)),
        };
        let settings = CaSettings {
            trusted_node_accounts: vec![NamespacedName::new("istio-system", "ztunnel")],
            lifetimes: Lifetimes { default: Duration::from_secs(86_400), max: Duration::from_secs(90 * 86_400) },
        };
        let model = Arc::new(RwLock::new(model()));
        let certificates = CertificateService::new(authenticator, Empty, model, authority, settings, metrics);
        let listener = listen::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Server::builder()
            .add_service(AdsService::new(hub, Arc::new(gate)))
            .add_service(IstioCertificateServiceServer::new(certificates));
        tokio::spawn(router.serve_with_incoming(listen::tls(listener, serving.server_config().unwrap())));
        let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap();
        Self { endpoint, root_pem: material.root_pem }
    }

    async fn channel(&self, name: &str, root_pem: &str) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root_pem)).domain_name(name);
        self.endpoint.clone().tls_config(tls)?.connect().await
    }

    async fn stream(&self, token: Option<&str>, namespace: &str) -> Result<DeltaDiscoveryResponse, Status> {
        let channel = self.channel("istiod.istio-system.svc", &self.root_pem).await.unwrap();
        let (requests, stream) = mpsc::channel(1);
        let node = Node { id: format!("ztunnel~1.1.1.1~zt.{namespace}~{namespace}.svc"), ..Node::default() };
        let first =
            DeltaDiscoveryRequest { node: Some(node), type_url: type_url::ADDRESS.into(), ..Default::default() };
        requests.send(first).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(stream));
        authorize(&mut request, token);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let mut responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(responses.message().await?.expect("an answer"))
    }

    async fn certificate(&self, token: &str, identity: &str, days: i64) -> Result<Vec<String>, Status> {
        let channel = self.channel("istiod.istio-system.svc", &self.root_pem).await.unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(identity.into())) };
        let metadata = prost_types::Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() };
        let wanted = IstioCertificateRequest { csr, validity_duration: days * 86_400, metadata: Some(metadata) };
        let mut request = Request::new(wanted);
        authorize(&mut request, Some(token));
        let mut client = IstioCertificateServiceClient::new(channel);
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }
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
        })));
    }
    model
}

#[tokio::test]
async fn a_node_proxy_with_its_own_token_is_served() {
    let plane = Plane::start().await;
    let response = plane.stream(Some(ZTUNNEL), "istio-system").await.unwrap();
    assert!(response.resources.is_empty() && !response.nonce.is_empty());
}

#[tokio::test]
async fn row_10_another_audience_or_no_token_is_unauthenticated() {
    let plane = Plane::start().await;
    for token in [Some("other:istio-system:ztunnel:zt"), None] {
        let status = plane.stream(token, "istio-system").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "authentication failure", "nothing is given away");
    }
}

#[tokio::test]
async fn row_11_a_node_of_another_namespace_is_denied() {
    let status = Plane::start().await.stream(Some("istio-ca:ns-a:sa1:p"), "ns-b").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn rows_12_and_13_certificates() {
    let plane = Plane::start().await;
    let chain = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/y", 0).await.unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].trim(), plane.root_pem.trim());
    let status = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/elsewhere", 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/y", 200).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_serving_certificate_holds_for_its_names_and_root_only() {
    let plane = Plane::start().await;
    assert!(plane.channel("istio-pilot.istio-system.svc", &plane.root_pem).await.is_ok());
    assert!(plane.channel("evil.example.com", &plane.root_pem).await.is_err());
    let other = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    assert!(plane.channel("istiod.istio-system.svc", &other.root_pem).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_speaks_holds_up_nobody() {
    let plane = Plane::start().await;
    let authority = plane.endpoint.uri().authority().unwrap().clone();
    let _silent = tokio::net::TcpStream::connect(authority.as_str()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), plane.stream(Some(ZTUNNEL), "istio-system")).await;
    assert!(answer.unwrap().is_ok());
}
