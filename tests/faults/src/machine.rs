//! A virtual machine: it proves a service account by a certificate of the mesh, and registers itself.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use mesh_wire::ca::IstioCertificateRequest;
use mesh_wire::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_wire::discovery::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_wire::workload::address::Type;
use mesh_wire::workload::{Address, Workload};
use prost::Message;
use prost_types::value::Kind;
use sandbox::store::ResourceKey;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

use crate::ads::ADDRESS;
use crate::cluster::Cluster;

/// A machine with a certificate.
#[derive(Debug, Clone)]
pub struct Machine {
    namespace: String,
    root: Vec<u8>,
    chain: String,
    key: String,
}

/// What it says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Its address.
    pub address: &'a str,
    /// Its group.
    pub group: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// An open stream of a machine.
#[derive(Debug)]
pub struct Registration {
    out: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// What the first answer told.
    first: Vec<Workload>,
}

impl Machine {
    /// Gives a service account a certificate: a token of it is exchanged, as a machine is brought into the mesh.
    ///
    /// # Errors
    /// The control plane signs nothing.
    pub async fn new(cluster: &Cluster, plane: SocketAddr, namespace: &str, account: &str) -> Result<Self> {
        let object =
            json!({"metadata": {"name": account, "namespace": namespace, "uid": format!("{account}-account")}});
        cluster.put(&ResourceKey::new("", "serviceaccounts"), object)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), namespace);
        let spec = TokenRequestSpec { audiences: vec!["istio-ca".to_owned()], ..TokenRequestSpec::default() };
        let wanted = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &wanted).await?;
        let token = answer.status.context("a token")?.token;
        let root = cluster.mesh_root().await?;
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
        let mut request = Request::new(IstioCertificateRequest { csr, ..IstioCertificateRequest::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let channel = connect(plane, &root, None).await?;
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await?;
        let mut chain = answer.into_inner().cert_chain;
        chain.pop().context("a root")?;
        Ok(Self { namespace: namespace.to_owned(), root, chain: chain.concat(), key: key.serialize_pem() })
    }

    /// What it says of itself where it says the truth.
    #[must_use]
    pub fn says<'a>(&'a self, address: &'a str, group: &'a str) -> Said<'a> {
        Said { address, group, namespace: &self.namespace }
    }

    /// Opens a stream and waits for its first answer, with nothing to prove itself by but its certificate.
    ///
    /// # Errors
    /// What the stream ends with.
    pub async fn register(&self, plane: SocketAddr, said: Said<'_>) -> Result<Registration, Status> {
        let identity = Identity::from_pem(&self.chain, &self.key);
        let channel = connect(plane, &self.root, Some(identity)).await;
        let channel = channel.map_err(|error| Status::unavailable(format!("{error:#}")))?;
        let (out, requests) = mpsc::channel(8);
        let text = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields =
            [("AUTO_REGISTER_GROUP", said.group), ("NAMESPACE", said.namespace), ("INSTANCE_IPS", said.address)];
        let metadata =
            prost_types::Struct { fields: fields.map(|(name, value)| (name.to_owned(), text(value))).into() };
        let id = format!("sidecar~{}~vm.{}~{}.svc.cluster.local", said.address, said.namespace, said.namespace);
        let node = Node { id, metadata: Some(metadata), ..Node::default() };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: ADDRESS.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let closed = |_| Status::unavailable("the stream is closed");
        out.send(first).await.map_err(closed)?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(requests)).await?.into_inner();
        let mut registration = Registration { out, responses, first: Vec::new() };
        registration.first = registration.next().await?;
        Ok(registration)
    }
}

impl Registration {
    /// Says how the workload is: what is wrong, or nothing.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn tell_health(&self, wrong: Option<&str>) -> Result<()> {
        let error =
            |text: &str| discovery::Status { code: 14, message: text.to_owned(), ..discovery::Status::default() };
        let request = DeltaDiscoveryRequest {
            type_url: "type.googleapis.com/istio.v1.HealthInformation".to_owned(),
            error_detail: wrong.map(error),
            ..DeltaDiscoveryRequest::default()
        };
        self.out.send(request).await.context("the stream has ended")
    }

    /// Waits until a workload is told that is as wanted.
    ///
    /// # Errors
    /// The stream ends, or it is not told in time.
    pub async fn hears(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Workload) -> bool,
    ) -> Result<Workload> {
        let heard = async {
            let mut told = std::mem::take(&mut self.first);
            loop {
                if let Some(workload) = told.into_iter().find(|one| wanted(one)) {
                    return anyhow::Ok(workload);
                }
                told = self.next().await?;
            }
        };
        tokio::time::timeout(within, heard).await.with_context(|| format!("not within {within:?}: {what}"))?
    }

    /// The workloads of the next response.
    async fn next(&mut self) -> Result<Vec<Workload>, Status> {
        let ended = || Status::unavailable("the stream has ended");
        let response = self.responses.message().await?.ok_or_else(ended)?;
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.out.send(answer).await.map_err(|_| ended())?;
        let bodies = response.resources.into_iter().filter_map(|one| one.resource);
        let addresses = bodies.filter_map(|body| Address::decode(body.value.as_slice()).ok()?.r#type);
        Ok(addresses.filter_map(|one| if let Type::Workload(one) = one { Some(one) } else { None }).collect())
    }
}

async fn connect(plane: SocketAddr, root: &[u8], identity: Option<Identity>) -> Result<Channel> {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("istiod.istio-system.svc");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    Ok(Endpoint::from_shared(format!("https://{plane}"))?.tls_config(tls)?.connect().await?)
}
