//! Certificates: an authority that signs what it is told to, revocation lists, and reading of requests.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedCriAttribute, ParsedExtension, X509CertificationRequest};

/// A certificate authority: a root, or an intermediate below one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
    root: CertificateDer<'static>,
    /// From this authority up to, but without, the root.
    intermediates: Vec<CertificateDer<'static>>,
}

/// A certificate with its key.
pub struct Credentials {
    /// Leaf first, root excluded.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Serial number of the leaf.
    pub serial: Vec<u8>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), serial: self.serial.clone() }
    }
}

/// What a certificate is to hold.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl Leaf {
    /// A day-long certificate of one identity.
    #[must_use]
    pub fn of(uri: &str) -> Self {
        Self { uris: vec![uri.to_owned()], ..Self::nameless() }
    }

    /// A day-long certificate of a server with a DNS name.
    #[must_use]
    pub fn server(name: &str) -> Self {
        Self { dns: vec![name.to_owned()], ..Self::nameless() }
    }

    fn nameless() -> Self {
        let now = SystemTime::now();
        Self {
            uris: Vec::new(),
            dns: Vec::new(),
            not_before: now - Duration::from_secs(120),
            not_after: now + Duration::from_secs(24 * 3600),
        }
    }
}

impl Authority {
    /// A self-signed root.
    #[must_use]
    pub fn root(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name);
        let own = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root: own.clone(), own, intermediates: Vec::new() }
    }

    /// An authority whose certificate this one signs.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name);
        let own = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let intermediates = std::iter::once(own.clone()).chain(self.intermediates.clone()).collect();
        Self { issuer: Issuer::new(params, key), own, root: self.root.clone(), intermediates }
    }

    /// The root's certificate.
    #[must_use]
    pub fn root_der(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// The root's certificate, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem("CERTIFICATE", &self.root)
    }

    /// The certificates between a leaf and the root, PEM, one each.
    #[must_use]
    pub fn intermediates_pem(&self) -> Vec<String> {
        self.intermediates.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    /// Serial number of the authority's own certificate.
    #[must_use]
    pub fn serial(&self) -> Vec<u8> {
        serial_of(&self.own)
    }

    /// A certificate with a new key.
    #[must_use]
    pub fn issue(&self, leaf: &Leaf) -> Credentials {
        self.issue_with(leaf, &KeyPair::generate().unwrap())
    }

    fn issue_with(&self, leaf: &Leaf, key: &KeyPair) -> Credentials {
        let cert = leaf_params(leaf).signed_by(key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let serial = serial_of(&cert);
        let chain = std::iter::once(cert).chain(self.intermediates.clone()).collect();
        Credentials { chain, key, serial }
    }

    /// [`Authority::issue`] with an RSA key.
    #[must_use]
    pub fn issue_rsa(&self, leaf: &Leaf) -> Credentials {
        self.issue_with(leaf, &KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap())
    }

    /// [`Authority::issue`] for one identity.
    #[must_use]
    pub fn of(&self, uri: &str) -> Credentials {
        self.issue(&Leaf::of(uri))
    }

    /// The whole answer to a request: leaf, intermediates, root, each PEM. The names come from `leaf`.
    #[must_use]
    pub fn sign(&self, csr: &str, leaf: &Leaf) -> Vec<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params = leaf_params(leaf);
        let mut answer = vec![pem("CERTIFICATE", request.signed_by(&self.issuer).unwrap().der())];
        answer.extend(self.intermediates_pem());
        answer.push(self.root_pem());
        answer
    }

    /// A revocation list of this authority, PEM.
    #[must_use]
    pub fn revocations(&self, serials: &[&[u8]]) -> String {
        let now = SystemTime::now();
        let revoked = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: (now - Duration::from_secs(60)).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// What a certificate request says.
#[derive(Debug, Clone)]
pub struct ParsedRequest {
    /// The subject has no part at all.
    pub subject_empty: bool,
    /// Names of the subjectAltName extension: those that are URIs.
    pub uris: Vec<String>,
    /// How many names it has in all.
    pub names: usize,
    /// The extension is critical.
    pub critical: bool,
    /// How many extensions are asked for.
    pub extensions: usize,
    /// The key is an ECDSA key on P-256.
    pub p256: bool,
    /// Object identifier of the signature.
    pub signature: String,
    /// The public key, to tell requests apart.
    pub public_key: Vec<u8>,
}

impl ParsedRequest {
    /// Reads a PEM request and checks its signature.
    ///
    /// # Panics
    /// When it is not one.
    #[must_use]
    pub fn read(csr: &str) -> Self {
        let (_, block) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).unwrap();
        assert!(block.label.ends_with("CERTIFICATE REQUEST"), "{}", block.label);
        let (_, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
        request.verify_signature().expect("a request proves that its sender has the key");
        let info = &request.certification_request_info;
        let mut parsed = Self {
            subject_empty: info.subject.iter().next().is_none(),
            uris: Vec::new(),
            names: 0,
            critical: false,
            extensions: 0,
            p256: is_p256(&info.subject_pki),
            signature: request.signature_algorithm.algorithm.to_id_string(),
            public_key: info.subject_pki.subject_public_key.data.to_vec(),
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else { continue };
            for extension in &wanted.extensions {
                parsed.extensions += 1;
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
                parsed.critical = extension.critical;
                parsed.names += names.general_names.len();
                parsed.uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
        }
        parsed
    }
}

fn is_p256(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    key.algorithm.algorithm.to_id_string() == "1.2.840.10045.2.1"
        && curve.is_some_and(|oid| oid.to_id_string() == "1.2.840.10045.3.1.7")
}

/// The URI names of a certificate.
#[must_use]
pub fn uris_of(der: &CertificateDer<'_>) -> Vec<String> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).unwrap();
    let names = cert.subject_alternative_name().unwrap();
    let names = names.iter().flat_map(|names| names.value.general_names.iter());
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.filter_map(uri).collect()
}

/// Reads PEM certificates.
#[must_use]
pub fn parse_pem(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect()
}

/// PEM of some DER.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn serial_of(der: &CertificateDer<'_>) -> Vec<u8> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).unwrap();
    cert.raw_serial().to_vec()
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params
}

fn leaf_params(leaf: &Leaf) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uris = leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
    let dns = leaf.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
    params.subject_alt_names = uris.chain(dns).collect();
    params.not_before = leaf.not_before.into();
    params.not_after = leaf.not_after.into();
    params.serial_number = Some(SerialNumber::from(u64::from(rand::random::<u32>()) + 1));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}
