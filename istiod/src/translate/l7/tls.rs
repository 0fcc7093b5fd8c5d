//! TLS towards backends as a DestinationRule asks for it.

use std::sync::Arc;

use bytes::Bytes;
use mesh_api::networking::{ClientTls, ClientTlsMode};
use mesh_core::names::NamespacedName;
use mesh_wire::l7;
use mesh_wire::l7::client_tls::Mode;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};

use crate::world::{Kind, Material, credential_keys};

/// The settings; none where there is no TLS beside that of the mesh. `namespace` is the proxy's, where its Secrets are;
/// `names` are those that a ServiceEntry says its certificates have.
///
/// # Errors
/// They cannot be honoured, for this reason: nothing may be sent then.
pub(super) fn client_tls<'a>(
    written: &ClientTls,
    namespace: &Arc<str>,
    external: bool,
    names: &[Arc<str>],
    read: impl FnMut(Kind, &NamespacedName) -> Option<&'a Arc<Material>>,
) -> Result<Option<l7::ClientTls>, String> {
    let mode = match written.mode.unwrap_or_default() {
        ClientTlsMode::Disable => return Ok(None),
        ClientTlsMode::IstioMutual if external => {
            return Err("tls.mode ISTIO_MUTUAL cannot be had outside of the mesh".to_owned());
        }
        // The tunnel does it.
        ClientTlsMode::IstioMutual => return Ok(None),
        ClientTlsMode::Simple => Mode::Simple,
        ClientTlsMode::Mutual => Mode::Mutual,
    };
    readable(written)?;
    let credential = match &written.credential_name {
        Some(name) => credential(name, namespace, mode, read)?,
        None => Credential::default(),
    };
    let skip = written.insecure_skip_verify.unwrap_or_default();
    if skip && !credential.roots.is_empty() {
        return Err("tls.insecureSkipVerify: not beside certificates of an authority".to_owned());
    }
    let own = written.subject_alt_names.iter().cloned();
    let of_entry = names.iter().map(ToString::to_string).filter(|_| written.subject_alt_names.is_empty());
    Ok(Some(l7::ClientTls {
        mode: mode.into(),
        sni: written.sni.clone().unwrap_or_default(),
        subject_alt_names: own.chain(of_entry).collect(),
        roots: credential.roots.to_vec(),
        client: credential.client,
        insecure_skip_verify: skip,
        crl: credential.crl.to_vec(),
    }))
}

/// What can be judged of settings without knowing who calls whom.
///
/// # Errors
/// Nobody can honour them, for this reason.
pub(super) fn readable(written: &ClientTls) -> Result<(), String> {
    let mode = written.mode.unwrap_or_default();
    if matches!(mode, ClientTlsMode::Disable | ClientTlsMode::IstioMutual) {
        return Ok(());
    }
    no_files(written)?;
    if let Some(sni) = written.sni.as_deref().filter(|sni| !sni.is_empty() && ServerName::try_from(*sni).is_err()) {
        return Err(format!("tls.sni: {sni:?} is no name of a server"));
    }
    if mode == ClientTlsMode::Mutual && written.credential_name.is_none() {
        return Err("tls.credentialName: expected, for tls.mode MUTUAL".to_owned());
    }
    Ok(())
}

/// Files are those of a sidecar's pod; the proxies that are made for gateways have none but the system's authorities.
fn no_files(written: &ClientTls) -> Result<(), String> {
    let file = |field: &str, value: Option<&String>| match value {
        Some(path) if !path.is_empty() => {
            Err(format!("tls.{field}: file {path:?} does not exist where the proxy runs, use credentialName"))
        }
        _ => Ok(()),
    };
    file("clientCertificate", written.client_certificate.as_ref())?;
    file("privateKey", written.private_key.as_ref())?;
    file("caCrl", written.ca_crl.as_ref())?;
    let authorities = written.ca_certificates.as_ref();
    file("caCertificates", authorities.filter(|path| !SYSTEM_AUTHORITIES.contains(&path.as_str())))
}

#[derive(Default)]
struct Credential {
    roots: Bytes,
    client: Option<l7::KeyPair>,
    crl: Bytes,
}

/// A Secret (or, with `configmap://`, a ConfigMap with authorities) of the proxy's namespace.
fn credential<'a>(
    name: &str,
    namespace: &Arc<str>,
    mode: Mode,
    mut read: impl FnMut(Kind, &NamespacedName) -> Option<&'a Arc<Material>>,
) -> Result<Credential, String> {
    let mut keys = credential_keys(name, namespace).into_iter();
    let Some((kind, object)) = keys.next() else {
        return Err(format!("tls.credentialName: {name:?} names nothing of the proxy's namespace {namespace}"));
    };
    let missing = || format!("tls.credentialName: there is no {} {object}", kind.name());
    let named = read(kind, &object);
    let beside = keys.next().and_then(|(kind, beside)| read(kind, &beside));
    let value = |material: Option<&'a Arc<Material>>, keys: &[&str]| {
        material.and_then(|one| keys.iter().find_map(|key| one.get(key))).cloned()
    };
    let roots = value(named, &ROOT_KEYS).or_else(|| value(beside, &ROOT_KEYS)).or_else(|| value(beside, &["tls.crt"]));
    let roots = match roots {
        Some(pem) => authorities(&pem).ok_or_else(|| format!("tls.credentialName: {object} has no valid authority"))?,
        None => Bytes::new(),
    };
    let crl = value(named, &CRL_KEYS).or_else(|| value(beside, &CRL_KEYS)).unwrap_or_default();
    if !crl.is_empty() && CertificateRevocationListDer::pem_slice_iter(&crl).any(|one| one.is_err()) {
        return Err(format!("tls.credentialName: revocation list of {object} cannot be read"));
    }
    let client = match mode {
        Mode::Mutual => {
            let named = named.ok_or_else(missing)?;
            let chain = value(Some(named), &["tls.crt", "cert"]);
            let key = value(Some(named), &["tls.key", "key"]);
            let pair = chain.zip(key).and_then(|(chain, key)| key_pair(&chain, &key));
            Some(pair.ok_or_else(|| format!("tls.credentialName: {object} has no valid certificate and key"))?)
        }
        _ if named.is_none() && beside.is_none() => return Err(missing()),
        _ if roots.is_empty() => return Err(format!("tls.credentialName: {object} has no authority (ca.crt)")),
        _ => None,
    };
    Ok(Credential { roots, client, crl })
}

/// Certificates of authorities, if all of them can be read and there is one.
pub fn authorities(pem: &Bytes) -> Option<Bytes> {
    let mut certificates = CertificateDer::pem_slice_iter(pem);
    let first = certificates.next()?.ok()?;
    x509_parser::parse_x509_certificate(&first).ok()?;
    let rest = certificates.all(|one| one.is_ok_and(|one| x509_parser::parse_x509_certificate(&one).is_ok()));
    rest.then(|| pem.clone())
}

/// A certificate chain and its key, if both can be read.
pub fn key_pair(chain: &Bytes, key: &Bytes) -> Option<l7::KeyPair> {
    authorities(chain)?;
    let certificates = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().ok()?;
    let private = PrivateKeyDer::from_pem_slice(key).ok()?;
    CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider()).ok()?;
    Some(l7::KeyPair { chain: chain.to_vec(), key: key.to_vec() })
}

/// Files of other systems that hold what every system has.
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "system",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
const ROOT_KEYS: [&str; 2] = ["ca.crt", "cacert"];
const CRL_KEYS: [&str; 2] = ["ca.crl", "crl"];
