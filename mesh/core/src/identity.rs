//! SPIFFE identities of workloads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The first part of an identity: which root of trust vouches for it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain of a mesh that names no other.
    pub const DEFAULT: &str = "cluster.local";

    /// Accepts any non-empty name without `/`.
    ///
    /// # Errors
    /// [`ParseIdentityError::TrustDomain`] otherwise.
    pub fn new(name: &str) -> Result<Self, ParseIdentityError> {
        if name.is_empty() || name.contains('/') {
            return Err(ParseIdentityError::TrustDomain { found: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a workload is: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// # Source
/// SPIFFE ID in the URI subject alternative name of the workload's certificate.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl Identity {
    /// Puts an identity together from its parts.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// Whose root of trust vouches for it.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The identity without its scheme, as authorization policies write it.
    #[must_use]
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Identity {
    type Err = ParseIdentityError;

    /// Exactly five segments, `ns` and `sa` in their places; nothing is trimmed or decoded.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || ParseIdentityError::Shape { found: text.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(shape)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next();
        match (next(), next(), next(), next(), next(), next()) {
            (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Ok(Self::new(TrustDomain::new(domain)?, namespace, account))
            }
            _ => Err(shape()),
        }
    }
}

/// Why a text is not an identity. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdentityError {
    /// Not of the one accepted form.
    #[error("identity {found:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Shape {
        /// The text as it came.
        found: String,
    },
    /// The trust domain is empty or holds a slash.
    #[error("trust domain {found:?} must be a non-empty name without '/'")]
    TrustDomain {
        /// The name as it came.
        found: String,
    },
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_identity_survives_the_round_trip() {
        let text = "spiffe://td.acme/ns/shop/sa/web";
        let identity: Identity = text.parse().unwrap();
        assert_eq!(identity.to_string(), text);
        assert_eq!(identity.principal(), "td.acme/ns/shop/sa/web");
        assert_eq!((identity.namespace(), identity.service_account()), ("shop", "web"));
    }

    #[test]
    fn anything_but_the_one_form_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
            "https://td/ns/a/sa/b",
            "td/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn empty_namespace_and_account_are_tolerated() {
        assert!("spiffe://td/ns//sa/".parse::<Identity>().is_ok());
    }
}
