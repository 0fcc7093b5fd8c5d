//! One call of a webhook: a TLS connection of its own, one request, one bounded answer.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::resolve::{Addresses, Place};

/// Largest answer, in bytes: as large as an object, its patch in base64 around it.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It took too long.
    #[error("context deadline exceeded: no answer within {waited:?}")]
    TimedOut {
        /// The wait.
        waited: Duration,
    },
    /// No connection.
    #[error("dial tcp: {0}")]
    Connect(#[source] io::Error),
    /// The certificate or the handshake.
    #[error("tls: {0}")]
    Tls(#[source] io::Error),
    /// The configuration of the trust is unusable.
    #[error("{0}")]
    Trust(String),
    /// HTTP went wrong.
    #[error("{0}")]
    Http(String),
    /// Another status than 200.
    #[error("the server answered {0}")]
    Status(StatusCode),
}

/// Sends a review and returns the body of the answer.
pub(super) async fn post(place: &Place, wait: Duration, body: &[u8]) -> Result<Vec<u8>, CallError> {
    let called = timeout(wait, exchange(place, body.to_vec(), wait)).await;
    called.unwrap_or(Err(CallError::TimedOut { waited: wait }))
}

async fn exchange(place: &Place, body: Vec<u8>, wait: Duration) -> Result<Vec<u8>, CallError> {
    let stream = connect(place).await?;
    let wrong = |error: &dyn std::error::Error| CallError::Http(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
    let joint = if place.path.contains('?') { '&' } else { '?' };
    let request = Request::post(format!("{}{joint}timeout={}s", place.path, wait.as_secs()))
        .header(header::HOST, &place.server_name)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Body::from(body))
        .map_err(|error| wrong(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| wrong(&error))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|error| CallError::Http(error.to_string()))?.to_bytes();
        if status == StatusCode::OK { Ok(bytes.to_vec()) } else { Err(CallError::Status(status)) }
    };
    // The connection has to be driven until the answer is there, and ends with it.
    tokio::pin!(connection);
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            // The answer may have arrived with the end of the connection.
            Ok(()) => answered.await,
            Err(error) => Err(wrong(&error)),
        },
    }
}

async fn connect(place: &Place) -> Result<TlsStream<TcpStream>, CallError> {
    let connector = TlsConnector::from(Arc::new(trust(&place.ca_bundle)?));
    let name = ServerName::try_from(place.server_name.clone())
        .map_err(|_| CallError::Trust(format!("{:?} cannot be the name of a server", place.server_name)))?;
    let stream = match &place.addresses {
        Addresses::Host(host, port) => TcpStream::connect((host.as_str(), *port)).await,
        Addresses::Known(addresses) => TcpStream::connect(addresses.as_slice()).await,
    };
    let stream = stream.map_err(CallError::Connect)?;
    let _ = stream.set_nodelay(true);
    connector.connect(name, stream).await.map_err(CallError::Tls)
}

/// Trust in the configured authorities and in no others: a sandbox has no system roots to fall back
/// on.
fn trust(bundle: &[u8]) -> Result<ClientConfig, CallError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| CallError::Trust(format!("caBundle: {error}")))?;
        roots.add(certificate).map_err(|error| CallError::Trust(format!("caBundle: {error}")))?;
    }
    if roots.is_empty() {
        let reason =
            "tls: failed to verify certificate: x509: certificate signed by unknown authority (caBundle is empty)";
        return Err(CallError::Trust(reason.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CallError::Trust(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
