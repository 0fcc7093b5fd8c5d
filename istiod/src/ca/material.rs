//! Key material of the authority as PEM, from wherever it comes.

use std::fmt;
use std::path::Path;

/// Certificates and key of an authority.
#[derive(Clone, PartialEq, Eq)]
pub struct CaMaterial {
    /// Certificate that signs.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// Certificates between the signing one and a root; may repeat the signing one or hold a root.
    pub chain_pem: String,
    /// Every trusted root.
    pub root_pem: String,
    /// Revocation lists of the plugged-in authority, if it brings any.
    pub crl_pem: Option<String>,
}

impl fmt::Debug for CaMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaMaterial").field("key_pem", &"[redacted]").finish_non_exhaustive()
    }
}

/// Why plugged-in material cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaterialError {
    /// A file is there but not the others that belong to it.
    #[error("{folder}: {missing} is missing beside {present}")]
    Incomplete {
        /// Where it was looked for.
        folder: String,
        /// The file that is not there.
        missing: &'static str,
        /// A file that is.
        present: &'static str,
    },
    /// A file cannot be read.
    #[error("reading {file}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Material that an operator plugged in, or none.
///
/// # Errors
/// See [`MaterialError`]; all of them are start-up errors.
///
/// # Source
/// spec of the authority, section 7.
pub fn plugged(folder: &Path) -> Result<Option<CaMaterial>, MaterialError> {
    let read = |name: &'static str| match std::fs::read_to_string(folder.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MaterialError::Unreadable { file: folder.join(name).display().to_string(), source }),
    };
    if read("istio-generated")?.is_some() {
        return Ok(None);
    }
    let crl_pem = read("ca-crl.pem")?;
    let missing =
        |missing, present| MaterialError::Incomplete { folder: folder.display().to_string(), missing, present };
    if let Some(cert_pem) = read("ca-cert.pem")? {
        let key_pem = read("ca-key.pem")?.ok_or_else(|| missing("ca-key.pem", "ca-cert.pem"))?;
        let root_pem = read("root-cert.pem")?.ok_or_else(|| missing("root-cert.pem", "ca-cert.pem"))?;
        let chain_pem = read("cert-chain.pem")?.ok_or_else(|| missing("cert-chain.pem", "ca-cert.pem"))?;
        return Ok(Some(CaMaterial { cert_pem, key_pem, chain_pem, root_pem, crl_pem }));
    }
    if let Some(cert_pem) = read("tls.crt")? {
        let key_pem = read("tls.key")?.ok_or_else(|| missing("tls.key", "tls.crt"))?;
        let root_pem = read("ca.crt")?.ok_or_else(|| missing("ca.crt", "tls.crt"))?;
        return Ok(Some(CaMaterial { chain_pem: cert_pem.clone(), cert_pem, key_pem, root_pem, crl_pem }));
    }
    match read("ca-key.pem")?.or(read("root-cert.pem")?) {
        Some(_) => Err(missing("ca-cert.pem", "ca-key.pem or root-cert.pem")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        assert_eq!(plugged(folder.path()).unwrap(), None);
        write("ca-cert.pem");
        assert!(plugged(folder.path()).unwrap_err().to_string().contains("ca-key.pem is missing"));
        write("ca-key.pem");
        write("root-cert.pem");
        assert!(plugged(folder.path()).unwrap_err().to_string().contains("cert-chain.pem is missing"));
        write("cert-chain.pem");
        assert_eq!(plugged(folder.path()).unwrap().unwrap().root_pem, "root-cert.pem");
        assert_eq!(plugged(folder.path()).unwrap().unwrap().crl_pem, None);
        write("ca-crl.pem");
        assert_eq!(plugged(folder.path()).unwrap().unwrap().crl_pem.as_deref(), Some("ca-crl.pem"));
        write("istio-generated");
        assert_eq!(plugged(folder.path()).unwrap(), None);
    }

    #[test]
    fn secrets_of_type_tls_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let material = plugged(folder.path()).unwrap().unwrap();
        assert_eq!((material.cert_pem.as_str(), material.root_pem.as_str()), ("tls.crt", "ca.crt"));
        assert!(!format!("{material:?}").contains("tls.key"));
    }
}
