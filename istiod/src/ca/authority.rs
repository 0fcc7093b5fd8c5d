//! Signs certificates with given key material. No I/O, no clock.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::identity::Identity;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer};
use webpki::BorrowedCertRevocationList;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, X509Certificate, X509CertificationRequest, X509Version,
};
use x509_parser::public_key::PublicKey;

use super::material::CaMaterial;

/// An authority that can sign. Copies share the key.
#[derive(Clone)]
pub struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// Certificates that leaves are presented with, as PEM, nearest first.
    intermediates: Vec<String>,
    roots_pem: String,
    /// Trusted beside the roots, as PEM.
    anchors_pem: Arc<str>,
    /// Revocation lists to be handed to proxies, as PEM.
    crl_pem: Option<String>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why key material cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Not PEM, or not what the PEM should hold.
    #[error("{what} of the authority cannot be read: {reason}")]
    Unreadable {
        /// Which part.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The certificate may not sign certificates.
    #[error("the signing certificate {subject:?} is not one of an authority")]
    NotAnAuthority {
        /// Its subject.
        subject: String,
    },
    /// Key and certificate do not belong together.
    #[error("the signing key is not that of the signing certificate {subject:?}")]
    KeyMismatch {
        /// Subject of the certificate.
        subject: String,
    },
    /// The certificate does not lead to a root.
    #[error("the signing certificate {subject:?} does not chain to any of the {roots} roots")]
    NoRoot {
        /// Subject of the certificate where the chain ends.
        subject: String,
        /// Number of roots.
        roots: usize,
    },
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The request is at fault; it fails the same way next time.
    #[error("certificate request: {reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The authority is at fault.
    #[error("signing failed: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

/// How long certificates may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// When the request does not say.
    pub default: Duration,
    /// A request for more is refused.
    pub max: Duration,
}

impl Authority {
    /// Checks material and makes it ready to sign.
    ///
    /// # Errors
    /// See [`AuthorityError`]: nothing is used before it is known to work.
    pub fn new(material: &CaMaterial) -> Result<Self, AuthorityError> {
        let unreadable = |what| move |reason: String| AuthorityError::Unreadable { what, reason };
        let signing = certificates(&material.cert_pem).map_err(unreadable("certificate"))?;
        let Some(signing) = signing.into_iter().next() else {
            return Err(unreadable("certificate")("no certificate in the PEM".into()));
        };
        let roots = certificates(&material.root_pem).map_err(unreadable("root bundle"))?;
        let chain = certificates(&material.chain_pem).map_err(unreadable("certificate chain"))?;
        let crl_pem = material.crl_pem.clone().filter(|pem| !pem.trim().is_empty());
        let known: Vec<_> = std::iter::once(&signing).chain(&chain).chain(&roots).collect();
        revocation_lists(crl_pem.as_deref().unwrap_or_default(), &known).map_err(unreadable("revocation lists"))?;
        let key = KeyPair::from_pem(&material.key_pem).map_err(|error| unreadable("key")(error.to_string()))?;
        let parsed = parse(&signing).map_err(unreadable("certificate"))?;
        let subject = parsed.subject().to_string();
        if !parsed.is_ca() {
            return Err(AuthorityError::NotAnAuthority { subject });
        }
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(AuthorityError::KeyMismatch { subject });
        }
        chains_to(&signing, &chain, &roots)?;
        let mut intermediates: Vec<_> = chain.into_iter().filter(|one| !roots.contains(one)).collect();
        if !roots.contains(&signing) && !intermediates.contains(&signing) {
            intermediates.insert(0, signing.clone());
        }
        let not_before = time(parsed.validity().not_before.timestamp());
        let not_after = time(parsed.validity().not_after.timestamp());
        let failed = |error: rcgen::Error| unreadable("certificate")(error.to_string());
        let issuer = Arc::new(Issuer::from_ca_cert_der(&signing, key).map_err(failed)?);
        Ok(Self {
            issuer,
            intermediates: intermediates.iter().map(pem).collect(),
            roots_pem: roots.iter().map(pem).collect(),
            anchors_pem: Arc::from(""),
            crl_pem,
            not_before,
            not_after,
        })
    }

    /// The same, which tells everybody to trust these certificates, too.
    #[must_use]
    pub fn trusting(&self, anchors_pem: Arc<str>) -> Self {
        Self { anchors_pem, ..self.clone() }
    }

    /// Its own roots as PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// What is trusted beside them, as PEM.
    pub fn anchors_pem(&self) -> &str {
        &self.anchors_pem
    }

    /// The root bundle as PEM: what data planes trust.
    ///
    /// # Source
    /// spec of the authority, section 8.
    pub fn bundle_pem(&self) -> String {
        [&*self.roots_pem, &*self.anchors_pem].concat()
    }

    /// Revocation lists as PEM, if the authority has any.
    pub fn crl_pem(&self) -> Option<&str> {
        self.crl_pem.as_deref()
    }

    /// Validity of the signing certificate.
    pub fn validity(&self) -> (SystemTime, SystemTime) {
        (self.not_before, self.not_after)
    }

    /// Signs a request for `identity`, whatever names the request itself asks for. The answer is the chain of the
    /// protocol: leaf, intermediates, root bundle.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(
        &self,
        csr_pem: &str,
        identity: &Identity,
        requested: Duration,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Vec<String>, SignError> {
        let bad = |reason: String| SignError::BadRequest { reason };
        let (public_key, common_name) = request(csr_pem)?;
        let life = if requested.is_zero() { lifetimes.default } else { requested };
        if life > lifetimes.max {
            return Err(bad(format!(
                "lifetime of {} s asked for, at most {} s are given",
                life.as_secs(),
                lifetimes.max.as_secs()
            )));
        }
        let name = identity.to_string().try_into().map_err(|_| bad(format!("identity {identity} is not ASCII")))?;
        let mut params = self.leaf(now, life)?;
        params.subject_alt_names = vec![SanType::URI(name)];
        if let Some(common_name) = common_name {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        let leaf = params.signed_by(&public_key, &*self.issuer).map_err(failed)?;
        let mut chain = vec![leaf.pem()];
        chain.extend(self.intermediates.iter().cloned());
        chain.push(self.bundle_pem());
        Ok(chain)
    }

    /// A certificate for a server of the control plane, with a fresh key: leaf and intermediates as DER, key as PKCS#8.
    ///
    /// # Errors
    /// [`SignError::Failed`].
    pub fn serve(
        &self,
        dns_names: &[String],
        life: Duration,
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), SignError> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = self.leaf(now, life)?;
        let names = dns_names.iter().map(|name| name.as_str().try_into().map(SanType::DnsName));
        params.subject_alt_names = names.collect::<Result<_, _>>().map_err(failed)?;
        let leaf = params.signed_by(&key, &*self.issuer).map_err(failed)?;
        let intermediates =
            certificates(&self.intermediates.concat()).map_err(|reason| SignError::Failed { reason })?;
        let chain = std::iter::once(leaf.der().clone()).chain(intermediates).collect();
        Ok((chain, key.serialize_der()))
    }

    fn leaf(&self, now: SystemTime, life: Duration) -> Result<CertificateParams, SignError> {
        if now >= self.not_after {
            return Err(SignError::Failed { reason: "the signing certificate has expired".into() });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + life).min(self.not_after).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn failed(error: rcgen::Error) -> SignError {
    SignError::Failed { reason: error.to_string() }
}

/// The key of a request and the common name it asks for. Its size is checked before anything is parsed.
fn request(csr_pem: &str) -> Result<(SubjectPublicKeyInfo, Option<String>), SignError> {
    let bad = |reason: String| SignError::BadRequest { reason };
    if csr_pem.len() > CSR_BYTES_MAX {
        return Err(bad(format!("{} bytes, at most {CSR_BYTES_MAX} are read", csr_pem.len())));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| bad("not a PEM certificate request".into()))?;
    let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|error| bad(format!("not PKCS#10: {error}")))?;
    if !rest.is_empty() {
        return Err(bad("bytes after the end".into()));
    }
    csr.verify_signature().map_err(|_| bad("its signature does not verify".into()))?;
    let info = &csr.certification_request_info;
    match info.subject_pki.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() >= RSA_BITS_MIN => {}
        Ok(PublicKey::RSA(key)) => {
            return Err(bad(format!("RSA key of {} bits, at least {RSA_BITS_MIN} are wanted", key.key_size())));
        }
        Ok(PublicKey::EC(key)) if matches!(key.key_size(), 256 | 384) => {}
        _ => return Err(bad("its key is neither RSA nor ECDSA on P-256 or P-384".into())),
    }
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|error| bad(format!("its key: {error}")))?;
    let common_name = info.subject.iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    Ok((key, common_name))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Reads revocation lists as verifiers do, ours and those of proxies: what one of them cannot use is not handed out. A
/// text without any is an error unless it is empty.
fn revocation_lists(pem: &str, known: &[&CertificateDer<'_>]) -> Result<(), String> {
    let lists = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes());
    let lists = lists.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if lists.is_empty() && !pem.is_empty() {
        return Err("no revocation list in the PEM".to_owned());
    }
    (1..)
        .zip(&lists)
        .try_for_each(|(number, list)| usable(list, known).map_err(|reason| format!("list {number}: {reason}")))
}

fn usable(list: &CertificateRevocationListDer<'_>, known: &[&CertificateDer<'_>]) -> Result<(), String> {
    let (_, parsed) =
        CertificateRevocationList::from_der(list).map_err(|error| format!("not a revocation list: {error}"))?;
    if parsed.version() != Some(X509Version::V2) {
        return Err("a list of version 1, expected version 2 (with OpenSSL: set crl_extensions)".to_owned());
    }
    BorrowedCertRevocationList::from_der(list).map_err(|error| format!("cannot be used: {error}"))?;
    // With a list that its issuer did not sign, or may not sign, nobody below that issuer would be let in.
    let issuers: Vec<_> = known.iter().filter_map(|one| parse(one).ok()).collect();
    let mut issuers = issuers.iter().filter(|one| one.subject() == parsed.issuer()).peekable();
    let signs = |one: &X509Certificate<'_>| {
        let allowed = one.key_usage().ok().flatten().is_none_or(|usage| usage.value.crl_sign());
        allowed && parsed.verify_signature(one.public_key()).is_ok()
    };
    if issuers.peek().is_some() && !issuers.any(signs) {
        return Err(format!("its issuer {:?} did not sign it, or may not sign lists", parsed.issuer().to_string()));
    }
    Ok(())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

/// Follows issuers from the signing certificate through the chain to a root, checking every signature.
fn chains_to(
    signing: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Result<(), AuthorityError> {
    let unreadable = |reason| AuthorityError::Unreadable { what: "certificate chain", reason };
    let mut current = parse(signing).map_err(unreadable)?;
    // Each step uses a certificate of the chain, so there can be no more steps than those.
    for _ in 0..=chain.len() {
        let issued = |issuer: &X509Certificate<'_>| {
            issuer.subject() == current.issuer() && current.verify_signature(Some(issuer.public_key())).is_ok()
        };
        let parsed = roots.iter().filter_map(|root| parse(root).ok());
        if parsed.into_iter().any(|root| root.as_raw() == current.as_raw() || issued(&root)) {
            return Ok(());
        }
        let next =
            chain.iter().filter_map(|one| parse(one).ok()).find(|one| one.as_raw() != current.as_raw() && issued(one));
        match next {
            Some(next) => current = next,
            None => break,
        }
    }
    Err(AuthorityError::NoRoot { subject: current.subject().to_string(), roots: roots.len() })
}

pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + 96);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while let Some((line, more)) = rest.split_at_checked(PEM_LINE) {
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or_default())
}

/// Certificates are valid a little before they are made: clocks of nodes differ.
const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// A request with an RSA key of 16 KiB bits would fit; nothing sensible is longer.
const CSR_BYTES_MAX: usize = 16 << 10;
/// Smaller RSA keys are not considered secure.
const RSA_BITS_MIN: usize = 2048;
/// Characters on a line of PEM.
const PEM_LINE: usize = 64;
