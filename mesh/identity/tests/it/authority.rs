//! The authority's client against an authority that answers as told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::Identity;
use mesh_identity::testing::{IssueOptions, TestCa};
use mesh_identity::{CaClient, CaConfig, CertError, CertSource, RootSource, TlsPolicy, TokenSource};
use mesh_wire::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use mesh_wire::ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::transport::{Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What the next answers hold besides the leaf.
#[derive(Clone)]
enum Answer {
    /// Sign for this identity, whatever was asked, and append these elements.
    Chain {
        uri: String,
        rest: Vec<String>,
    },
    Nothing,
    Refuse(Status),
}

#[derive(Debug, Clone, Default)]
struct Seen {
    authorization: String,
    cluster: String,
    extra: String,
    impersonated: Option<String>,
    validity: i64,
}

struct Authority {
    workloads: TestCa,
    answer: Mutex<Answer>,
    seen: Mutex<Vec<Seen>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Shared {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let header =
            |name: &str| request.metadata().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let message = request.get_ref();
        let impersonated = message.metadata.as_ref().and_then(|metadata| metadata.fields.get("ImpersonatedIdentity"));
        self.0.seen.lock().unwrap().push(Seen {
            authorization: header("authorization"),
            cluster: header("clusterid"),
            extra: header("x-extra"),
            impersonated: impersonated.map(|value| match &value.kind {
                Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
                other => format!("{other:?}"),
            }),
            validity: message.validity_duration,
        });
        match self.0.answer.lock().unwrap().clone() {
            Answer::Refuse(status) => Err(status),
            Answer::Nothing => Ok(Response::new(IstioCertificateResponse::default())),
            Answer::Chain { uri, rest } => {
                let options = IssueOptions { uris: vec![uri], ..IssueOptions::default() };
                let mut cert_chain = vec![self.0.workloads.sign_csr(&message.csr, &options)];
                cert_chain.extend(rest);
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
        }
    }
}

struct Shared(Arc<Authority>);

impl Authority {
    fn new() -> Arc<Self> {
        let workloads = TestCa::new();
        let answer = Answer::Chain { uri: web().to_string(), rest: vec![workloads.root_pem()] };
        Arc::new(Self { workloads, answer: Mutex::new(answer), seen: Mutex::default() })
    }

    /// Serves with a certificate for `name` from `serving`; stops when the returned guard is dropped.
    async fn serve(self: &Arc<Self>, serving: &TestCa, name: &str, at: Option<SocketAddr>) -> (SocketAddr, Stop) {
        let leaf = serving.issue_with(&IssueOptions { dns_names: vec![name.into()], ..IssueOptions::default() });
        let identity = TlsIdentity::from_pem(mesh_identity::testing::pem(leaf.leaf()), leaf.key_pem());
        let listener = tokio::net::TcpListener::bind(at.unwrap_or("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        let router = server.add_service(IstioCertificateServiceServer::new(Shared(self.clone())));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let task = tokio::spawn(router.serve_with_incoming(incoming));
        (addr, Stop(task))
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

struct Stop(tokio::task::JoinHandle<Result<(), tonic::transport::Error>>);

impl Stop {
    /// Stops and waits until the port is free again.
    async fn now(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn web() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn config(addr: SocketAddr, root: &Path, token: &Path) -> CaConfig {
    CaConfig {
        address: format!("https://localhost:{}", addr.port()),
        root: RootSource::File(root.to_owned()),
        alt_hostname: None,
        token: TokenSource::File(token.to_owned()),
        cluster_id: "c1".into(),
        extra_headers: vec![("X-Extra".into(), "more".into())],
        ttl: Duration::from_secs(86400),
        impersonate: true,
        tls: TlsPolicy::default(),
    }
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(ca: &TestCa) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(files.root(), ca.root_pem()).unwrap();
        std::fs::write(files.token(), "first\n").unwrap();
        files
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root.pem")
    }

    fn token(&self) -> std::path::PathBuf {
        self.dir.path().join("token")
    }
}

#[tokio::test]
async fn ca_row_2_and_ca_row_14_requests_impersonate_and_carry_the_token_of_the_moment() {
    let (authority, serving) = (Authority::new(), TestCa::new());
    let (addr, _stop) = authority.serve(&serving, "localhost", None).await;
    let files = Files::new(&serving);
    let client = CaClient::new(config(addr, &files.root(), &files.token()));

    let cert = client.issue(web()).await.unwrap();
    assert_eq!(cert.identity(), &web());
    let seen = authority.last();
    assert_eq!(
        (seen.authorization.as_str(), seen.cluster.as_str(), seen.extra.as_str()),
        ("Bearer first", "c1", "more")
    );
    assert_eq!((seen.impersonated, seen.validity), (Some(web().to_string()), 86400));

    std::fs::write(files.token(), "second").unwrap();
    client.issue(web()).await.unwrap();
    assert_eq!(authority.last().authorization, "Bearer second");

    std::fs::remove_file(files.token()).unwrap();
    let error = client.issue(web()).await.unwrap_err();
    assert!(matches!(error, CertError::Token { .. }), "{error}");
}

#[tokio::test]
async fn ca_row_1_dedicated_mode_sends_no_metadata() {
    let (authority, serving) = (Authority::new(), TestCa::new());
    let (addr, _stop) = authority.serve(&serving, "localhost", None).await;
    let files = Files::new(&serving);
    let config = CaConfig { impersonate: false, ..config(addr, &files.root(), &files.token()) };
    CaClient::new(config).issue(web()).await.unwrap();
    assert_eq!(authority.last().impersonated, None);
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_thrown_away() {
    let (authority, serving) = (Authority::new(), TestCa::new());
    let (addr, _stop) = authority.serve(&serving, "localhost", None).await;
    let files = Files::new(&serving);
    let client = CaClient::new(config(addr, &files.root(), &files.token()));
    let other = "spiffe://cluster.local/ns/shop/sa/other".to_owned();
    authority.answer(Answer::Chain { uri: other, rest: vec![serving.root_pem()] });
    assert_eq!(
        client.issue(web()).await.unwrap_err().to_string(),
        "certificate is for spiffe://cluster.local/ns/shop/sa/other, wanted spiffe://cluster.local/ns/shop/sa/web"
    );
}

#[tokio::test]
async fn answers_without_leaf_or_root_are_errors() {
    let (authority, serving) = (Authority::new(), TestCa::new());
    let (addr, _stop) = authority.serve(&serving, "localhost", None).await;
    let files = Files::new(&serving);
    let client = CaClient::new(config(addr, &files.root(), &files.token()));
    authority.answer(Answer::Nothing);
    let error = client.issue(web()).await.unwrap_err().to_string();
    assert_eq!(error, "certificate chain for spiffe://cluster.local/ns/shop/sa/web is unusable: the answer is empty");
    authority.answer(Answer::Chain { uri: web().to_string(), rest: vec![] });
    let error = client.issue(web()).await.unwrap_err().to_string();
    assert!(error.ends_with("the answer has a leaf but no root"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_reported_with_the_words_of_the_authority() {
    let (authority, serving) = (Authority::new(), TestCa::new());
    let (addr, _stop) = authority.serve(&serving, "localhost", None).await;
    let files = Files::new(&serving);
    let client = CaClient::new(config(addr, &files.root(), &files.token()));
    authority.answer(Answer::Refuse(Status::unauthenticated("request authenticate failure")));
    assert_eq!(
        client.issue(web()).await.unwrap_err().to_string(),
        "certificate authority refused spiffe://cluster.local/ns/shop/sa/web: Unauthenticated: \
         request authenticate failure"
    );
}

#[tokio::test]
async fn the_server_must_prove_its_name_or_the_alternative_one() {
    let (authority, serving) = (Authority::new(), TestCa::new());
    let (addr, _stop) = authority.serve(&serving, "istiod.istio-system.svc", None).await;
    let files = Files::new(&serving);
    let strict = config(addr, &files.root(), &files.token());
    let error = CaClient::new(strict.clone()).issue(web()).await.unwrap_err();
    assert!(matches!(error, CertError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("not valid for"), "{error}");
    let lenient = CaConfig { alt_hostname: Some("istiod.istio-system.svc".into()), ..strict };
    CaClient::new(lenient).issue(web()).await.unwrap();
}

#[tokio::test]
async fn ca_row_15_a_replaced_root_is_picked_up_and_a_broken_one_is_not() {
    let (authority, old, new) = (Authority::new(), TestCa::new(), TestCa::new());
    let (addr, stop) = authority.serve(&old, "localhost", None).await;
    let files = Files::new(&old);
    let client = CaClient::new(config(addr, &files.root(), &files.token()));
    client.issue(web()).await.unwrap();

    std::fs::write(files.root(), "garbage").unwrap();
    client.issue(web()).await.expect("the old connection stays in use");

    stop.now().await;
    let (_, _stop) = authority.serve(&new, "localhost", Some(addr)).await;
    std::fs::write(files.root(), new.root_pem()).unwrap();
    client.issue(web()).await.unwrap();
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_named() {
    let serving = TestCa::new();
    let files = Files::new(&serving);
    let client = CaClient::new(config("127.0.0.1:1".parse().unwrap(), &files.root(), &files.token()));
    let error = client.issue(web()).await.unwrap_err().to_string();
    assert!(error.starts_with("certificate authority https://localhost:1 cannot be reached: "), "{error}");
}
