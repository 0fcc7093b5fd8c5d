//! TLS that ends at a listener.

use std::fmt;
use std::sync::Arc;

use mesh_identity::WorkloadCert;
use mesh_wire::l7::{self, server_tls};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::chain::Protocol;
use super::compile::BadResource;

/// How a listener proves itself, and what it wants of clients. Holds private keys, which never show.
pub struct ServerTls {
    kind: Kind,
    wanted: server_tls::ClientCertificate,
    /// Checks a client's certificate again where the handshake let it through whatever it is.
    recheck: Option<Arc<dyn ClientCertVerifier>>,
}

enum Kind {
    /// Bytes are handed on as they are.
    Passthrough,
    /// With certificates of its own.
    Own(Arc<ServerConfig>, Arc<Certificates>),
    /// With the mesh's certificate; clients must have one too, or need none.
    Mesh { alpn: Vec<Vec<u8>>, mutual: bool },
}

impl ServerTls {
    /// # Errors
    /// The field that cannot be used. Keys are never part of the message.
    pub(super) fn compile(message: &l7::ServerTls, protocol: Protocol) -> Result<Self, BadResource> {
        let unknown = |field: &str, value: i32| BadResource::new(field, format!("unknown number {value}"), "a mode");
        let mode = server_tls::Mode::try_from(message.mode).map_err(|_| unknown("tls.mode", message.mode))?;
        if mode == server_tls::Mode::Passthrough {
            let wanted = server_tls::ClientCertificate::None;
            return Ok(Self { kind: Kind::Passthrough, wanted, recheck: None });
        }
        let wanted = server_tls::ClientCertificate::try_from(message.client_certificate)
            .map_err(|_| unknown("tls.client_certificate", message.client_certificate))?;
        let alpn = if protocol == Protocol::Tls { Vec::new() } else { vec![b"h2".to_vec(), b"http/1.1".to_vec()] };
        if message.mesh_identity {
            let mutual = wanted != server_tls::ClientCertificate::None;
            return Ok(Self { kind: Kind::Mesh { alpn, mutual }, wanted, recheck: None });
        }
        let provider = Arc::new(provider(&message.cipher_suites)?);
        let certificates = Arc::new(Certificates::compile(&message.certificates, &provider)?);
        let (verifier, recheck) = verifier(wanted, &message.client_roots, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)
            .map_err(|error| BadResource::new("tls", error, "TLS 1.2 or 1.3"))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = alpn;
        Ok(Self { kind: Kind::Own(Arc::new(config), certificates), wanted, recheck })
    }

    /// Whether bytes are handed on as they are.
    #[must_use]
    pub fn is_passthrough(&self) -> bool {
        matches!(self.kind, Kind::Passthrough)
    }

    /// Whether the mesh's own certificate is shown, and with it who we are.
    #[must_use]
    pub fn is_mesh(&self) -> bool {
        matches!(self.kind, Kind::Mesh { .. })
    }

    /// What is wanted of clients.
    #[must_use]
    pub fn client_certificate(&self) -> server_tls::ClientCertificate {
        self.wanted
    }

    /// The certificates that may be shown to clients, without those that vouch for them; none where they are the mesh's.
    pub fn leaves(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let own = match &self.kind {
            Kind::Own(_, certificates) => certificates.0.as_slice(),
            Kind::Passthrough | Kind::Mesh { .. } => &[],
        };
        own.iter().filter_map(|pair| pair.cert.first())
    }

    /// What to shake hands with. `mesh` is asked for only where the mesh's certificate is to be shown.
    ///
    /// # Errors
    /// Whatever `mesh` says, or what the library does.
    pub async fn config<E: fmt::Display>(
        &self,
        mesh: impl Future<Output = Result<Arc<WorkloadCert>, E>>,
    ) -> Result<Arc<ServerConfig>, String> {
        match &self.kind {
            Kind::Passthrough => Err("TLS is passed through".to_owned()),
            Kind::Own(config, _) => Ok(config.clone()),
            Kind::Mesh { alpn, mutual } => {
                let cert = mesh.await.map_err(|error| error.to_string())?;
                let base = cert.server_config();
                let mut config = if *mutual {
                    ServerConfig::clone(&base)
                } else {
                    ServerConfig::builder_with_provider(base.crypto_provider().clone())
                        .with_protocol_versions(VERSIONS)
                        .map_err(|error| error.to_string())?
                        .with_no_client_auth()
                        .with_cert_resolver(base.cert_resolver.clone())
                };
                config.alpn_protocols.clone_from(alpn);
                Ok(Arc::new(config))
            }
        }
    }

    /// Whether the certificate that a client presented is good, where the handshake did not insist on it.
    #[must_use]
    pub fn verifies(&self, presented: &[CertificateDer<'_>]) -> bool {
        let (Some(recheck), Some((leaf, rest))) = (&self.recheck, presented.split_first()) else {
            return !presented.is_empty();
        };
        recheck.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passthrough => "ServerTls(passthrough)",
            Kind::Own(..) => "ServerTls(own certificate)",
            Kind::Mesh { .. } => "ServerTls(mesh certificate)",
        })
    }
}

/// One certificate for each kind of key; the first that the client can check is shown.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    fn compile(pairs: &[l7::KeyPair], provider: &CryptoProvider) -> Result<Self, BadResource> {
        if pairs.is_empty() {
            return Err(BadResource::new("tls.certificates", "none", "a certificate with its key"));
        }
        pairs.iter().enumerate().map(|(n, pair)| key_pair(n, pair, provider)).collect::<Result<_, _>>().map(Self)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(usable).or(self.0.first()).cloned()
    }
}

fn key_pair(n: usize, pair: &l7::KeyPair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, BadResource> {
    let bad = |field: &str, found: String, expected: &str| {
        BadResource::new(format!("tls.certificates[{n}].{field}"), found, expected)
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.chain)
        .collect::<Result<_, _>>()
        .map_err(|error| bad("chain", error.to_string(), "certificates in PEM"))?;
    if chain.is_empty() {
        return Err(bad("chain", "no certificate".to_owned(), "certificates in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|_| bad("key", "something else".to_owned(), "a private key in PEM"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| bad("key", "an unusable key".to_owned(), "an RSA, ECDSA or Ed25519 key"))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(error) => Err(bad("key", error.to_string(), "the key of the certificate")),
    }
}

/// Cryptography with these cipher suites of TLS 1.2; with none, the usual ones.
fn provider(names: &[String]) -> Result<CryptoProvider, BadResource> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let known = |name: &String| provider.cipher_suites.iter().any(|one| one.suite().as_str() == Some(name));
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(BadResource::new("tls.cipher_suites", unknown, "a cipher suite of TLS 1.2 with forward secrecy"));
    }
    let asked = |one: &SupportedCipherSuite| names.iter().any(|name| one.suite().as_str() == Some(name));
    provider.cipher_suites.retain(|one| one.tls13().is_some() || asked(one));
    Ok(provider)
}

type Verifier = Arc<dyn ClientCertVerifier>;

fn verifier(
    wanted: server_tls::ClientCertificate,
    roots: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<(Verifier, Option<Verifier>), BadResource> {
    if wanted == server_tls::ClientCertificate::None {
        return Ok((WebPkiClientVerifier::no_client_auth(), None));
    }
    let mut store = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(roots).filter_map(Result::ok).collect();
    store.add_parsable_certificates(certificates);
    if store.is_empty() {
        return Err(BadResource::new("tls.client_roots", "no certificate", "certificates in PEM"));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone());
    let builder = match wanted {
        server_tls::ClientCertificate::Required => builder,
        _ => builder.allow_unauthenticated(),
    };
    let built = builder.build().map_err(|error| BadResource::new("tls.client_roots", error, "usable certificates"))?;
    if wanted == server_tls::ClientCertificate::Unverified {
        return Ok((Arc::new(Lenient(built.clone())), Some(built)));
    }
    Ok((built, None))
}

/// Takes any certificate, as long as the client has its key.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Clients outside of the mesh may be old, but not older.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[cfg(test)]
mod tests;
