//! How the control plane is reached, and how each side proves who it is.

use std::fmt;
use std::path::{Path, PathBuf};

use super::mesh_file::ProxyConfig;
use super::reader::Reader;

/// Who vouches for a control-plane server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A file, read again each time.
    File(PathBuf),
    /// The operating system's bundle.
    System,
    /// PEM text.
    Inline(String),
}

/// What proves who we are to the control plane.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file, read again each time.
    File(PathBuf),
    /// The token itself.
    Literal(String),
    /// Nothing.
    None,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Literal(_) => f.write_str("Literal(<redacted>)"),
            Self::None => f.write_str("None"),
        }
    }
}

/// URL of a server; `None` when the setting is there and empty: there is no such server.
pub(super) fn address(read: &Reader<'_>, name: &str, file: &ProxyConfig) -> Option<String> {
    let in_cluster = read.optional("KUBERNETES_SERVICE_HOST").is_some();
    let default = if in_cluster { "https://istiod.istio-system.svc:15012" } else { "https://localhost:15012" };
    let address = read.text(name, file.discovery_address.as_deref().unwrap_or(default));
    match address.as_str() {
        "" => None,
        url if url.contains("://") => Some(address),
        host => Some(format!("https://{host}")),
    }
}

pub(super) fn root(read: &Reader<'_>, name: &str) -> Root {
    match read.text(name, "./var/run/secrets/istio/root-cert.pem") {
        text if text == "SYSTEM" => Root::System,
        text if text.contains("-----BEGIN") => Root::Inline(text),
        path => Root::File(path.into()),
    }
}

pub(super) fn token(read: &Reader<'_>) -> Token {
    let exists = |path: &str| Path::new(path).exists();
    match read.optional("AUTH_TOKEN") {
        // A path that does not exist yet is still a path, not a secret to send.
        Some(text) if exists(&text) || text.starts_with(['/', '.']) => Token::File(text.into()),
        Some(text) => Token::Literal(text),
        None if exists(TOKEN_FILE) => Token::File(TOKEN_FILE.into()),
        None => Token::None,
    }
}

const TOKEN_FILE: &str = "./var/run/secrets/tokens/istio-token";
