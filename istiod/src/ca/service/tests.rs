//! The whole service with a scripted token review and a scripted cluster.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::sync::watch;
use tonic::Code;

use super::*;
use crate::auth::{Attempts, TrustDomains};
use crate::ca::{Authority, self_signed};
use crate::world::{Change, Object, Pod};

/// The token is the namespace, account and optional pod of its owner: `ns:sa:pod`.
struct Tokens;

impl TokenReviewer for Tokens {
    async fn review(&self, token: &str, _audiences: &[String]) -> Result<TokenReviewStatus, AuthError> {
        let mut parts = token.split(':');
        let (namespace, account) = (parts.next().unwrap(), parts.next().unwrap());
        let extra = parts.next().map(|pod| {
            json!({"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [format!("uid-{pod}")]})
        });
        let status = json!({
            "authenticated": true, "audiences": ["istio-ca"],
            "user": {"username": format!("system:serviceaccount:{namespace}:{account}"), "groups": ["system:serviceaccounts"], "extra": extra},
        });
        Ok(serde_json::from_value(status).unwrap())
    }
}

#[derive(Default)]
struct Live {
    answer: LiveAnswer,
    calls: Arc<AtomicUsize>,
}

impl LivePods for Live {
    async fn fetch(&self, _claim: &Claim) -> Result<LiveAnswer, kube::Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(self.answer.clone())
    }
}

struct Nobody;

impl CaObserver for Nobody {
    fn requested(&self) {}
    fn unauthenticated(&self) {}
    fn unreadable(&self) {}
    fn failed(&self, _reason: &str) {}
    fn issued(&self) {}
}

fn pod(namespace: &str, name: &str, account: &str, node: &str) -> Change {
    Change::Upsert(Object::Pod(Pod {
        key: NamespacedName::new(namespace, name),
        uid: format!("uid-{name}").into(),
        service_account: account.into(),
        node: node.into(),
        labels: Default::default(),
        workload_name: name.into(),
        ips: Box::default(),
        ready: false,
        host_network: false,
        redirected: false,
        ports: Box::default(),
        binding: None,
    }))
}

fn service(live: Live) -> CertificateService<Tokens, Live> {
    let material = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    let (_, authority) = watch::channel(Arc::new(Authority::new(&material).unwrap()));
    let mut model = Model::default();
    model.apply(pod("istio-system", "zt", "ztunnel", "n1"));
    model.apply(pod("x", "pod", "y", "n1"));
    model.apply(pod("x", "elsewhere", "far", "n2"));
    let authenticator = Authenticator {
        reviewer: Tokens,
        audiences: vec!["istio-ca".into()],
        cluster_id: "Kubernetes".into(),
        cluster_aliases: Vec::new(),
        trust_domains: TrustDomains::default(),
        attempts: Attempts::default(),
    };
    let settings = CaSettings {
        trusted_node_accounts: vec![NamespacedName::new("istio-system", "ztunnel")],
        lifetimes: Lifetimes { default: Duration::from_secs(86_400), max: Duration::from_secs(90 * 86_400) },
    };
    CertificateService::new(
        Arc::new(authenticator),
        live,
        Arc::new(RwLock::new(model)),
        authority,
        settings,
        Arc::new(Nobody),
    )
}

async fn ask(
    service: &CertificateService<Tokens, Live>,
    token: &str,
    identity: Option<&str>,
) -> Result<String, Status> {
    ask_for(service, token, identity.map(|identity| ("ImpersonatedIdentity", identity))).await
}

async fn ask_for(
    service: &CertificateService<Tokens, Live>,
    token: &str,
    option: Option<(&str, &str)>,
) -> Result<String, Status> {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let metadata = option.map(|(name, value)| {
        let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(value.into())) };
        prost_types::Struct { fields: [(name.to_owned(), value)].into() }
    });
    let mut request = Request::new(IstioCertificateRequest { csr, metadata, ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let chain = service.create_certificate(request).await?.into_inner().cert_chain;
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain[0].as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap().value.general_names[0].to_string();
    Ok(san)
}

const ZTUNNEL: &str = "istio-system:ztunnel:zt";

#[tokio::test]
async fn ca_row_1_without_impersonation_the_certificate_is_the_callers() {
    let san = ask(&service(Live::default()), "a:b", None).await.unwrap();
    assert_eq!(san, "URI(spiffe://cluster.local/ns/a/sa/b)");
}

#[tokio::test]
async fn a_signer_that_we_are_not_is_refused_by_name() {
    let error =
        ask_for(&service(Live::default()), "a:b", Some(("CertSigner", "example.com/signer"))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("CertSigner"), "{error}");
}

#[tokio::test]
async fn ca_row_2_a_pod_on_the_node_may_be_impersonated() {
    let live = Live::default();
    let calls = live.calls.clone();
    let san = ask(&service(live), ZTUNNEL, Some("spiffe://cluster.local/ns/x/sa/y")).await.unwrap();
    assert_eq!(san, "URI(spiffe://cluster.local/ns/x/sa/y)");
    assert_eq!(calls.load(Ordering::Relaxed), 0, "the world knew");
}

#[tokio::test]
async fn ca_row_3_xds_row_12_a_pod_elsewhere_may_not_be() {
    let live = Live::default();
    let calls = live.calls.clone();
    let status = ask(&service(live), ZTUNNEL, Some("spiffe://cluster.local/ns/x/sa/far")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(!status.message().contains("n1"), "opaque: {}", status.message());
    assert_eq!(calls.load(Ordering::Relaxed), 1, "asked once more before refusing");
}

#[tokio::test]
async fn a_pod_that_the_world_has_not_heard_of_is_looked_up() {
    let caller = CallerPod { uid: "uid-zt".into(), service_account: "ztunnel".into(), node: "n1".into() };
    let live = Live { answer: LiveAnswer { caller: Some(caller), runs_on_node: true }, ..Live::default() };
    assert!(ask(&service(live), ZTUNNEL, Some("spiffe://cluster.local/ns/x/sa/new")).await.is_ok());
}

#[tokio::test]
async fn ca_row_4_and_5_and_others_are_unauthenticated() {
    for (token, identity) in [
        ("istio-system:ztunnel", "spiffe://cluster.local/ns/x/sa/y"),
        ("istio-system:ztunnel:gone", "spiffe://cluster.local/ns/x/sa/y"),
        ("istio-system:other:zt", "spiffe://cluster.local/ns/x/sa/y"),
        (ZTUNNEL, "spiffe://elsewhere/ns/x/sa/y"),
        (ZTUNNEL, ""),
    ] {
        let status = ask(&service(Live::default()), token, Some(identity)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{token} {identity}");
    }
}
