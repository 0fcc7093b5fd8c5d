//! For tests only: a certificate authority in memory and a clock that follows tokio's (paused) time.
//!
//! Nothing here is reachable from a running proxy: no binary constructs these types.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine;
use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::chain::Chain;
use crate::clock::{Clock, SystemClock};
use crate::error::CertError;
use crate::manager::CertSource;
use crate::tls::TlsPolicy;
use crate::workload::WorkloadCert;

/// A self-signed root that signs whatever it is told to.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    /// Presented after each leaf; the first is that of `issuer`.
    intermediates: Vec<CertificateDer<'static>>,
    issued: AtomicUsize,
    clock: Arc<dyn Clock>,
}

/// What a test certificate is to hold.
#[derive(Debug, Clone)]
pub struct IssueOptions {
    /// URI names, in order.
    pub uris: Vec<String>,
    /// Start of validity, relative to now, in seconds.
    pub not_before_seconds: i64,
    /// End of validity, relative to now, in seconds.
    pub not_after_seconds: i64,
    /// May act as a client.
    pub client_auth: bool,
    /// May act as a server.
    pub server_auth: bool,
    /// DNS names, for ordinary servers such as a control plane.
    pub dns_names: Vec<String>,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self {
            uris: vec!["spiffe://cluster.local/ns/default/sa/default".to_owned()],
            not_before_seconds: -120,
            not_after_seconds: 24 * 3600,
            client_auth: true,
            server_auth: true,
            dns_names: Vec::new(),
        }
    }
}

/// A leaf with its key in the clear: what tests need to build odd peers.
pub struct IssuedLeaf {
    leaf: CertificateDer<'static>,
    key: KeyPair,
}

impl IssuedLeaf {
    /// The certificate.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Its private key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// Its private key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// A fresh root with a key of its own.
    ///
    /// # Panics
    /// If the crypto library cannot make a key.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// [`TestCa::new`] whose certificates start at the time of `clock`.
    ///
    /// # Panics
    /// If the crypto library cannot make a key.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let key = KeyPair::generate().expect("P-256 keys can be made");
        let params = authority_params("test root");
        let root = params.self_signed(&key).expect("fixed parameters are valid").der().clone();
        let issuer = Issuer::new(params, key);
        Self { issuer, root, intermediates: Vec::new(), issued: AtomicUsize::new(0), clock }
    }

    /// An authority below this one, with a name and key of its own.
    ///
    /// # Panics
    /// If the crypto library cannot make a key.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("P-256 keys can be made");
        let params = authority_params(name);
        let own = params.signed_by(&key, &self.issuer).expect("fixed parameters are valid").der().clone();
        let intermediates = std::iter::once(own).chain(self.intermediates.iter().cloned()).collect();
        let issuer = Issuer::new(params, key);
        Self { issuer, root: self.root.clone(), intermediates, issued: AtomicUsize::new(0), clock: self.clock.clone() }
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.intermediates.first().unwrap_or(&self.root)
    }

    /// A list that takes `revoked` back, PEM. They need not be of this authority: only their serial numbers are used.
    ///
    /// # Panics
    /// If one of them cannot be read.
    #[must_use]
    pub fn crl(&self, revoked: &[&CertificateDer<'_>]) -> String {
        armoured("X509 CRL", &self.crl_der(revoked))
    }

    /// [`TestCa::crl`] as DER.
    ///
    /// # Panics
    /// If one of them cannot be read.
    #[must_use]
    pub fn crl_der(&self, revoked: &[&CertificateDer<'_>]) -> Vec<u8> {
        self.list(revoked, 24 * 3600)
    }

    /// [`TestCa::crl`] whose successor should have come an hour ago.
    ///
    /// # Panics
    /// If one of them cannot be read.
    #[must_use]
    pub fn overdue_crl(&self, revoked: &[&CertificateDer<'_>]) -> String {
        armoured("X509 CRL", &self.list(revoked, -3600))
    }

    fn list(&self, revoked: &[&CertificateDer<'_>], next_update_seconds: i64) -> Vec<u8> {
        let now = self.clock.now();
        let entry = |cert: &&CertificateDer<'_>| {
            let (_, parsed) = x509_parser::parse_x509_certificate(cert).expect("a certificate");
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(parsed.raw_serial()),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update: at(now, -7200).into(),
            next_update: at(now, next_update_seconds).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("fixed parameters are valid").der().to_vec()
    }

    /// The root, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem(&self.root)
    }

    /// How many certificates were made so far.
    #[must_use]
    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }

    /// A day-long certificate for `identity`.
    #[must_use]
    pub fn issue(&self, identity: &Identity) -> Arc<WorkloadCert> {
        self.issue_for(identity, &IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() })
    }

    /// A certificate that a workload of `identity` would use; `options.uris` must start with that identity.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn issue_for(&self, identity: &Identity, options: &IssueOptions) -> Arc<WorkloadCert> {
        self.issue_under(identity, options, TlsPolicy::default())
    }

    /// [`TestCa::issue_for`] for a process that keeps to `policy`.
    ///
    /// # Panics
    /// If `options.uris` does not start with that identity.
    #[must_use]
    pub fn issue_under(&self, identity: &Identity, options: &IssueOptions, policy: TlsPolicy) -> Arc<WorkloadCert> {
        let issued = self.issue_with(options);
        let chain = self.chain(issued.leaf.clone());
        let cert = WorkloadCert::new(identity.clone(), issued.key(), chain, policy);
        Arc::new(cert.expect("the options name the identity first"))
    }

    /// Any certificate at all.
    ///
    /// # Panics
    /// If a name in `options` is not ASCII.
    #[must_use]
    pub fn issue_with(&self, options: &IssueOptions) -> IssuedLeaf {
        let key = KeyPair::generate().expect("P-256 keys can be made");
        let params = leaf_params(options, self.clock.now());
        let leaf = params.signed_by(&key, &self.issuer).expect("fixed parameters are valid").der().clone();
        self.issued.fetch_add(1, Ordering::Relaxed);
        IssuedLeaf { leaf, key }
    }

    /// Signs a request as an authority would: the names come from `options`, only the key from the request. Returns PEM.
    ///
    /// # Panics
    /// If the request cannot be parsed.
    #[must_use]
    pub fn sign_csr(&self, csr_pem: &str, options: &IssueOptions) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).expect("a request of our own making");
        csr.params = leaf_params(options, self.clock.now());
        self.issued.fetch_add(1, Ordering::Relaxed);
        pem(csr.signed_by(&self.issuer).expect("fixed parameters are valid").der())
    }

    fn chain(&self, leaf: CertificateDer<'static>) -> Chain {
        Chain { leaf, intermediates: self.intermediates.clone(), roots: vec![self.root.clone()] }
    }
}

impl CertSource for TestCa {
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        let options = IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() };
        let issued = self.issue_with(&options);
        let chain = self.chain(issued.leaf.clone());
        async move { WorkloadCert::new(identity, issued.key(), chain, TlsPolicy::default()) }.boxed()
    }
}

/// Wall-clock time that moves with tokio's clock, so that paused-time tests move certificates too.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    wall: SystemTime,
    start: tokio::time::Instant,
}

impl TokioClock {
    /// Starts at the real wall-clock time.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: SystemTime::now(), start: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.wall + self.start.elapsed()
    }
}

/// One certificate as PEM.
#[must_use]
pub fn pem(der: &CertificateDer<'_>) -> String {
    armoured("CERTIFICATE", der)
}

fn armoured(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params
}

fn leaf_params(options: &IssueOptions, now: SystemTime) -> CertificateParams {
    let name = |text: &String| text.as_str().try_into().expect("names in tests are ASCII");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = options.uris.iter().map(|uri| SanType::URI(name(uri))).collect();
    params.subject_alt_names.extend(options.dns_names.iter().map(|dns| SanType::DnsName(name(dns))));
    params.not_before = at(now, options.not_before_seconds).into();
    params.not_after = at(now, options.not_after_seconds).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    if options.client_auth {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    if options.server_auth {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params
}

fn at(now: SystemTime, seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { now - distance } else { now + distance }
}
