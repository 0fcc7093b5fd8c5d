//! A webhook server on loopback, and clients for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use istiod::ca::serving::{Serving, dns_names};
use istiod::ca::{Authority, self_signed};
use istiod::listen;
use istiod::webhook::{Limits, Webhook, WebhookMetrics, serve};
use mesh_api::validate::Context;
use mesh_core::drain::{self, DrainSignal};
use mesh_core::identity::TrustDomain;
use mesh_telemetry::metrics::Registry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) type Tls = TlsStream<TcpStream>;

pub(crate) struct Plane {
    pub(crate) registry: Registry,
    pub(crate) authority: watch::Sender<Arc<Authority>>,
    addr: SocketAddr,
    root_pem: String,
    _signal: Arc<DrainSignal>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::with(Limits { idle: Duration::from_secs(2), head: Duration::from_secs(1), ..Limits::default() }).await
    }

    async fn with(limits: Limits) -> Self {
        let material = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
        let (authority, current) = watch::channel(Arc::new(Authority::new(&material).unwrap()));
        let serving = Serving::new(dns_names(&[], "default", "istio-system"), current).unwrap();
        let registry = Registry::new();
        let mut webhook = Webhook::new(Box::new(Context::default), Arc::new(WebhookMetrics::new(&registry)));
        webhook.patience = Duration::from_secs(2);
        let listener = listen::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (signal, drain) = drain::channel();
        tokio::spawn(serve(listener, serving.webhook_config().unwrap(), Arc::new(webhook), limits, drain.clone()));
        tokio::spawn(serving.run(drain));
        Self { registry, authority, addr, root_pem: material.root_pem, _signal: Arc::new(signal) }
    }

    /// The same server, seen by a client that trusts another root.
    pub(crate) fn trusting(&self, root_pem: &str) -> Self {
        Self {
            registry: self.registry.clone(),
            authority: self.authority.clone(),
            addr: self.addr,
            root_pem: root_pem.to_owned(),
            _signal: self._signal.clone(),
        }
    }

    /// A TCP connection from another address of the machine.
    pub(crate) async fn tcp(&self, last: u8) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
        socket.connect(self.addr).await
    }

    pub(crate) async fn tls(&self, alpn: &str, last: u8) -> std::io::Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp(last).await?).await
    }

    pub(crate) async fn connect_http2(&self) -> conn::http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.tls("h2", 1).await.unwrap());
        let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Status and body of an answer.
    pub(crate) async fn review(&self, alpn: &str, body: &str) -> std::io::Result<(u16, Value)> {
        let io = TokioIo::new(self.tls(alpn, 1).await?);
        let other = std::io::Error::other;
        let response = if alpn == "h2" {
            let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.map_err(other)?;
            tokio::spawn(connection);
            sender.send_request(request(body.to_owned())).await.map_err(other)?
        } else {
            let (mut sender, connection) = conn::http1::handshake(io).await.map_err(other)?;
            tokio::spawn(connection);
            sender.send_request(request(body.to_owned())).await.map_err(other)?
        };
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.map_err(other)?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into())))
    }

    /// Fails unless a review is answered soon, from another address than attackers use.
    pub(crate) async fn assert_serves(&self, during: &str) {
        let answer = tokio::time::timeout(Duration::from_secs(5), self.review("h2", &review("{}"))).await;
        let (status, _) = answer.unwrap_or_else(|_| panic!("{during}: no answer in time")).unwrap();
        assert_eq!(status, 200, "{during}");
    }
}

pub(crate) fn request(body: String) -> Request<Full<Bytes>> {
    let request = Request::post("https://istiod.istio-system.svc/validate");
    request.header("content-type", "application/json").header("host", "istiod").body(Full::from(body)).unwrap()
}

/// A review of a PeerAuthentication with this spec.
pub(crate) fn review(spec: &str) -> String {
    let spec: Value = serde_json::from_str(spec).unwrap();
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "u1", "operation": "CREATE", "userInfo": {}, "namespace": "shop", "name": "x",
            "kind": {"group": "security.istio.io", "version": "v1", "kind": "PeerAuthentication"},
            "resource": {"group": "security.istio.io", "version": "v1", "resource": "peerauthentications"},
            "object": {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "x"}, "spec": spec},
        },
    })
    .to_string()
}
