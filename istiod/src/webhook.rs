//! Admission: the API server asks here before it stores an object of the mesh.
//!
//! Whoever reaches the port may ask, since API servers do not show who they are: whatever a client sends is bounded before
//! it is looked at. `connection` bounds clients, `body` bounds bytes, `outline` bounds what parsing may cost, `review`
//! answers; `registration` tells the API server whom to trust.

mod body;
mod connection;
mod metrics;
mod outline;
pub mod registration;
pub mod review;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use mesh_api::validate::Context;
use tokio::sync::Semaphore;

pub use connection::{Limits, serve};
pub use metrics::WebhookMetrics;

use body::{Budget, Refused};
use connection::Meter;

use crate::translate::Model;

/// Answers requests of the API server.
pub struct Webhook {
    /// What a judgement depends on besides the object, as it is now.
    pub context: Box<dyn Fn() -> Context + Send + Sync>,
    /// Where judgements are counted.
    pub metrics: Arc<WebhookMetrics>,
    /// How long a review may take, from its head to its answer.
    pub patience: Duration,
    /// Bytes of bodies.
    budget: Budget,
    /// Parts of [`REVIEW_SHARES`] that reviews being parsed and judged hold.
    shares: Arc<Semaphore>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl Webhook {
    /// Nothing is being reviewed.
    pub fn new(context: Box<dyn Fn() -> Context + Send + Sync>, metrics: Arc<WebhookMetrics>) -> Self {
        Self {
            context,
            metrics,
            patience: REVIEW,
            budget: Budget::new(),
            shares: Arc::new(Semaphore::new(REVIEW_SHARES as usize)),
        }
    }

    /// Judges by the mesh configuration that the model has at that moment.
    pub fn following(model: Arc<RwLock<Model>>, metrics: Arc<WebhookMetrics>) -> Self {
        let context = move || {
            let settings = model.read().unwrap_or_else(PoisonError::into_inner).world().settings().clone();
            Context {
                root_namespace: settings.root_namespace.to_string(),
                warn_unserved: settings.promises.unserved_fields.is_strict(),
            }
        };
        Self::new(Box::new(context), metrics)
    }

    /// Answers one request, refusals included.
    pub(crate) async fn answer<B>(&self, request: Request<B>, meter: &Meter) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let (is_review, is_ready) = (is_review(request.uri().path()), request.uri().path() == "/ready");
        if !is_review && !is_ready {
            return plain(StatusCode::NOT_FOUND, "not found: expected /validate or /ready");
        }
        let wanted = if is_review { Method::POST } else { Method::GET };
        if request.method() != wanted {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "expected POST /validate or GET /ready");
        }
        if is_ready {
            return plain(StatusCode::OK, "ready");
        }
        let answered = tokio::time::timeout(self.patience, self.review(request, meter)).await;
        answered.unwrap_or(Err(Refused::Late)).unwrap_or_else(|refused| self.refuse(&refused))
    }

    async fn review<B>(&self, request: Request<B>, meter: &Meter) -> Result<Response<Full<Bytes>>, Refused>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
        if !request.headers().get(header::CONTENT_TYPE).is_some_and(json) {
            return Err(Refused::Unreadable("expected content type application/json".to_owned()));
        }
        let body = self.budget.read(request, meter).await?;
        outline::check(body.bytes()).map_err(|error| Refused::Unreadable(error.to_string()))?;
        let shares = if body.bytes().len() > LARGE_BYTES { REVIEW_SHARES / 2 } else { 1 };
        let share = self.shares.clone().acquire_many_owned(shares).await.map_err(|_| Refused::Busy)?;
        let (context, metrics) = ((self.context)(), self.metrics.clone());
        // Parsing megabytes takes long enough to hold up others on this thread.
        let judged = tokio::task::spawn_blocking(move || {
            let answer = review::answer(body.bytes(), &context, &metrics);
            drop((body, share));
            answer
        });
        let answer =
            judged.await.map_err(|_| Refused::Failed)?.map_err(|error| Refused::Unreadable(error.to_string()))?;
        let mut response = Response::new(Full::from(answer));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn refuse(&self, refused: &Refused) -> Response<Full<Bytes>> {
        let status = refused.status();
        self.metrics.refused(status);
        tracing::debug!(status = status.as_u16(), reason = %refused, "review refused");
        plain(status, &refused.to_string())
    }
}

/// `/validate` and everything below it: installers add the path of a tenant or a cluster.
fn is_review(path: &str) -> bool {
    path.strip_prefix("/validate").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The API server gives up after 10 s by default.
const REVIEW: Duration = Duration::from_secs(8);
/// Reviews that are parsed and judged at the same time: each takes one share, a large one half of all.
const REVIEW_SHARES: u32 = 8;
/// What makes a review a large one.
const LARGE_BYTES: usize = 256 << 10;
