//! The secrets of an API server that outlive it: with the same ones, kubeconfigs and tokens from before
//! a restart are good after it.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::{
    StartError,
    pki::{AdminToken, Pki, PkiError},
    tokens::Signer,
};

/// Name of the file in the store's directory.
const FILE: &str = "keys.json";

/// All secrets of a server.
pub(super) struct Keys {
    pub(super) pki: Pki,
    pub(super) signer: Signer,
    pub(super) admin_token: AdminToken,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    /// Private key of the authority, PEM.
    authority_key: String,
    /// Key that signs tokens, PKCS #8 in base64.
    token_key: String,
    admin_token: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys(redacted)")
    }
}

impl Keys {
    /// The secrets in a store's directory, made when there are none; without a directory new ones.
    pub(super) fn load(dir: Option<&Path>) -> Result<Self, StartError> {
        let Some(dir) = dir else { return Ok(Self::of(&Written::generate()?)?) };
        let path = dir.join(FILE);
        let failed = |source| StartError::Keys { path: path.clone(), source };
        match fs::read(&path) {
            Ok(text) => {
                let written = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
                Ok(Self::of(&written)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let written = Written::generate()?;
                let keys = Self::of(&written)?;
                written.save(&path).map_err(failed)?;
                Ok(keys)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn of(written: &Written) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Generate { what: "the certificate authority", source };
        let key = KeyPair::from_pem(&written.authority_key).map_err(failed)?;
        let token_key = STANDARD.decode(&written.token_key).map_err(|_| PkiError::TokenKey)?;
        Ok(Self {
            pki: Pki::of_key(key)?,
            signer: Signer::from_pkcs8(&token_key).map_err(|_| PkiError::TokenKey)?,
            admin_token: AdminToken::of(written.admin_token.clone()),
        })
    }
}

impl Written {
    fn generate() -> Result<Self, PkiError> {
        let failed = |source| PkiError::Generate { what: "the certificate authority", source };
        let key = KeyPair::generate().map_err(failed)?;
        let token_key = Signer::generate_pkcs8().map_err(|_| PkiError::TokenKey)?;
        Ok(Self {
            authority_key: key.serialize_pem(),
            token_key: STANDARD.encode(token_key),
            admin_token: AdminToken::random(),
        })
    }

    /// Writes the file under another name first, so that it is never there in part.
    fn save(&self, path: &Path) -> io::Result<()> {
        let unfinished: PathBuf = path.with_extension("tmp");
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }
}
