//! The two decisions about a peer's identity, made after its chain was verified. Pure.

use mesh_core::{Identity, TrustDomain};

use crate::crl::Revoked;

/// Why a peer whose chain is good is refused all the same. Never worth a retry with the same peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A client of another trust domain.
    #[error("client certificate is for {}, wanted trust domain {wanted}", list(found))]
    ForeignTrustDomain {
        /// Identities the client proved.
        found: Vec<Identity>,
        /// Trust domain of the certificate this server presents.
        wanted: TrustDomain,
    },
    /// The server is somebody else.
    #[error("server certificate is for {}, wanted {}", list(found), any_of(wanted))]
    UnexpectedServer {
        /// Identities the server proved.
        found: Vec<Identity>,
        /// Identities any of which would have done.
        wanted: Vec<Identity>,
    },
    /// A certificate of the peer's chain was revoked by its issuer.
    #[error("peer certificate is revoked: {revoked}")]
    Revoked {
        /// Which one.
        revoked: Revoked,
    },
    /// The peer's certificate cannot be read.
    #[error("peer certificate cannot be read: {reason}")]
    Unreadable {
        /// What the parser said.
        reason: String,
    },
}

/// Server side: at least one identity of the client is of the trust domain that this server presents itself.
///
/// # Errors
/// [`VerifyError::ForeignTrustDomain`], also when the client has no identity at all.
pub fn client_trust_domain(found: &[Identity], own: &TrustDomain) -> Result<(), VerifyError> {
    if found.iter().any(|identity| identity.trust_domain() == own) {
        return Ok(());
    }
    Err(VerifyError::ForeignTrustDomain { found: found.to_vec(), wanted: own.clone() })
}

/// Server side of a waypoint or gateway: the client has an identity, and all it has are of trust domains of the mesh, whose
/// aliases count.
///
/// # Errors
/// [`VerifyError::ForeignTrustDomain`], which names the first of `accepted`.
pub fn client_trust_domains(found: &[Identity], accepted: &[TrustDomain]) -> Result<(), VerifyError> {
    if !found.is_empty() && found.iter().all(|identity| accepted.contains(identity.trust_domain())) {
        return Ok(());
    }
    let wanted = accepted.first().cloned().unwrap_or_default();
    Err(VerifyError::ForeignTrustDomain { found: found.to_vec(), wanted })
}

/// Client side: at least one identity of the server equals one of those planned. An empty plan matches nobody.
///
/// # Errors
/// [`VerifyError::UnexpectedServer`].
pub fn server_identity(found: &[Identity], wanted: &[Identity]) -> Result<(), VerifyError> {
    if found.iter().any(|identity| wanted.contains(identity)) {
        return Ok(());
    }
    Err(VerifyError::UnexpectedServer { found: found.to_vec(), wanted: wanted.to_vec() })
}

fn list(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "nobody".to_owned();
    }
    identities.iter().map(Identity::to_string).collect::<Vec<_>>().join(", ")
}

fn any_of(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "an identity that nothing names (the list of expected identities is empty)".to_owned();
    }
    list(identities)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(texts: &[&str]) -> Vec<Identity> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn hbone_row_11_a_client_needs_one_identity_of_our_trust_domain() {
        let own = TrustDomain::new("cluster.local").unwrap();
        let table: &[(&[&str], bool)] = &[
            (&["spiffe://cluster.local/ns/a/sa/b"], true),
            (&["spiffe://other.example/ns/a/sa/b"], false),
            (&["spiffe://other.example/ns/a/sa/b", "spiffe://cluster.local/ns/a/sa/b"], true),
            (&["spiffe://Cluster.local/ns/a/sa/b"], false),
            (&["spiffe://cluster.local.evil/ns/a/sa/b"], false),
            (&[], false),
        ];
        for (found, accepted) in table {
            assert_eq!(client_trust_domain(&ids(found), &own).is_ok(), *accepted, "{found:?}");
        }
    }

    #[test]
    fn a_server_must_be_exactly_one_of_those_expected() {
        let web = "spiffe://td/ns/shop/sa/web";
        let table: &[(&[&str], &[&str], bool)] = &[
            (&[web], &[web], true),
            (&[web], &["spiffe://td/ns/shop/sa/cart", web], true),
            (&["spiffe://td/ns/shop/sa/other", web], &[web], true),
            (&["spiffe://td2/ns/shop/sa/web"], &[web], false),
            (&["spiffe://td/ns/shop2/sa/web"], &[web], false),
            (&["spiffe://td/ns/shop/sa/web2"], &[web], false),
            (&[web], &[], false),
            (&[], &[], false),
            (&[], &[web], false),
        ];
        for (found, wanted, accepted) in table {
            assert_eq!(server_identity(&ids(found), &ids(wanted)).is_ok(), *accepted, "{found:?} {wanted:?}");
        }
    }

    #[test]
    fn refusals_say_what_was_found_and_what_was_wanted() {
        let own = TrustDomain::new("td").unwrap();
        let refusal = client_trust_domain(&ids(&["spiffe://evil/ns/a/sa/b"]), &own).unwrap_err();
        assert_eq!(refusal.to_string(), "client certificate is for spiffe://evil/ns/a/sa/b, wanted trust domain td");
        let refusal = server_identity(&[], &ids(&["spiffe://td/ns/a/sa/b"])).unwrap_err();
        assert_eq!(refusal.to_string(), "server certificate is for nobody, wanted spiffe://td/ns/a/sa/b");
        let refusal = server_identity(&ids(&["spiffe://td/ns/a/sa/b"]), &[]).unwrap_err();
        assert!(refusal.to_string().contains("list of expected identities is empty"), "{refusal}");
    }

    #[test]
    fn waypoint_row_4_every_identity_of_a_client_is_of_the_mesh_or_an_alias() {
        let accepted = ["td", "alias"].map(|name| TrustDomain::new(name).unwrap());
        let table: [(&[&str], bool); 5] = [
            (&["spiffe://td/ns/a/sa/b"], true),
            (&["spiffe://alias/ns/a/sa/b"], true),
            (&["spiffe://td/ns/a/sa/b", "spiffe://other/ns/a/sa/b"], false),
            (&["spiffe://td.evil/ns/a/sa/b"], false),
            (&[], false),
        ];
        for (found, expected) in table {
            assert_eq!(client_trust_domains(&ids(found), &accepted).is_ok(), expected, "{found:?}");
        }
        assert!(client_trust_domains(&ids(&["spiffe://td/ns/a/sa/b"]), &[]).is_err());
    }
}
