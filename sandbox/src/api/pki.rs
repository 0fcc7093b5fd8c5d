//! The certificate authority of one API server, its serving certificate, and the kubeconfig.

use std::{fmt, net::IpAddr, sync::Arc};

use aws_lc_rs::constant_time;
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::user::PeerCertificate;

/// Why keys or certificates could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A key or certificate could not be generated.
    #[error("generating {what} failed")]
    Generate {
        /// What was to be made.
        what: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The random generator or signer refused.
    #[error("generating the token signing key failed")]
    TokenKey,
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot be a subject alternative name")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The TLS configuration was refused.
    #[error("the TLS configuration was refused")]
    Tls(#[source] rustls::Error),
    /// The client verifier could not be built.
    #[error("the client certificate verifier could not be built: {reason}")]
    Verifier {
        /// Why not.
        reason: String,
    },
}

/// The authority.
pub(crate) struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl fmt::Debug for Pki {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pki").finish_non_exhaustive()
    }
}

/// A client certificate with its key, PEM.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl Pki {
    /// The authority with this key.
    pub(crate) fn of_key(key: KeyPair) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Generate { what: "the certificate authority", source };
        let mut params = template("meltemi-sandbox-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        Ok(Self { authority })
    }

    /// The authority's certificate.
    pub(crate) fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// A TLS server configuration for the given names and addresses. Client certificates of this
    /// authority are accepted, none is required.
    pub(crate) fn server_config(&self, names: &[String], addresses: &[IpAddr]) -> Result<Arc<ServerConfig>, PkiError> {
        let failed = |source| PkiError::Generate { what: "the serving certificate", source };
        let mut params = template("kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            let dns = name.as_str().try_into().map_err(|source| PkiError::Name { name: name.clone(), source })?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.authority).map_err(failed)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).map_err(PkiError::Tls)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::Verifier { reason: error.to_string() })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(PkiError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], private)
            .map_err(PkiError::Tls)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A client certificate for a user with groups.
    pub(crate) fn client_certificate(&self, user: &str, groups: &[&str]) -> Result<ClientCertificate, PkiError> {
        let failed = |source| PkiError::Generate { what: "a client certificate", source };
        let mut params = template(user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.authority).map_err(failed)?;
        Ok(ClientCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// Common name and organisations of a verified client certificate.
pub(crate) fn peer(certificate: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    Some(PeerCertificate { name, groups })
}

/// The administrator's bearer token.
pub(crate) struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AdminToken(redacted)")
    }
}

impl AdminToken {
    /// A new token of 256 random bits.
    pub(crate) fn random() -> String {
        let bits: [u8; 32] = rand::rng().random();
        bits.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The token with this text.
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }

    /// Whether `token` is this one, in a time that tells nothing about it.
    pub(crate) fn matches(&self, token: &str) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), token.as_bytes()).is_ok()
    }

    /// A kubeconfig with this token.
    pub(crate) fn kubeconfig(&self, server: &str, ca_pem: &str) -> String {
        let name = "meltemi-sandbox";
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": name,
            "clusters": [{"name": name, "cluster": {
                "server": server, "certificate-authority-data": STANDARD.encode(ca_pem),
            }}],
            "users": [{"name": name, "user": {"token": self.0}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        });
        // JSON is YAML.
        serde_json::to_string_pretty(&config).unwrap_or_default()
    }
}

fn template(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Wide on purpose: the authority lives in memory, as long as the sandbox, whatever the clock says.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params
}
