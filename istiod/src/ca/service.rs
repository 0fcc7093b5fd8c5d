//! The gRPC service that signs.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use mesh_core::identity::{Identity, TrustDomain};
use mesh_core::names::NamespacedName;
use mesh_wire::ca::istio_certificate_service_server::IstioCertificateService;
use mesh_wire::ca::{IstioCertificateRequest, IstioCertificateResponse};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::CurrentAuthority;
use super::authority::{Lifetimes, SignError};
use super::impersonation::{self, CallerPod, Claim, Pods};
use crate::auth::{AuthError, Authenticator, Credentials, TokenReviewer};
use crate::translate::Model;

/// What the authority is allowed to do.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Accounts that may ask for the identities of the pods of their node.
    pub trusted_node_accounts: Vec<NamespacedName>,
    /// Lifetimes of certificates.
    pub lifetimes: Lifetimes,
}

/// Looks pods up in the API server, for when the world may not have heard of them yet.
pub trait LivePods: Send + Sync + 'static {
    /// The caller's pod and whether a pod of the claimed identity runs on its node.
    fn fetch(&self, claim: &Claim) -> impl Future<Output = Result<LiveAnswer, kube::Error>> + Send;
}

/// What the API server knows of one claim.
#[derive(Debug, Clone, Default)]
pub struct LiveAnswer {
    /// The caller's pod.
    pub caller: Option<CallerPod>,
    /// Whether a pod of the identity that has not ended is on that pod's node.
    pub runs_on_node: bool,
}

impl Pods for LiveAnswer {
    fn caller(&self, _pod: &NamespacedName) -> Option<CallerPod> {
        self.caller.clone()
    }

    fn runs_on(&self, _node: &str, _namespace: &str, _service_account: &str) -> bool {
        self.runs_on_node
    }
}

/// Is told what happens, for metrics.
pub trait CaObserver: Send + Sync + 'static {
    /// A request came.
    fn requested(&self);
    /// It was not authenticated, or its impersonation was refused.
    fn unauthenticated(&self);
    /// Its certificate request cannot be read.
    fn unreadable(&self);
    /// Signing failed.
    fn failed(&self, reason: &str);
    /// A certificate was issued.
    fn issued(&self);
}

/// `istio.v1.auth.IstioCertificateService`.
pub struct CertificateService<R, L> {
    authenticator: Arc<Authenticator<R>>,
    live: L,
    model: Arc<RwLock<Model>>,
    authority: CurrentAuthority,
    settings: CaSettings,
    observer: Arc<dyn CaObserver>,
    /// Requests handled at the same time.
    slots: Semaphore,
}

impl<R, L> std::fmt::Debug for CertificateService<R, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateService").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<R: TokenReviewer, L: LivePods> CertificateService<R, L> {
    /// Puts the service together.
    pub fn new(
        authenticator: Arc<Authenticator<R>>,
        live: L,
        model: Arc<RwLock<Model>>,
        authority: CurrentAuthority,
        settings: CaSettings,
        observer: Arc<dyn CaObserver>,
    ) -> Self {
        Self { authenticator, live, model, authority, settings, observer, slots: Semaphore::new(CONCURRENT_MAX) }
    }

    async fn issue(&self, request: Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Status> {
        self.observer.requested();
        let headers = request.metadata().clone().into_headers();
        let credentials = Credentials::new(&headers, request.extensions().get());
        let caller = self.authenticator.authenticate(credentials).await.map_err(|error| {
            self.observer.unauthenticated();
            unauthenticated(&error)
        })?;
        // After authentication: strangers must not take the places of those who are known.
        let waited = tokio::time::timeout(SLOT_WAIT, self.slots.acquire()).await;
        let Ok(Ok(_slot)) = waited else {
            return Err(Status::resource_exhausted("too many certificate requests at the same time"));
        };
        let request = request.into_inner();
        if option(&request, "CertSigner").is_some() {
            self.observer.unreadable();
            // Signed by us it would not be what was asked for.
            return Err(Status::invalid_argument("CertSigner: external signers are not supported, leave it out"));
        }
        let identity = match impersonated(&request) {
            // Under the mesh's own name only: a certificate of an alias is not exchanged for one that outlives the alias.
            None if caller.trust_domain.as_ref().is_some_and(|one| *one != self.trust_domain()) => {
                self.observer.unauthenticated();
                return Err(Status::unauthenticated("authentication failure"));
            }
            None => caller.identity(&self.trust_domain()),
            Some(requested) => {
                let trusted = &self.settings.trusted_node_accounts;
                let claim = impersonation::claim(&caller, requested, trusted, &self.trust_domain());
                match claim {
                    Ok(claim) => self.verify(claim).await,
                    Err(refusal) => Err(refusal),
                }
                .map_err(|refusal| {
                    self.observer.unauthenticated();
                    tracing::warn!(reason = %refusal, caller.namespace = %caller.namespace,
                        caller.service_account = %caller.service_account, "impersonation refused");
                    // Opaque: a caller must not learn which pods run where.
                    Status::unauthenticated("request impersonation authentication failure")
                })?
            }
        };
        let life = Duration::from_secs(request.validity_duration.try_into().unwrap_or_default());
        let authority = self.authority.borrow().clone();
        let chain = authority.sign(&request.csr, &identity, life, self.settings.lifetimes, SystemTime::now());
        let cert_chain = chain.map_err(|error| self.refuse(&identity, &error))?;
        self.observer.issued();
        tracing::debug!(%identity, "certificate issued");
        Ok(IstioCertificateResponse { cert_chain })
    }

    /// The trust domain of the mesh, which its configuration may change.
    fn trust_domain(&self) -> TrustDomain {
        self.model.read().unwrap_or_else(PoisonError::into_inner).world().settings().trust_domain.clone()
    }

    /// Checks a claim against the world, and once more against the API server when the world may be behind.
    async fn verify(&self, claim: Claim) -> Result<Identity, impersonation::Refusal> {
        let known = {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
            impersonation::verify(&claim, model.world())
        };
        match known {
            Err(refusal) if refusal.may_be_stale() => match self.live.fetch(&claim).await {
                Ok(answer) => impersonation::verify(&claim, &answer)?,
                Err(error) => {
                    tracing::warn!(%error, "live look-up of pods failed");
                    return Err(refusal);
                }
            },
            other => other?,
        }
        Ok(claim.identity)
    }

    fn refuse(&self, identity: &Identity, error: &SignError) -> Status {
        tracing::warn!(%identity, reason = %error, "certificate refused");
        match error {
            SignError::BadRequest { .. } => {
                self.observer.unreadable();
                Status::invalid_argument(error.to_string())
            }
            SignError::Failed { reason } => {
                self.observer.failed(reason);
                Status::internal("signing failed")
            }
        }
    }
}

#[tonic::async_trait]
impl<R: TokenReviewer, L: LivePods> IstioCertificateService for CertificateService<R, L> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.issue(request).await.map(Response::new)
    }
}

/// The status for a failed authentication; the reason stays in the log, except that retrying helps.
pub fn unauthenticated(error: &AuthError) -> Status {
    match error {
        // Its refusals were told, one by one, until there were too many.
        AuthError::TooManyAttempts { .. } => tracing::debug!(reason = %error, "authentication failed"),
        _ => tracing::warn!(reason = %error, "authentication failed"),
    }
    match error {
        AuthError::Unreviewed { .. } => Status::unavailable("authentication is not possible at the moment"),
        _ => Status::unauthenticated("authentication failure"),
    }
}

/// The identity that a node proxy asks for.
fn impersonated(request: &IstioCertificateRequest) -> Option<&str> {
    match &option(request, "ImpersonatedIdentity")?.kind {
        Some(prost_types::value::Kind::StringValue(identity)) if !identity.is_empty() => Some(identity),
        // Present but unusable: refused as malformed, never taken for absent.
        _ => Some(""),
    }
}

fn option<'a>(request: &'a IstioCertificateRequest, name: &str) -> Option<&'a prost_types::Value> {
    request.metadata.as_ref()?.fields.get(name)
}

/// Each holds a token review or a signature; more wait.
const CONCURRENT_MAX: usize = 128;
/// How long a request waits for its turn.
const SLOT_WAIT: Duration = Duration::from_secs(5);
