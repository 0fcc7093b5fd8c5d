//! Who is calling: service-account tokens, judged by the API server.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use http::HeaderMap;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mesh_core::identity::{Identity, TrustDomain};

/// A caller whose token the API server vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the service account.
    pub namespace: Arc<str>,
    /// Name of the service account.
    pub service_account: Arc<str>,
    /// Pod that the token is bound to, if it is.
    pub pod: Option<BoundPod>,
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
}

/// Authenticates requests by their headers.
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
}

impl<R: TokenReviewer> Authenticator<R> {
    /// Tells who sends a request. Every call asks the API server: tokens are revoked with their pods.
    ///
    /// # Errors
    /// See [`AuthError`]; only [`AuthError::Unreviewed`] is worth a retry.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let cluster = headers.get("clusterid").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let ours =
            cluster.is_empty() || *cluster == *self.cluster_id || self.cluster_aliases.iter().any(|one| one == cluster);
        if !ours {
            return Err(AuthError::UnknownCluster { found: cluster.to_owned(), own: self.cluster_id.clone() });
        }
        let token = bearer(headers).ok_or(AuthError::NoToken)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::TokenTooLong { max: TOKEN_BYTES_MAX });
        }
        judge(&self.reviewer.review(token, &self.audiences).await?, &self.audiences)
    }
}

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
    Ok(Caller { namespace: (*namespace).into(), service_account: (*service_account).into(), pod })
}

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Service-account tokens have some 1.5 KB; 16 KiB leaves room for any signer.
const TOKEN_BYTES_MAX: usize = 16 << 10;
