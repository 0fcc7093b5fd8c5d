//! Redirects.

use std::fmt;

use http::StatusCode;
use mesh_wire::l7;
use mesh_wire::l7::redirect::DerivePort;

use crate::rewrite::{RewriteError, path};
use crate::{CompileError, Entry, PathRewrite, RequestView, host};

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    scheme: Option<String>,
    /// May hold a port.
    hostname: Option<String>,
    port: Port,
    path: Option<PathRewrite>,
}

/// Which port the new location names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    This(u16),
    /// That of the new scheme where one is set, otherwise the one that was called.
    Gateway,
    /// That of the scheme.
    OfScheme,
    /// The one that was called.
    Called,
    /// What the host says.
    AsWritten,
}

impl Redirect {
    pub(crate) fn compile(wire: &l7::Redirect) -> Result<Self, CompileError> {
        let status = match wire.status {
            0 => StatusCode::FOUND,
            301 => StatusCode::MOVED_PERMANENTLY,
            302 => StatusCode::FOUND,
            303 => StatusCode::SEE_OTHER,
            307 => StatusCode::TEMPORARY_REDIRECT,
            308 => StatusCode::PERMANENT_REDIRECT,
            other => return Err(CompileError::new("status", other, "301, 302, 303, 307 or 308")),
        };
        let scheme = match wire.scheme.to_ascii_lowercase() {
            scheme if scheme.is_empty() => None,
            scheme if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Some(scheme),
            scheme => return Err(CompileError::new("scheme", scheme, "a scheme such as https")),
        };
        let hostname = match wire.hostname.as_str() {
            "" => None,
            text => {
                Some(host::canonical(text).map_err(|_| CompileError::new("hostname", text, "a host"))?.into_owned())
            }
        };
        let port = match (wire.port, wire.derive_port()) {
            (Some(port), _) => Port::This(
                u16::try_from(port)
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| CompileError::new("port", port, "a port from 1 to 65535"))?,
            ),
            (None, DerivePort::Gateway) => Port::Gateway,
            (None, DerivePort::FromScheme) => Port::OfScheme,
            (None, DerivePort::FromRequest) => Port::Called,
            (None, DerivePort::NoPort) => Port::AsWritten,
        };
        let path = wire.path.as_ref().map(|path| PathRewrite::compile(path, true)).transpose();
        Ok(Self { status, scheme, hostname, port, path: path.map_err(|error| error.within("path"))?.flatten() })
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redirects with {}", self.status.as_u16())?;
        if let Some(scheme) = &self.scheme {
            write!(f, ", scheme {scheme}")?;
        }
        if let Some(host) = &self.hostname {
            write!(f, ", host {host}")?;
        }
        if let Port::This(port) = self.port {
            write!(f, ", port {port}")?;
        }
        self.path.as_ref().map_or(Ok(()), |path| write!(f, ", {path}"))
    }
}

/// Value of the `location` header for a request that `entry` matched.
///
/// # Errors
/// The new path cannot be sent.
pub fn location(redirect: &Redirect, request: &RequestView<'_>, entry: &Entry) -> Result<String, RewriteError> {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
    let authority = redirect.authority(scheme, request);
    let path = match &redirect.path {
        Some(rewrite) => path(rewrite, request.path, entry)?,
        None => request.path.into(),
    };
    let query = request.query.filter(|_| !path.contains('?'));
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    Ok(format!("{scheme}://{authority}{path}{mark}{query}"))
}

impl Redirect {
    fn authority(&self, scheme: &str, request: &RequestView<'_>) -> String {
        let text = self.hostname.as_deref().unwrap_or(request.authority);
        let (name, written) = host::split(text);
        let well_known = well_known(scheme);
        let port = match self.port {
            Port::This(port) => Some(port),
            Port::Gateway if self.scheme.is_some() => well_known,
            Port::Gateway | Port::Called => Some(request.port),
            Port::OfScheme => well_known,
            // The client's own port stays, unless it means the scheme that is left behind.
            Port::AsWritten if self.hostname.is_none() && self.scheme.is_some() => {
                written.filter(|port| self::well_known(request.scheme) != Some(*port))
            }
            Port::AsWritten => written,
        };
        match port.filter(|port| Some(*port) != well_known) {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        }
    }
}

fn well_known(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
