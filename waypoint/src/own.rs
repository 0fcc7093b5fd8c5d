//! Who this proxy is, and the certificate that proves it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mesh_core::{Identity, TrustDomain};
use mesh_identity::{CertError, CertManager, WorkloadCert};
use rustls::ServerConfig;

/// The proxy's own identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Own {
    identity: Identity,
    certs: CertManager,
    /// What tunnels are accepted with, made anew with each certificate.
    accepting: Arc<ArcSwapOption<Accepting>>,
}

#[derive(Debug)]
struct Accepting {
    cert: Arc<WorkloadCert>,
    domains: Box<[TrustDomain]>,
    config: Arc<ServerConfig>,
}

impl Own {
    /// Its certificate is asked for at once.
    #[must_use]
    pub fn new(identity: Identity, certs: CertManager) -> Self {
        certs.prefetch(&identity);
        Self { identity, certs, accepting: Arc::default() }
    }

    /// Who we are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate of now, kept fresh in the background.
    ///
    /// # Errors
    /// There is none yet, or none any more.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn certificate(&self) -> Result<Arc<WorkloadCert>, CertError> {
        self.certs.fetch(&self.identity).await
    }

    /// What to accept tunnels with, from clients of these trust domains.
    ///
    /// # Errors
    /// As [`Own::certificate`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn accepting(&self, domains: &[TrustDomain]) -> Result<Arc<ServerConfig>, CertError> {
        let cert = self.certificate().await?;
        if let Some(known) = &*self.accepting.load()
            && Arc::ptr_eq(&known.cert, &cert)
            && *known.domains == *domains
        {
            return Ok(known.config.clone());
        }
        let config = cert.server_config_for(domains)?;
        self.accepting.store(Some(Arc::new(Accepting { cert, domains: domains.into(), config: config.clone() })));
        Ok(config)
    }

    /// All certificates, for display.
    #[must_use]
    pub fn certificates(&self) -> &CertManager {
        &self.certs
    }
}
