//! Tokens of several clusters: each is reviewed by the API server of the cluster that its bearer names.

use k8s_openapi::api::authentication::v1::TokenReviewStatus;

use super::{AuthError, TokenReviewer};
use crate::cluster::Cluster;
use crate::source::remote::registry::Clusters;

/// Asks our API server, or that of another cluster of the mesh.
#[derive(Clone, Debug)]
pub struct Reviewers {
    /// Ours.
    pub local: Cluster,
    /// Those of the other clusters; none where there is only ours.
    pub others: Option<Clusters>,
}

impl TokenReviewer for Reviewers {
    async fn review(&self, token: &str, audiences: &[String]) -> Result<TokenReviewStatus, AuthError> {
        self.local.review(token, audiences).await
    }

    fn of_cluster(&self, id: &str) -> Option<Self> {
        let client = self.others.as_ref()?.client(id)?;
        Some(Self { local: Cluster(client), others: None })
    }
}
