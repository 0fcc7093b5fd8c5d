//! Client of the certificate authority.
//!
//! # Source
//! gRPC service `istio.v1.auth.IstioCertificateService`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::Identity;
use mesh_wire::ca::IstioCertificateRequest;
use mesh_wire::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rcgen::{CertificateParams, DistinguishedName, SanType};
use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;

use crate::chain::Chain;
use crate::error::CertError;
use crate::key::{FreshKey, PrivateKey};
use crate::manager::CertSource;
use crate::tls::TlsPolicy;
use crate::workload::WorkloadCert;

pub(crate) mod channel;

/// Where the certificates come from that vouch for a control-plane server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A PEM file; read again before each connection, so that a replaced root is picked up.
    File(PathBuf),
    /// The bundle of the operating system.
    System,
    /// PEM text.
    Inline(String),
}

/// Where the bearer token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file, read again for each request: the kubelet rotates it.
    File(PathBuf),
    /// The token itself.
    Literal(String),
    /// No token is sent.
    None,
}

/// How to reach the authority and what to ask for.
#[derive(Debug, Clone)]
pub struct CaConfig {
    /// `https://host:port`; the server must prove `host`, or [`CaConfig::alt_hostname`].
    pub address: String,
    /// Who vouches for the server.
    pub root: RootSource,
    /// A second name the server may prove (`ALT_CA_HOSTNAME`).
    pub alt_hostname: Option<String>,
    /// Who we are to the server.
    pub token: TokenSource,
    /// Sent as `clusterid`.
    pub cluster_id: String,
    /// Further headers (`CA_HEADER_*`).
    pub extra_headers: Vec<(String, String)>,
    /// Requested life of certificates (`SECRET_TTL`); whole seconds.
    pub ttl: Duration,
    /// Ask for the identities of other pods (shared mode) rather than for our own.
    pub impersonate: bool,
    /// What the certificates' configurations keep to.
    pub tls: TlsPolicy,
}

/// Asks the authority over gRPC. Each request makes a key of its own; the key never leaves this process.
pub struct CaClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: CaConfig,
    /// The connection and the root bytes it was made with.
    channel: Mutex<Option<(Vec<u8>, Channel)>>,
}

impl CaClient {
    /// Does not connect yet.
    #[must_use]
    pub fn new(config: CaConfig) -> Self {
        Self { inner: Arc::new(Inner { config, channel: Mutex::new(None) }) }
    }
}

impl CertSource for CaClient {
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        let inner = self.inner.clone();
        async move { inner.issue(identity).await }.boxed()
    }
}

impl Inner {
    async fn issue(&self, identity: Identity) -> Result<WorkloadCert, CertError> {
        let (key, csr) = signing_request(&identity)?;
        let mut request = tonic::Request::new(self.message(&identity, csr));
        self.add_headers(request.metadata_mut()).await?;
        let mut client = IstioCertificateServiceClient::new(self.channel().await?);
        let answer = client.create_certificate(request).await.map_err(|status| self.refusal(&identity, &status))?;
        let chain = Chain::from_response(&answer.into_inner().cert_chain)
            .map_err(|e| CertError::BadChain { identity: identity.clone(), reason: e.to_string() })?;
        WorkloadCert::new(identity, key, chain, self.config.tls.clone())
    }

    fn message(&self, identity: &Identity, csr: String) -> IstioCertificateRequest {
        let impersonated = Value { kind: Some(Kind::StringValue(identity.to_string())) };
        IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.config.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self
                .config
                .impersonate
                .then(|| Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), impersonated)].into() }),
        }
    }

    async fn add_headers(&self, headers: &mut MetadataMap) -> Result<(), CertError> {
        if let Some(token) = self.config.token.read().await? {
            let mut bearer = ascii("authorization", &format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.insert("authorization", bearer);
        }
        headers.insert("clusterid", ascii("clusterid", &self.config.cluster_id)?);
        for (name, value) in &self.config.extra_headers {
            let key = MetadataKey::<Ascii>::from_bytes(name.to_ascii_lowercase().as_bytes())
                .map_err(|e| bad_header(name, &e.to_string()))?;
            headers.insert(key, ascii(name, value)?);
        }
        Ok(())
    }

    /// The connection, made anew when the root file changed. A new file that is no good leaves the old one in use.
    async fn channel(&self) -> Result<Channel, CertError> {
        let mut current = self.channel.lock().await;
        let read = self.config.root.read().await;
        if let (Some((bytes, channel)), Ok(root)) = (&*current, &read)
            && bytes == root
        {
            return Ok(channel.clone());
        }
        let made = read.and_then(|root| Ok((channel::connect(&self.config, &root)?, root)));
        match (made, &*current) {
            (Ok((channel, root)), _) => {
                *current = Some((root, channel.clone()));
                Ok(channel)
            }
            (Err(reason), Some((_, old))) => {
                tracing::warn!(reason, "new root of the certificate authority is unusable, keeping the old one");
                Ok(old.clone())
            }
            (Err(reason), None) => Err(CertError::Unreachable { address: self.config.address.clone(), reason }),
        }
    }

    fn refusal(&self, identity: &Identity, status: &tonic::Status) -> CertError {
        // A status made here, not by the server, wraps the transport's error.
        if let Some(cause) = std::error::Error::source(status) {
            return CertError::Unreachable { address: self.config.address.clone(), reason: with_causes(cause) };
        }
        CertError::Refused {
            identity: identity.clone(),
            code: format!("{:?}", status.code()),
            message: status.message().to_owned(),
        }
    }
}

impl fmt::Debug for CaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaClient").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl RootSource {
    async fn read(&self) -> Result<Vec<u8>, String> {
        let path = match self {
            Self::Inline(pem) => return Ok(pem.as_bytes().to_vec()),
            Self::File(path) => path.clone(),
            Self::System => PathBuf::from(SYSTEM_BUNDLE),
        };
        tokio::fs::read(&path).await.map_err(|e| format!("root file {} cannot be read: {e}", path.display()))
    }
}

impl TokenSource {
    async fn read(&self) -> Result<Option<String>, CertError> {
        match self {
            Self::None => Ok(None),
            Self::Literal(token) => Ok(Some(token.clone())),
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(token) => Ok(Some(token.trim().to_owned())),
                Err(e) => Err(CertError::Token { path: path.display().to_string(), reason: e.to_string() }),
            },
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Literal(_) => f.write_str("Literal(<redacted>)"),
            Self::None => f.write_str("None"),
        }
    }
}

/// A fresh P-256 key and the request for it: empty subject, one critical URI name.
fn signing_request(identity: &Identity) -> Result<(PrivateKey, String), CertError> {
    let failed = |reason: String| CertError::Request { identity: identity.clone(), reason };
    let key = FreshKey::generate().map_err(|e| failed(e.to_string()))?;
    let uri = identity.to_string();
    let name = uri.as_str().try_into().map_err(|e: rcgen::Error| failed(e.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name)];
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(|e| failed(e.to_string()))?;
    Ok((key.into_private_key().map_err(|e| failed(e.to_string()))?, csr))
}

fn ascii(name: &str, value: &str) -> Result<MetadataValue<Ascii>, CertError> {
    value.parse().map_err(|_| bad_header(name, "its value is not visible ASCII"))
}

fn bad_header(name: &str, reason: &str) -> CertError {
    CertError::Unreachable { address: format!("(header {name})"), reason: reason.to_owned() }
}

/// An error with everything that led to it, outermost first.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
/// Debian and its relatives; images of ours are built from it.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, ParsedExtension, X509CertificationRequest};

    #[test]
    fn the_request_has_an_empty_subject_and_one_critical_uri() {
        let identity: Identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let (_, csr) = signing_request(&identity).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        assert_eq!(parsed.certification_request_info.subject.iter().count(), 0);
        parsed.verify_signature().unwrap();
        let extensions: Vec<_> = parsed.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(names)] = extensions.as_slice() else {
            panic!("{extensions:?}");
        };
        assert_eq!(names.general_names.len(), 1);
        // BOOLEAN TRUE after the OID of subjectAltName: the extension is critical.
        let critical = [0x06, 0x03, 0x55, 0x1d, 0x11, 0x01, 0x01, 0xff];
        assert!(pem.contents.windows(critical.len()).any(|w| w == critical));
    }

    #[test]
    fn a_literal_token_never_shows() {
        assert_eq!(format!("{:?}", TokenSource::Literal("secret".into())), "Literal(<redacted>)");
    }
}
