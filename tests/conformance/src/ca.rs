//! A scripted certificate authority service.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use prost_types::value::Kind;

use crate::grpc::{self, Messages};
use crate::pki::{Authority, Leaf, ParsedRequest};
use crate::wait::{SOON, eventually_within};
use crate::wire::ca::{CertificateRequest, CertificateResponse};

/// The service.
#[derive(Clone)]
pub struct Ca(Arc<Mutex<State>>);

struct State {
    requests: Vec<Asked>,
    behaviour: Behaviour,
}

type Behaviour = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// Its headers.
    pub headers: HeaderMap,
    /// The message.
    pub request: CertificateRequest,
}

/// What the service says.
pub enum Answer {
    /// `cert_chain`.
    Chain(Vec<String>),
    /// A gRPC status.
    Refusal(u32, &'static str),
    /// Nothing, ever.
    Silence,
}

impl Asked {
    /// The request for a signature.
    #[must_use]
    pub fn csr(&self) -> ParsedRequest {
        ParsedRequest::read(&self.request.csr)
    }

    /// A text of the metadata.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<String> {
        match self.request.metadata.as_ref()?.fields.get(name)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.clone()),
            other => panic!("{name} is {other:?}, wanted a string"),
        }
    }

    /// Whom the certificate is to be for: `ImpersonatedIdentity`, else the name in the request.
    #[must_use]
    pub fn identity(&self) -> String {
        self.metadata("ImpersonatedIdentity").unwrap_or_else(|| self.csr().uris.first().cloned().unwrap_or_default())
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Ca {
    /// Signs whatever it is asked for.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        let ca = Self(Arc::new(Mutex::new(State { requests: Vec::new(), behaviour: Arc::new(|_| Answer::Silence) })));
        ca.behave(move |asked| Answer::Chain(authority.sign(&asked.request.csr, &Leaf::of(&asked.identity()))));
        ca
    }

    /// Answers like this from now on.
    pub fn behave(&self, behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        self.0.lock().unwrap().behaviour = Arc::new(behaviour);
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Asked> {
        self.0.lock().unwrap().requests.clone()
    }

    /// The requests for one identity so far.
    #[must_use]
    pub fn requests_for(&self, identity: &str) -> Vec<Asked> {
        self.requests().into_iter().filter(|asked| asked.identity() == identity).collect()
    }

    /// The request number `n`, counted from 0, for an identity.
    pub async fn request(&self, identity: &str, n: usize) -> Asked {
        self.request_within(identity, n, SOON).await
    }

    /// [`Ca::request`] that may take longer.
    pub async fn request_within(&self, identity: &str, n: usize, limit: Duration) -> Asked {
        let what = format!("request {n} for {identity}");
        eventually_within(&what, limit, async || self.requests_for(identity).get(n).cloned()).await
    }

    pub(crate) async fn serve(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let Ok(Some(request)) = Messages::new(body).next::<CertificateRequest>().await else { return };
        let asked = Asked { at: Instant::now(), headers: parts.headers, request };
        let behaviour = {
            let mut state = self.0.lock().unwrap();
            state.requests.push(asked.clone());
            Arc::clone(&state.behaviour)
        };
        match behaviour(&asked) {
            Answer::Chain(cert_chain) => {
                let Ok(mut stream) = grpc::start(&mut respond, &[]) else { return };
                let _ = grpc::send(&mut stream, &CertificateResponse { cert_chain });
                grpc::end(&mut stream, 0, "");
            }
            Answer::Refusal(code, message) => grpc::refuse(respond, code, message),
            Answer::Silence => std::future::pending().await,
        }
    }
}
