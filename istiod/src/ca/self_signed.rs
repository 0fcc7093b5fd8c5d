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
    match secrets.get_opt(labels::CA_SECRET).await.map_err(failed)? {
        Some(stored) => renewed_if_due(secrets, stored, namespace, trust_domain, now).await,
        None => write_first(secrets, namespace, create(trust_domain, now)?).await,
    }
}

/// Reads the Secret again and renews its certificate when its end is near. The key stays, so that old leaves stay valid.
/// A Secret that was deleted is written again from what is in use: a new root would cut off whoever trusts this one.
///
/// # Errors
/// See [`SelfSignedError`]. Another replica that was faster is no error.
pub async fn refresh(
    secrets: &Api<Secret>,
    namespace: &str,
    trust_domain: &TrustDomain,
    in_use: &CaMaterial,
    now: SystemTime,
) -> Result<CaMaterial, SelfSignedError> {
    let failed = |source| SelfSignedError::Secret { namespace: namespace.to_owned(), source: Box::new(source) };
    match secrets.get_opt(labels::CA_SECRET).await.map_err(failed)? {
        Some(stored) => renewed_if_due(secrets, stored, namespace, trust_domain, now).await,
        None => {
            tracing::warn!(namespace, secret = labels::CA_SECRET, "the root's Secret is gone, writing it again");
            write_first(secrets, namespace, in_use.clone()).await
        }
    }
}

/// Writes a Secret that is not there; somebody faster wins.
async fn write_first(secrets: &Api<Secret>, namespace: &str, made: CaMaterial) -> Result<CaMaterial, SelfSignedError> {
    let failed = |source| SelfSignedError::Secret { namespace: namespace.to_owned(), source: Box::new(source) };
    match secrets.create(&PostParams::default(), &secret(&made)).await {
        Ok(_) => Ok(made),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            material(&secrets.get(labels::CA_SECRET).await.map_err(failed)?)
        }
        Err(source) => Err(failed(source)),
    }
}

async fn renewed_if_due(
    secrets: &Api<Secret>,
    mut stored: Secret,
    namespace: &str,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CaMaterial, SelfSignedError> {
    let failed = |source| SelfSignedError::Secret { namespace: namespace.to_owned(), source: Box::new(source) };
    let current = material(&stored)?;
    let authority = Authority::new(&current).map_err(SelfSignedError::Unusable)?;
    if !is_due(authority.validity(), now) {
        return Ok(current);
    }
    let renewed = renew(&current, trust_domain, now)?;
    stored.data = secret(&renewed).data;
    match secrets.replace(labels::CA_SECRET, &PostParams::default(), &stored).await {
        Ok(_) => Ok(renewed),
        // Another replica was faster: what it wrote is as good.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            material(&secrets.get(labels::CA_SECRET).await.map_err(failed)?)
        }
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
    Ok(CaMaterial {
        root_pem: cert_pem.clone(),
        cert_pem,
        key_pem: key.serialize_pem(),
        chain_pem: String::new(),
        crl_pem: None,
    })
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
                entry("cert-chain.pem", &material.chain_pem),
                entry("root-cert.pem", if material.root_pem == material.cert_pem { "" } else { &material.root_pem }),
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
        crl_pem: None,
    })
}

/// Life of a self-made root.
const ROOT_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A root is renewed when one part of this many of its life remains.
const RENEW_FRACTION: u32 = 5;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An API server that holds one Secret or none.
    fn server(stored: &Arc<Mutex<Option<Secret>>>) -> Api<Secret> {
        let stored = stored.clone();
        let serve = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let stored = stored.clone();
            async move {
                let write = request.method() != http::Method::GET;
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut stored = stored.lock().unwrap();
                if write {
                    *stored = Some(serde_json::from_slice(&body).unwrap());
                }
                let (code, body) = match &*stored {
                    Some(secret) => (200, serde_json::to_vec(secret).unwrap()),
                    None => {
                        let status = serde_json::json!({
                            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": "not found", "reason": "NotFound", "code": 404,
                        });
                        (404, status.to_string().into_bytes())
                    }
                };
                let response = http::Response::builder().status(code).body(kube::client::Body::from(body));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        Api::namespaced(kube::Client::new(serve, "default"), "istio-system")
    }

    #[tokio::test]
    async fn a_deleted_secret_is_written_again_and_an_expired_root_is_renewed_at_the_start() {
        let (stored, domain, now) = (Arc::new(Mutex::new(None)), TrustDomain::default(), SystemTime::now());
        let secrets = server(&stored);
        let made = load_or_create(&secrets, "istio-system", &domain, now).await.unwrap();
        *stored.lock().unwrap() = None;
        let again = refresh(&secrets, "istio-system", &domain, &made, now).await.unwrap();
        assert_eq!(again, made);
        assert_eq!(material(stored.lock().unwrap().as_ref().unwrap()).unwrap(), made);
        let later = now + ROOT_LIFE + Duration::from_secs(3600);
        let renewed = load_or_create(&secrets, "istio-system", &domain, later).await.unwrap();
        assert_eq!(renewed.key_pem, made.key_pem);
        assert!(Authority::new(&renewed).unwrap().validity().1 > later);
        assert_eq!(material(stored.lock().unwrap().as_ref().unwrap()).unwrap(), renewed);
    }

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
