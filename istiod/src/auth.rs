//! Who is calling: a verified client certificate, or a service-account token that the API server judges.

mod attempts;
pub mod certificate;
pub mod cluster;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::{Extensions, HeaderMap};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mesh_core::identity::{Identity, TrustDomain};
use tokio::time::Instant;

pub use attempts::Attempts;

use crate::listen::Peer;

/// A caller that somebody vouches for: the authority by a certificate, or the API server by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the service account.
    pub namespace: Arc<str>,
    /// Name of the service account.
    pub service_account: Arc<str>,
    /// Pod that the token is bound to, if it is.
    pub pod: Option<BoundPod>,
    /// The other cluster whose API server vouches for it; none where ours does, or a certificate.
    pub cluster: Option<Arc<str>>,
    /// Trust domain of its certificate; none where a token was shown.
    pub trust_domain: Option<TrustDomain>,
}

/// The pod that a token was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Name, in the caller's namespace.
    pub name: Arc<str>,
    /// UID: a later pod of the same name is another pod.
    pub uid: Arc<str>,
}

impl Caller {
    /// The identity of the caller in the mesh.
    pub fn identity(&self, trust_domain: &TrustDomain) -> Identity {
        Identity::new(trust_domain.clone(), &self.namespace, &self.service_account)
    }
}

/// Why a caller is not authenticated. The text is for the log; callers are told no more than "unauthenticated".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No bearer token came with the request.
    #[error("the request carries no bearer token")]
    NoToken,
    /// Too many calls from the same address were refused; nobody was asked about this one.
    #[error("too many refused calls from {source_ip}")]
    TooManyAttempts {
        /// Where they come from.
        source_ip: IpAddr,
    },
    /// The token is longer than any that is issued.
    #[error("the token is longer than {max} bytes")]
    TokenTooLong {
        /// Longest accepted.
        max: usize,
    },
    /// The caller says that another cluster must review its token.
    #[error("token of cluster {found:?}, which is not ours ({own:?})")]
    UnknownCluster {
        /// What the `clusterid` header says.
        found: String,
        /// Our own.
        own: Arc<str>,
    },
    /// The API server refuses the token.
    #[error("token refused by the API server: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The token is good but not one of a service account for us.
    #[error("token of {username:?}: {problem}")]
    NotAServiceAccount {
        /// The reviewed user.
        username: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The API server could not be asked. The caller may try again.
    #[error("token review failed: {reason}")]
    Unreviewed {
        /// What happened.
        reason: String,
    },
}

/// Asks whether a token is good. The API server does; tests answer by a script.
pub trait TokenReviewer: Send + Sync + 'static {
    /// Reviews a token for the given audiences.
    fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> impl Future<Output = Result<TokenReviewStatus, AuthError>> + Send;

    /// Who reviews tokens of another cluster of the mesh; none where it is not one.
    fn of_cluster(&self, _id: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// What a request brings along.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Headers, or metadata.
    pub headers: &'a HeaderMap,
    /// The other end of the connection, where the listener knows it.
    pub peer: Option<&'a Arc<Peer>>,
    /// Where the request comes from, if known.
    pub source: Option<IpAddr>,
}

impl<'a> Credentials<'a> {
    /// Those of a request.
    pub fn of(headers: &'a HeaderMap, extensions: &'a Extensions) -> Self {
        Self::new(headers, extensions.get::<Arc<Peer>>())
    }

    /// Those of a request that came over a connection.
    pub fn new(headers: &'a HeaderMap, peer: Option<&'a Arc<Peer>>) -> Self {
        Self { headers, peer, source: peer.map(|peer| peer.addr().ip().to_canonical()) }
    }
}

/// Tells which trust domains are ours: that of the mesh and its aliases.
#[derive(Clone)]
pub struct TrustDomains(Arc<dyn Fn(&TrustDomain) -> bool + Send + Sync>);

impl TrustDomains {
    /// Those that `accepts` says.
    pub fn new(accepts: impl Fn(&TrustDomain) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(accepts))
    }
}

impl Default for TrustDomains {
    fn default() -> Self {
        Self::new(|one| *one == TrustDomain::default())
    }
}

impl fmt::Debug for TrustDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustDomains").finish_non_exhaustive()
    }
}

/// Authenticates requests by the certificate of their connection, else by their headers.
#[derive(Debug)]
pub struct Authenticator<R> {
    /// Who reviews tokens.
    pub reviewer: R,
    /// Audiences of which a token must have one.
    pub audiences: Vec<String>,
    /// Own cluster.
    pub cluster_id: Arc<str>,
    /// Other names of the own cluster.
    pub cluster_aliases: Vec<String>,
    /// Whose certificates count.
    pub trust_domains: TrustDomains,
    /// Bounds on reviews.
    pub attempts: Attempts,
}

impl<R: TokenReviewer> Authenticator<R> {
    /// Tells who sends a request. Every token is reviewed by the API server: tokens are revoked with their pods.
    ///
    /// # Errors
    /// See [`AuthError`]; only [`AuthError::Unreviewed`] is worth a retry.
    ///
    /// # Source
    /// spec of the xDS server, section 4: certificate first, then token; the first success counts.
    pub async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Caller, AuthError> {
        let Credentials { headers, peer, source } = credentials;
        if let Some(caller) = peer.and_then(|peer| self.by_certificate(peer.identity()?)) {
            credentials.vouch();
            return Ok(caller);
        }
        if let Some(source_ip) = source.filter(|source| !self.attempts.allows(*source, Instant::now())) {
            return Err(AuthError::TooManyAttempts { source_ip });
        }
        let outcome = self.by_token(headers, source).await;
        match (&outcome, source) {
            (Ok(_), _) => credentials.vouch(),
            // It says nothing about the caller that nobody could be asked.
            (Err(AuthError::Unreviewed { .. }), _) | (Err(_), None) => {}
            (Err(_), Some(source)) => self.attempts.refused(source, Instant::now()),
        }
        outcome
    }

    fn by_certificate(&self, identity: &Identity) -> Option<Caller> {
        let ours = (self.trust_domains.0)(identity.trust_domain());
        ours.then(|| Caller {
            namespace: identity.namespace().into(),
            service_account: identity.service_account().into(),
            // A certificate is not bound to a pod: its holder speaks for itself only.
            pod: None,
            cluster: None,
            trust_domain: Some(identity.trust_domain().clone()),
        })
    }

    async fn by_token(&self, headers: &HeaderMap, source: Option<IpAddr>) -> Result<Caller, AuthError> {
        let cluster = headers.get("clusterid").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let ours =
            cluster.is_empty() || *cluster == *self.cluster_id || self.cluster_aliases.iter().any(|one| one == cluster);
        let unknown = || AuthError::UnknownCluster {
            found: cluster.chars().take(SHOWN_MAX).collect(),
            own: self.cluster_id.clone(),
        };
        let other = if ours { None } else { Some(self.reviewer.of_cluster(cluster).ok_or_else(unknown)?) };
        let reviewer = other.as_ref().unwrap_or(&self.reviewer);
        let token = bearer(headers).ok_or(AuthError::NoToken)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::TokenTooLong { max: TOKEN_BYTES_MAX });
        }
        let busy = || AuthError::Unreviewed { reason: "too many reviews at the same time".to_owned() };
        let _place = self.attempts.review(ours).await.ok_or_else(busy)?;
        // Others of the same source may have been refused while this one waited.
        if let Some(source_ip) = source.filter(|source| !self.attempts.allows(*source, Instant::now())) {
            return Err(AuthError::TooManyAttempts { source_ip });
        }
        let caller = judge(&reviewer.review(token, &self.audiences).await?, &self.audiences)?;
        Ok(Caller { cluster: (!ours).then(|| cluster.into()), ..caller })
    }
}

impl Credentials<'_> {
    fn vouch(&self) {
        if let Some(peer) = self.peer {
            peer.know();
        }
    }
}

/// Characters of a cluster's name that are shown in the log.
const SHOWN_MAX: usize = 64;

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.trim())
}

/// Reads a review: pure, so that every refusal is a test.
///
/// # Errors
/// [`AuthError::Refused`] and [`AuthError::NotAServiceAccount`].
pub fn judge(review: &TokenReviewStatus, audiences: &[String]) -> Result<Caller, AuthError> {
    if review.authenticated != Some(true) {
        let reason =
            review.error.clone().filter(|error| !error.is_empty()).unwrap_or_else(|| "not authenticated".into());
        return Err(AuthError::Refused { reason });
    }
    // An API server that does not know audiences answers with none: the token is then for anybody.
    let granted = review.audiences.as_deref().unwrap_or_default();
    if !granted.iter().any(|audience| audiences.contains(audience)) {
        return Err(AuthError::Refused { reason: format!("the token is for {granted:?}, not for {audiences:?}") });
    }
    let user = review.user.clone().unwrap_or_default();
    let username = user.username.clone().unwrap_or_default();
    let wrong = |problem| AuthError::NotAServiceAccount { username: username.clone(), problem };
    if !user.groups.iter().flatten().any(|group| group == "system:serviceaccounts") {
        return Err(wrong("not in group system:serviceaccounts"));
    }
    let parts: Vec<_> = username.split(':').collect();
    let ["system", "serviceaccount", namespace, service_account] = parts.as_slice() else {
        return Err(wrong("expected system:serviceaccount:<namespace>:<name>"));
    };
    if namespace.is_empty() || service_account.is_empty() {
        return Err(wrong("empty namespace or name"));
    }
    let extra = |key: &str| user.extra.as_ref()?.get(key)?.first().filter(|value| !value.is_empty()).cloned();
    let pod = extra(POD_NAME).zip(extra(POD_UID)).map(|(name, uid)| BoundPod { name: name.into(), uid: uid.into() });
    Ok(Caller {
        namespace: (*namespace).into(),
        service_account: (*service_account).into(),
        pod,
        cluster: None,
        trust_domain: None,
    })
}

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Service-account tokens have some 1.5 KB; 16 KiB leaves room for any signer.
const TOKEN_BYTES_MAX: usize = 16 << 10;
