//! TLS that is originated: to endpoints outside of the mesh, or inside a tunnel to the application.

mod verifier;

use std::fmt;
use std::sync::{Arc, OnceLock};

use mesh_wire::l7;
use mesh_wire::l7::client_tls::Mode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::backend::BackendError;
use verifier::{Named, Unchecked};

/// How endpoints are proven, and how we prove who we are. Keys never show.
pub(super) struct ClientTls {
    one: Arc<ClientConfig>,
    two: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
    /// As configured; `None`: the host of the request.
    sni: Option<ServerName<'static>>,
    /// Without both: of the backend.
    default_name: Option<ServerName<'static>>,
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    Http1,
    Http2,
    Bytes,
}

impl ClientTls {
    /// `None`: TLS is off.
    pub(super) fn of(tls: &l7::ClientTls, hostname: &str) -> Result<Option<Self>, BackendError> {
        if tls.mode() == Mode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = verifier(tls, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| BackendError::new("policy.tls", "", "a provider with TLS 1.2 and 1.3"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match (tls.mode(), &tls.client) {
            (Mode::Mutual, Some(pair)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.chain).collect();
                let chain = chain.ok().filter(|chain| !chain.is_empty());
                let bad = |expected| BackendError::new("policy.tls.client", "<redacted>", expected);
                let chain = chain.ok_or_else(|| bad("a chain of certificates, PEM"))?;
                let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| bad("a private key, PEM"))?;
                builder.with_client_auth_cert(chain, key).map_err(|_| bad("a key that goes with the certificate"))?
            }
            (Mode::Mutual, None) => {
                return Err(BackendError::new("policy.tls.client", "", "a certificate and key for mode MUTUAL"));
            }
            _ => builder.with_no_client_auth(),
        };
        let sni = match tls.sni.as_str() {
            "" => None,
            name => Some(server_name(name).ok_or_else(|| BackendError::new("policy.tls.sni", name, "a host name"))?),
        };
        let speaking = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Some(Self {
            one: speaking(&[b"http/1.1"]),
            two: speaking(&[b"h2"]),
            bytes: speaking(&[]),
            sni,
            default_name: server_name(hostname),
        }))
    }

    pub(super) fn config(&self, inside: Inside) -> Arc<ClientConfig> {
        match inside {
            Inside::Http1 => self.one.clone(),
            Inside::Http2 => self.two.clone(),
            Inside::Bytes => self.bytes.clone(),
        }
    }

    /// Whether connections for different hosts differ.
    pub(super) fn is_by_host(&self) -> bool {
        self.sni.is_none()
    }

    /// The name that is sent and proven.
    pub(super) fn name(&self, host: Option<&str>) -> Option<ServerName<'static>> {
        let fixed = || self.sni.clone();
        let of_request = || host.and_then(server_name);
        fixed().or_else(of_request).or_else(|| self.default_name.clone())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("sni", &self.sni).finish_non_exhaustive()
    }
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).ok()
}

fn verifier(tls: &l7::ClientTls, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, BackendError> {
    // Authorities that are given are meant to be used.
    if tls.insecure_skip_verify && tls.roots.is_empty() {
        return Ok(Arc::new(Unchecked::new(provider.clone())));
    }
    let roots = match &*tls.roots {
        [] => system_roots(),
        pem => Arc::new(roots(pem).ok_or_else(|| {
            BackendError::new("policy.tls.roots", format!("{} bytes", pem.len()), "certificates, PEM")
        })?),
    };
    if roots.is_empty() {
        let expected = "authorities: none are given, and the system has none";
        return Err(BackendError::new("policy.tls.roots", "", expected));
    }
    let mut chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    if !tls.crl.is_empty() {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&tls.crl).collect();
        let bad = || BackendError::new("policy.tls.crl", format!("{} bytes", tls.crl.len()), "revocation lists, PEM");
        chain = chain.with_crls(lists.map_err(|_| bad())?).allow_unknown_revocation_status();
    }
    let chain = chain.build().map_err(|error| BackendError::new("policy.tls.roots", error, "usable authorities"))?;
    match &*tls.subject_alt_names {
        [] => Ok(chain),
        names => Ok(Arc::new(Named::new(chain, names))),
    }
}

fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.ok()?);
    (added > 0).then_some(roots)
}

/// Read once: backends that need it come and go with the configuration.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let bundle = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
        Arc::new(bundle.and_then(|pem| roots(&pem)).unwrap_or_else(RootCertStore::empty))
    };
    ROOTS.get_or_init(read).clone()
}

/// Where distributions keep their authorities.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

#[cfg(test)]
mod tests;
