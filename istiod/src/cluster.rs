//! Questions that only the API server can answer.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};

use crate::auth::{AuthError, TokenReviewer};
use crate::ca::impersonation::{CallerPod, Claim};
use crate::ca::service::{LiveAnswer, LivePods};

/// The API server, asked live.
#[derive(Clone)]
pub struct Cluster(pub Client);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl TokenReviewer for Cluster {
    fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> impl Future<Output = Result<TokenReviewStatus, AuthError>> + Send {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(audiences.to_vec()) },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.0.clone());
        async move {
            let answer =
                tokio::time::timeout(ANSWER, async { api.create(&PostParams::default(), &review).await }).await;
            match answer {
                Ok(Ok(review)) => Ok(review.status.unwrap_or_default()),
                Ok(Err(error)) => Err(AuthError::Unreviewed { reason: error.to_string() }),
                Err(_) => Err(AuthError::Unreviewed { reason: format!("no answer within {ANSWER:?}") }),
            }
        }
    }
}

impl LivePods for Cluster {
    async fn fetch(&self, claim: &Claim) -> Result<LiveAnswer, kube::Error> {
        let late = |_| kube::Error::Service(format!("no answer within {ANSWER:?}").into());
        tokio::time::timeout(ANSWER, self.look_up(claim)).await.map_err(late)?
    }
}

impl Cluster {
    async fn look_up(&self, claim: &Claim) -> Result<LiveAnswer, kube::Error> {
        let callers: Api<Pod> = Api::namespaced(self.0.clone(), &claim.pod.namespace);
        let Some(caller) = callers.get_opt(&claim.pod.name).await?.filter(runs) else {
            return Ok(LiveAnswer::default());
        };
        let spec = caller.spec.unwrap_or_default();
        let node = spec.node_name.unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.0.clone(), claim.identity.namespace());
        let on_node = pods.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
        let runs_on_node = on_node.items.into_iter().filter(runs).any(|pod| {
            let spec = pod.spec.unwrap_or_default();
            // Checked again here: a server without field selectors answers with all.
            spec.node_name.as_deref() == Some(&node)
                && spec.service_account_name.as_deref() == Some(claim.identity.service_account())
        });
        let caller = CallerPod {
            uid: caller.metadata.uid.unwrap_or_default().into(),
            service_account: spec.service_account_name.unwrap_or_default().into(),
            node: node.into(),
        };
        Ok(LiveAnswer { caller: Some(caller), runs_on_node })
    }
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Failed" | "Succeeded"))
}

/// The API server answers in milliseconds; proxies retry.
const ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use mesh_core::identity::{Identity, TrustDomain};
    use mesh_core::names::NamespacedName;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_is_an_error_and_no_wait() {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let claim = Claim {
            pod: NamespacedName::new("istio-system", "zt"),
            identity: Identity::new(TrustDomain::default(), "ns", "sa"),
            uid: "u".into(),
            service_account: "ztunnel".into(),
        };
        let fetched = Cluster(Client::new(silent, "default")).fetch(&claim).await;
        assert!(fetched.unwrap_err().to_string().contains("no answer within 5s"));
    }
}
