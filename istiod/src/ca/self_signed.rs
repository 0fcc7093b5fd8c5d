//! A root of our own, kept in a Secret so that every replica signs with the same one.

use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use mesh_api::labels;
use mesh_core::identity::TrustDomain;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::authority::{Authority, AuthorityError};
use super::material::CaMaterial;

/// Why there is no self-made root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfSignedError {
    /// The Secret cannot be read or written. Worth a retry.
    #[error("Secret {namespace}/{name}", name = labels::CA_SECRET)]
    Secret {
        /// Its namespace.
        namespace: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The Secret lacks a key or holds something that is no text.
    #[error("Secret {name} has no usable key {key:?}", name = labels::CA_SECRET)]
    Incomplete {
        /// The key.
        key: &'static str,
    },
    /// The material in the Secret is not that of an authority.
    #[error("material of Secret {name}", name = labels::CA_SECRET)]
    Unusable(#[source] AuthorityError),
    /// No certificate could be made.
    #[error("making a root certificate: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

/// The root in the cluster's Secret, made if there is none yet. Replicas converge on the first writer's.
///
/// # Errors
/// See [`SelfSignedError`].
pub async fn load_or_create(
    secrets: &Api<Secret>,
    namespace: &str,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CaMaterial, SelfSignedError> {
    let failed = |source| SelfSignedError::Secret { namespace: namespace.to_owned(), source: Box::new(source) };
    if let Some(secret) = secrets.get_opt(labels::CA_SECRET).await.map_err(failed)? {
        return material(&secret);
    }
    let made = create(trust_domain, now)?;
    match secrets.create(&PostParams::default(), &secret(&made)).await {
        Ok(_) => Ok(made),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            material(&secrets.get(labels::CA_SECRET).await.map_err(failed)?)
        }
        Err(source) => Err(failed(source)),
    }
}

/// Reads the Secret again and renews its certificate when its end is near. The key stays, so that old leaves stay valid.
///
/// # Errors
/// See [`SelfSignedError`]. Another replica that was faster is no error: the next call reads what it wrote.
pub async fn refresh(
    secrets: &Api<Secret>,
    namespace: &str,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CaMaterial, SelfSignedError> {
    let failed = |source| SelfSignedError::Secret { namespace: namespace.to_owned(), source: Box::new(source) };
    let Some(mut stored) = secrets.get_opt(labels::CA_SECRET).await.map_err(failed)? else {
        return load_or_create(secrets, namespace, trust_domain, now).await;
    };
    let current = material(&stored)?;
    let authority = Authority::new(&current).map_err(SelfSignedError::Unusable)?;
    if !is_due(authority.validity(), now) {
        return Ok(current);
    }
    let renewed = renew(&current, trust_domain, now)?;
    stored.data = secret(&renewed).data;
    match secrets.replace(labels::CA_SECRET, &PostParams::default(), &stored).await {
        Ok(_) => Ok(renewed),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(current),
        Err(source) => Err(failed(source)),
    }
}

/// A new root.
///
/// # Errors
/// [`SelfSignedError::Failed`].
pub fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<CaMaterial, SelfSignedError> {
    let key = KeyPair::generate().map_err(|error| SelfSignedError::Failed { reason: error.to_string() })?;
    certify(&key, trust_domain, now)
}

/// A new certificate for the key of a root.
///
/// # Errors
/// [`SelfSignedError::Failed`].
pub fn renew(
    material: &CaMaterial,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CaMaterial, SelfSignedError> {
    let key = KeyPair::from_pem(&material.key_pem);
    let key = key.map_err(|error| SelfSignedError::Failed { reason: format!("the key cannot be read: {error}") })?;
    let renewed = certify(&key, trust_domain, now)?;
    Ok(CaMaterial { key_pem: material.key_pem.clone(), ..renewed })
}

/// Whether less than a fifth of the lifetime remains.
pub fn is_due((not_before, not_after): (SystemTime, SystemTime), now: SystemTime) -> bool {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_after.duration_since(now).unwrap_or_default() < life / RENEW_FRACTION
}

fn certify(key: &KeyPair, trust_domain: &TrustDomain, now: SystemTime) -> Result<CaMaterial, SelfSignedError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.not_before = (now - Duration::from_secs(120)).into();
    params.not_after = (now + ROOT_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(key).map_err(|error| SelfSignedError::Failed { reason: error.to_string() })?;
    let cert_pem = root.pem();
    Ok(CaMaterial { root_pem: cert_pem.clone(), cert_pem, key_pem: key.serialize_pem(), chain_pem: String::new() })
}

fn secret(material: &CaMaterial) -> Secret {
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta { name: Some(labels::CA_SECRET.to_owned()), ..ObjectMeta::default() },
        type_: Some("istio.io/ca-root".to_owned()),
        // The other keys are there, empty, because tools of the reference read them.
        data: Some(
            [
                entry("ca-cert.pem", &material.cert_pem),
                entry("ca-key.pem", &material.key_pem),
                entry("cert-chain.pem", ""),
                entry("root-cert.pem", ""),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

fn material(secret: &Secret) -> Result<CaMaterial, SelfSignedError> {
    let text = |key: &'static str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.and_then(|value| String::from_utf8(value.0.clone()).ok()).filter(|text| !text.is_empty())
    };
    let wanted = |key| text(key).ok_or(SelfSignedError::Incomplete { key });
    let cert_pem = wanted("ca-cert.pem")?;
    let root_pem = text("root-cert.pem").unwrap_or_else(|| cert_pem.clone());
    Ok(CaMaterial {
        key_pem: wanted("ca-key.pem")?,
        chain_pem: text("cert-chain.pem").unwrap_or_default(),
        cert_pem,
        root_pem,
    })
}

/// Life of a self-made root.
const ROOT_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A root is renewed when one part of this many of its life remains.
const RENEW_FRACTION: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_survives_its_secret() {
        let made = create(&TrustDomain::default(), SystemTime::now()).unwrap();
        let read = material(&secret(&made)).unwrap();
        assert_eq!((&read.cert_pem, &read.key_pem, &read.root_pem), (&made.cert_pem, &made.key_pem, &made.cert_pem));
        let empty = Secret::default();
        assert!(material(&empty).unwrap_err().to_string().contains("ca-cert.pem"));
    }

    #[test]
    fn a_root_is_due_when_a_fifth_of_its_life_remains() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |percent| start + Duration::from_secs(percent);
        assert!(!is_due((at(0), at(100)), at(80)));
        assert!(is_due((at(0), at(100)), at(81)));
        assert!(is_due((at(0), at(100)), at(101)));
    }
}
