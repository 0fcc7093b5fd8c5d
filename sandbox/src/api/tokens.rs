//! Service-account tokens: ES256 JSON web tokens, signed here and checked against live objects.

use std::fmt;

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The issuer in every token, and the default audience.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Longest token looked at, in bytes. Ours have about 1,000.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    pub(crate) sub: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Bound,
}

/// What a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
}

/// An object by name and UID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// It is not one of our tokens, or was tampered with.
    #[error("the token is not a JSON web token signed by this server: {part} is wrong")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// Its time has not come or is over.
    #[error("the token is valid from {from} to {until} (seconds since 1970), now is {now}")]
    OutOfTime {
        /// First valid second.
        from: i64,
        /// First second after its life.
        until: i64,
        /// The current second.
        now: i64,
    },
    /// It is meant for somebody else.
    #[error("the token is for the audiences {found:?}, not one of {wanted:?}")]
    Audience {
        /// What it is for.
        found: Vec<String>,
        /// What was asked.
        wanted: Vec<String>,
    },
    /// What it is bound to is gone or was replaced.
    #[error("the {kind} {name} that the token is bound to does not exist any more")]
    Unbound {
        /// Such as `pod`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

/// The signing key of one API server.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    key_id: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Signer {
    /// A new key, as PKCS #8.
    pub(crate) fn generate_pkcs8() -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        Ok(document.as_ref().to_vec())
    }

    /// The signer with this key.
    pub(crate) fn from_pkcs8(key: &[u8]) -> Result<Self, aws_lc_rs::error::KeyRejected> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key)?;
        let hash = digest::digest(&digest::SHA256, pair.public_key().as_ref());
        let key_id = URL_SAFE_NO_PAD.encode(hash.as_ref());
        Ok(Self { pair, key_id })
    }

    /// Signs claims.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, aws_lc_rs::error::Unspecified> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let payload = serde_json::to_vec(claims).map_err(|_| aws_lc_rs::error::Unspecified)?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
        Ok(token)
    }

    /// Checks signature, issuer and time. Audience and bound objects are the caller's to check.
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        let malformed = |part| TokenError::Malformed { part };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed("the length"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed("the form"))?;
        let (header, payload) = signed.split_once('.').ok_or(malformed("the form"))?;
        let header: Value = decode(header).ok_or(malformed("the header"))?;
        if header.get("alg").and_then(Value::as_str) != Some("ES256") {
            return Err(malformed("the algorithm"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("the signature"))?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).map_err(|_| malformed("the signature"))?;
        let claims: Claims = decode(payload).ok_or(malformed("the payload"))?;
        if claims.iss != ISSUER {
            return Err(malformed("the issuer"));
        }
        if now < claims.nbf || now >= claims.exp {
            return Err(TokenError::OutOfTime { from: claims.nbf, until: claims.exp, now });
        }
        Ok(claims)
    }

    /// The public key as a JSON web key set.
    pub(crate) fn key_set(&self) -> Value {
        // An uncompressed point: one byte 4, then the two coordinates.
        let (x, y) = self.pair.public_key().as_ref().split_at_checked(33).unwrap_or_default();
        let x = x.split_first().map(|(_, x)| x).unwrap_or_default();
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// The OpenID configuration of the issuer.
pub(crate) fn openid_configuration() -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            aud: vec!["istio-ca".to_owned()],
            exp: 2_000,
            iat: 1_000,
            nbf: 1_000,
            iss: ISSUER.to_owned(),
            jti: "id".to_owned(),
            sub: "system:serviceaccount:demo:web".to_owned(),
            kubernetes: Bound {
                namespace: "demo".to_owned(),
                serviceaccount: Reference { name: "web".to_owned(), uid: "u".to_owned() },
                pod: None,
                node: None,
                secret: None,
            },
        }
    }

    #[test]
    fn a_signed_token_verifies_within_its_time_only() {
        let signer = Signer::from_pkcs8(&Signer::generate_pkcs8().unwrap()).unwrap();
        let token = signer.sign(&claims()).unwrap();
        assert_eq!(signer.verify(&token, 1_500), Ok(claims()));
        assert!(matches!(signer.verify(&token, 999), Err(TokenError::OutOfTime { .. })));
        assert!(matches!(signer.verify(&token, 2_000), Err(TokenError::OutOfTime { .. })));
    }

    #[test]
    fn foreign_and_changed_tokens_are_refused() {
        let signer = Signer::from_pkcs8(&Signer::generate_pkcs8().unwrap()).unwrap();
        let foreign = Signer::from_pkcs8(&Signer::generate_pkcs8().unwrap()).unwrap().sign(&claims()).unwrap();
        assert_eq!(signer.verify(&foreign, 1_500), Err(TokenError::Malformed { part: "the signature" }));
        let token = signer.sign(&claims()).unwrap();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Claims { exp: 9_999, ..claims() }).unwrap());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{forged}.{}", parts[0], parts[2]);
        assert_eq!(signer.verify(&forged, 1_500), Err(TokenError::Malformed { part: "the signature" }));
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1]);
        assert_eq!(signer.verify(&unsigned, 1_500), Err(TokenError::Malformed { part: "the algorithm" }));
        assert!(signer.verify("", 1_500).is_err());
        assert!(signer.verify(&"a".repeat(TOKEN_BYTES_MAX + 1), 1_500).is_err());
    }

    #[test]
    fn the_key_set_has_both_coordinates() {
        let set = Signer::from_pkcs8(&Signer::generate_pkcs8().unwrap()).unwrap().key_set();
        for coordinate in ["x", "y"] {
            let text = set["keys"][0][coordinate].as_str().unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap().len(), 32);
        }
    }
}
