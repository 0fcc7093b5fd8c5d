//! The gRPC probe: `grpc.health.v1.Health/Check` over plain-text HTTP/2.
//!
//! The two messages have one field each, so they are read and written here by hand.

use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Asks for the health of `service` (empty: of the server).
///
/// # Errors
/// The status or the failure, for the `Unhealthy` event.
pub(super) async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("gRPC: {error}");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| fail(&error))?;
    let driver = tokio::spawn(connection);
    let outcome = async {
        let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.34")
            .body(Full::new(Bytes::from(frame(service))))
            .map_err(|error| fail(&error))?;
        let response = sender.send_request(request).await.map_err(|error| fail(&error))?;
        let headers = response.headers().clone();
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| fail(&error))?;
        let trailers = body.trailers().cloned();
        verdict(&headers, trailers.as_ref(), &body.to_bytes())
    }
    .await;
    driver.abort();
    outcome
}

/// A length-prefixed `HealthCheckRequest`.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(FIELD_1_BYTES);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn verdict(headers: &HeaderMap, trailers: Option<&HeaderMap>, body: &[u8]) -> Result<(), String> {
    let status = trailers
        .and_then(|trailers| trailers.get("grpc-status"))
        .or_else(|| headers.get("grpc-status"))
        .and_then(|status| status.to_str().ok())
        .unwrap_or("none");
    if status != "0" {
        return Err(format!("gRPC status {status}"));
    }
    match body.split_at_checked(PREFIX_BYTES).map(|(_, message)| message) {
        Some([FIELD_1_VARINT, SERVING, ..]) => Ok(()),
        Some([FIELD_1_VARINT, other, ..]) => Err(format!("service is not serving (status {other})")),
        // Field 1 absent is the enum's zero.
        _ => Err("service is not serving (status unknown)".into()),
    }
}

/// Tags of field 1 as text and as number.
const FIELD_1_BYTES: u8 = 0x0a;
const FIELD_1_VARINT: u8 = 0x08;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;
/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;
/// Longest answer that is read: the real one has 7 bytes.
const ANSWER_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_read() {
        assert_eq!(frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let mut long = Vec::new();
        varint(300, &mut long);
        assert_eq!(long, [0xac, 0x02]);

        let headers = HeaderMap::new();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let ask = |body: &[u8]| verdict(&headers, Some(&trailers), body);
        assert_eq!(ask(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(ask(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(ask(&[0, 0, 0, 0, 0]).is_err());
        assert!(ask(&[]).is_err());
        assert!(verdict(&headers, None, &[0, 0, 0, 0, 2, 8, 1]).is_err());
    }
}
