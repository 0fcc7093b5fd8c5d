//! How the control plane is reached, and how each side proves who it is.

use std::fmt;
use std::path::{Path, PathBuf};

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

/// URL of a server, from the first setting that is there.
pub(super) fn address(read: &Reader<'_>, names: &[&str], default: Option<&str>) -> String {
    let address = read.first(names, default.unwrap_or(ISTIOD));
    if address.contains("://") { address } else { format!("https://{address}") }
}

pub(super) fn root(read: &Reader<'_>, name: &str) -> Root {
    match read.text(name, "./var/run/secrets/istio/root-cert.pem") {
        text if text == "SYSTEM" => Root::System,
        text if text.contains("-----BEGIN") => Root::Inline(text),
        path => Root::File(path.into()),
    }
}

pub(super) fn token(read: &Reader<'_>) -> Token {
    match read.optional("AUTH_TOKEN") {
        // A path that does not exist yet is still a path, not a secret to send.
        Some(text) if Path::new(&text).exists() || text.starts_with(['/', '.']) => Token::File(text.into()),
        Some(text) => Token::Literal(text),
        None if Path::new(TOKEN_FILE).exists() => Token::File(TOKEN_FILE.into()),
        None => Token::None,
    }
}

const ISTIOD: &str = "istiod.istio-system.svc:15012";
const TOKEN_FILE: &str = "./var/run/secrets/tokens/istio-token";
