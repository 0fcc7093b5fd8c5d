//! The control plane's own serving certificate, issued by its own authority and issued again when that changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_core::drain::DrainWatch;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Authority, CurrentAuthority};

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// The authority did not sign.
    #[error("serving certificate")]
    Unsigned(#[from] super::authority::SignError),
    /// The TLS library does not take it.
    #[error("serving certificate")]
    Tls(#[from] rustls::Error),
}

/// A serving certificate that follows the authority.
#[derive(Debug)]
pub struct Serving {
    names: Vec<String>,
    authority: CurrentAuthority,
    key: Arc<Current>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Serving {
    /// Issues the first certificate for these DNS names.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn new(names: Vec<String>, mut authority: CurrentAuthority) -> Result<Self, ServingError> {
        let key = issue(&authority.borrow_and_update(), &names)?;
        Ok(Self { names, authority, key: Arc::new(Current(ArcSwap::from_pointee(key))) })
    }

    /// TLS for gRPC: 1.2 or later, the current certificate, HTTP/2.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn server_config(&self) -> Result<ServerConfig, ServingError> {
        self.speaking(&["h2"])
    }

    /// TLS for webhooks: the same certificate, HTTP/2 or HTTP/1.1.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn webhook_config(&self) -> Result<ServerConfig, ServingError> {
        self.speaking(&["h2", "http/1.1"])
    }

    fn speaking(&self, protocols: &[&str]) -> Result<ServerConfig, ServingError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.key.clone());
        config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        Ok(config)
    }

    /// As [`Self::server_config`]; callers may show a certificate, which `clients` judges. Sessions are not resumed: each
    /// connection proves anew who it is, by what is trusted then.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn server_config_for(&self, clients: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, ServingError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(self.key.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Re-issues when the authority changes and long before expiry, until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        loop {
            tokio::select! {
                _ = drain.signaled() => return,
                changed = self.authority.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(REISSUE) => {}
            }
            let authority = self.authority.borrow_and_update().clone();
            match issue(&authority, &self.names) {
                Ok(key) => self.key.0.store(Arc::new(key)),
                Err(error) => tracing::error!(%error, "serving certificate not renewed"),
            }
        }
    }
}

fn issue(authority: &Authority, names: &[String]) -> Result<CertifiedKey, ServingError> {
    let (chain, key) = authority.serve(names, LIFE, SystemTime::now())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    Ok(CertifiedKey::new(chain, key))
}

/// Names under which data planes know the control plane.
pub fn dns_names(custom: &[String], revision: &str, namespace: &str) -> Vec<String> {
    let mut names = custom.to_vec();
    let suffixes =
        if revision == "default" { vec![String::new()] } else { vec![String::new(), format!("-{revision}")] };
    for suffix in suffixes {
        for service in ["istiod", "istiod-remote", "istio-pilot"] {
            names.push(format!("{service}{suffix}.{namespace}.svc"));
        }
    }
    names.dedup();
    names
}

/// Life of a serving certificate, shortened to that of the authority.
const LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A new one is issued at least this often: an authority whose end is near gives short ones.
const REISSUE: Duration = Duration::from_secs(12 * 3600);
