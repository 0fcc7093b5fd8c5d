//! Bodies: read with a bound each, and with a bound on all of them together.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Meter;

/// Why a review is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the body is larger than {REVIEW_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the review did not come in time")]
    Late,
    #[error("too many reviews at the same time, try again")]
    Busy,
    #[error("the body broke off: {0}")]
    Broken(String),
    #[error("not a review: {0}")]
    Unreadable(String),
    #[error("the review could not be judged")]
    Failed,
}

impl Refused {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What bodies may hold together, beyond the [`CONNECTION_BYTES_MAX`] that each connection has for itself: so small reviews get
/// through however many large ones are on the way elsewhere.
#[derive(Debug)]
pub(super) struct Budget {
    large: Arc<Semaphore>,
}

/// A body and what it takes of the budget.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    _held: Vec<OwnedSemaphorePermit>,
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { large: Arc::new(Semaphore::new(LARGE_BYTES_ALL_MAX / UNIT_BYTES)) }
    }

    /// Reads a body, or stops at the first byte too many.
    pub(super) async fn read<B>(&self, request: Request<B>, meter: &Meter) -> Result<Body, Refused>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let announced =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > REVIEW_BYTES_MAX) {
            return Err(Refused::TooLarge);
        }
        let mut incoming = request.into_body();
        let mut body = Body { bytes: Vec::new(), _held: Vec::new() };
        let mut units_held = 0;
        while let Some(frame) = Pin::new(&mut incoming).frame().await {
            let frame = frame.map_err(|error| Refused::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            meter.delivered(data.remaining());
            let length = body.bytes.len() + data.remaining();
            if length > REVIEW_BYTES_MAX {
                return Err(Refused::TooLarge);
            }
            let units = length.div_ceil(UNIT_BYTES);
            if units > units_held {
                let more = u32::try_from(units - units_held).map_err(|_| Refused::TooLarge)?;
                let own = meter.bodies().try_acquire_many_owned(more);
                let held = own.or_else(|_| self.large.clone().try_acquire_many_owned(more));
                body._held.push(held.map_err(|_| Refused::Busy)?);
                units_held = units;
            }
            body.bytes.extend_from_slice(&data);
        }
        Ok(body)
    }
}

/// Largest review: an object and the one it replaces, each of which the API server bounds to 1.5 MiB, and what goes
/// around them.
pub(super) const REVIEW_BYTES_MAX: usize = (3 << 20) + (64 << 10);
/// What the bodies of one connection may take without asking.
const CONNECTION_BYTES_MAX: usize = 256 << 10;
/// What all bodies may take beyond that.
const LARGE_BYTES_ALL_MAX: usize = 24 << 20;
/// Budgets are counted in these.
const UNIT_BYTES: usize = 4 << 10;
/// [`CONNECTION_BYTES_MAX`] in units.
pub(super) const CONNECTION_UNITS: usize = CONNECTION_BYTES_MAX / UNIT_BYTES;

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn read(budget: &Budget, length: usize) -> Result<Body, Refused> {
        budget.read(Request::new(Full::from(vec![b' '; length])), &Meter::default()).await
    }

    #[tokio::test]
    async fn a_body_is_taken_up_to_its_bound() {
        let budget = Budget::new();
        assert_eq!(read(&budget, REVIEW_BYTES_MAX).await.unwrap().bytes().len(), REVIEW_BYTES_MAX);
        assert!(matches!(read(&budget, REVIEW_BYTES_MAX + 1).await, Err(Refused::TooLarge)));
        let announced =
            Request::builder().header("content-length", REVIEW_BYTES_MAX + 1).body(Full::<Bytes>::default());
        let refused = budget.read(announced.unwrap(), &Meter::default()).await;
        assert!(matches!(refused, Err(Refused::TooLarge)), "refused by what it announces");
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_small_ones_get_through() {
        let budget = Budget::new();
        let mut held = Vec::new();
        let refused = loop {
            match read(&budget, REVIEW_BYTES_MAX).await {
                Ok(body) => held.push(body),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, Refused::Busy), "{refused}");
        assert!(held.len() * (REVIEW_BYTES_MAX - CONNECTION_BYTES_MAX) <= LARGE_BYTES_ALL_MAX);
        assert!(read(&budget, CONNECTION_BYTES_MAX).await.is_ok(), "another connection has its own share");
        held.clear();
        assert!(read(&budget, REVIEW_BYTES_MAX).await.is_ok(), "what was held comes back");
    }
}
