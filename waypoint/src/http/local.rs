//! Answers that the proxy itself gives.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use mesh_route::grpc;

use crate::report::Flags;

/// An answer of the proxy's own, for clients of HTTP; [`Local::render`] turns it into one for clients of gRPC.
#[derive(Debug, Clone)]
pub(crate) struct Local(Box<Said>);

/// What an answer consists of.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) headers: HeaderMap,
    /// In place of the status that the table gives.
    pub(crate) grpc_status: Option<u32>,
    /// Nothing more is read from this client.
    pub(crate) close: bool,
    /// Who was denied by what, for the log.
    pub(crate) denial: Option<String>,
}

impl Local {
    /// An answer without a body.
    pub(crate) fn new(status: StatusCode, details: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Said {
            status,
            body: Bytes::new(),
            flags: Flags::NONE,
            details: details.into(),
            headers: HeaderMap::new(),
            grpc_status: None,
            close: false,
            denial: None,
        }))
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn flags(mut self, flags: Flags) -> Self {
        self.flags |= flags;
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn grpc_status(mut self, status: u32) -> Self {
        self.grpc_status = Some(status);
        self
    }

    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// What is wrong with the request itself.
    pub(crate) fn bad_request(details: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, details).flags(Flags::DPE).close()
    }

    /// No rule is for it.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "route_not_found").flags(Flags::NR)
    }

    /// Memory runs out.
    pub(crate) fn overload() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overload").body("memory runs out").flags(Flags::OM).close()
    }

    /// The head of the answer, and its body.
    ///
    /// # Source
    /// Waypoint specification, gRPC mapping for local replies.
    pub(crate) fn render(self, is_grpc: bool) -> Response<Bytes> {
        let said = *self.0;
        let mut response = Response::new(Bytes::new());
        *response.headers_mut() = said.headers;
        let headers = response.headers_mut();
        if is_grpc {
            let status = said.grpc_status.unwrap_or_else(|| grpc::of_local_reply(said.status.as_u16()));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, status.into());
            if let Some(message) = grpc_message(&said.body) {
                headers.insert(GRPC_MESSAGE, message);
            }
        } else {
            if !said.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            }
            // Beside another status it would say something else; a fault of this kind has none.
            if let Some(status) = said.grpc_status.filter(|_| said.status == StatusCode::OK) {
                headers.insert(GRPC_STATUS, status.into());
            }
            *response.body_mut() = said.body;
            *response.status_mut() = said.status;
        }
        response.headers_mut().remove(DATE);
        response
    }
}

impl Deref for Local {
    type Target = Said;

    fn deref(&self) -> &Said {
        &self.0
    }
}

impl DerefMut for Local {
    fn deref_mut(&mut self) -> &mut Said {
        &mut self.0
    }
}

/// `Connection: close`, for HTTP/1.
pub(crate) fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

fn grpc_message(body: &[u8]) -> Option<HeaderValue> {
    if body.is_empty() {
        return None;
    }
    HeaderValue::try_from(grpc::encode_message(&String::from_utf8_lossy(body))).ok()
}

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waypoint_row_16_grpc_clients_get_a_status_that_they_understand() {
        for (http, expected) in [
            (400, "13"),
            (401, "16"),
            (403, "7"),
            (404, "12"),
            (429, "14"),
            (502, "14"),
            (503, "14"),
            (504, "14"),
            (500, "2"),
        ] {
            let status = StatusCode::from_u16(http).unwrap();
            let response = Local::new(status, "x").body("no healthy upstream: 100%\n").render(true);
            assert_eq!(response.status(), 200);
            let headers = response.headers();
            assert_eq!(
                (&headers[CONTENT_TYPE], &headers[GRPC_STATUS]),
                (&HeaderValue::from_static("application/grpc"), &HeaderValue::from_static(expected))
            );
            assert_eq!(headers[GRPC_MESSAGE], "no healthy upstream: 100%25%0A");
            assert!(response.body().is_empty());
        }
    }

    #[test]
    fn others_get_text() {
        let response = Local::new(StatusCode::FORBIDDEN, "x").body("RBAC: access denied").render(false);
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::FORBIDDEN, &HeaderValue::from_static("text/plain"))
        );
        assert_eq!(response.body(), "RBAC: access denied");
        assert!(Local::no_route().render(false).headers().is_empty());
    }
}
