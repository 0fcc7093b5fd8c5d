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
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::chain::Chain;
use crate::clock::{Clock, SystemClock};
use crate::error::CertError;
use crate::manager::CertSource;
use crate::tls::KeyExchange;
use crate::workload::WorkloadCert;

/// A self-signed root that signs whatever it is told to.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
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
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "test root");
        params.distinguished_name = name;
        let root = params.self_signed(&key).expect("fixed parameters are valid").der().clone();
        Self { issuer: Issuer::new(params, key), root, issued: AtomicUsize::new(0), clock }
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
        let issued = self.issue_with(options);
        let chain = self.chain(issued.leaf.clone());
        Arc::new(
            WorkloadCert::new(identity.clone(), issued.key(), chain, KeyExchange::Default)
                .expect("the options name the identity first"),
        )
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
        Chain { leaf, intermediates: Vec::new(), roots: vec![self.root.clone()] }
    }
}

impl CertSource for TestCa {
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        let options = IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() };
        let issued = self.issue_with(&options);
        let chain = self.chain(issued.leaf.clone());
        async move { WorkloadCert::new(identity, issued.key(), chain, KeyExchange::Default) }.boxed()
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
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
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
