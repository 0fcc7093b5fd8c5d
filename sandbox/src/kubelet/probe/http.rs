//! The HTTP probe.

use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::tls;

/// `GET path`; any status from 200 to 399 is a success. Certificates are not verified: the
/// kubelet has no way to know which one a pod should have.
///
/// # Errors
/// The status or the failure, for the `Unhealthy` event.
pub(super) async fn get(
    stream: TcpStream,
    use_tls: bool,
    host: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<(), String> {
    let request = request(host, path, headers)?;
    let status = if use_tls {
        exchange(TokioIo::new(tls::connect(stream).await?), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }?;
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

fn request(host: &str, path: &str, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, String> {
    let uri: Uri = path.parse().map_err(|error| format!("path {path:?}: {error}"))?;
    let mut request = Request::get(uri)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "kube-probe/1.34")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("request to {host}: {error}"))?;
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|_| format!("header name {name:?} is not valid"))?;
        let value = HeaderValue::try_from(value).map_err(|_| format!("value of header {name} is not valid"))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

async fn exchange<T>(io: T, request: Request<Empty<Bytes>>) -> Result<http::StatusCode, String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| format!("HTTP: {error}"))?;
    let answer = sender.send_request(request);
    let connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    // The connection is driven here, so that it ends with the probe.
    let response = tokio::select! {
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    response.map(|response| response.status()).map_err(|error| format!("HTTP: {error}"))
}
