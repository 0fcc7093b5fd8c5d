//! Certificates that the mesh trusts beside the authority's own roots, as the mesh configuration says: they go wherever
//! the roots go. The control plane itself does not know callers by them.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_core::drain::DrainWatch;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;

use super::{Authority, CurrentAuthority};
use crate::translate::Model;

/// The certificates of a PEM, each once, as PEM again.
///
/// # Errors
/// There is none, or one cannot be read or can vouch for nobody: why.
pub fn read(pem: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for (number, one) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let der = one.map_err(|error| format!("certificate {number}: {error}"))?;
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| format!("certificate {number}: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("certificate {number}: bytes after its end"));
        }
        if !certificate.is_ca() {
            return Err(format!(
                "certificate {number}, of {:?}, is not one of an authority",
                certificate.subject().to_string()
            ));
        }
        let text = super::authority::pem(&der);
        if !found.contains(&text) {
            found.push(text);
        }
    }
    if found.is_empty() { Err("no certificate in the PEM".to_owned()) } else { Ok(found) }
}

/// Follows an authority and the mesh configuration.
pub struct Anchors {
    /// The authority by itself.
    pub own: CurrentAuthority,
    /// Has the mesh configuration.
    pub model: Arc<RwLock<Model>>,
    /// Changes after the model did.
    pub publications: watch::Receiver<()>,
}

impl std::fmt::Debug for Anchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anchors").finish_non_exhaustive()
    }
}

impl Anchors {
    /// The authority with what the mesh trusts beside it.
    pub fn current(&mut self) -> Arc<Authority> {
        let anchors = self.anchors();
        Self::joined(&self.own.borrow_and_update(), &anchors)
    }

    /// Tells `sender` of every change, until the drain starts.
    pub async fn run(mut self, sender: watch::Sender<Arc<Authority>>, mut drain: DrainWatch) {
        loop {
            let anchors = self.anchors();
            let renewed = self.own.has_changed().unwrap_or_default();
            if renewed || *sender.borrow().anchors_pem() != *anchors {
                let own = self.own.borrow_and_update().clone();
                sender.send_replace(Self::joined(&own, &anchors));
            }
            tokio::select! {
                _ = drain.signaled() => return,
                changed = self.own.changed() => match changed {
                    // It is looked at above.
                    Ok(()) => self.own.mark_changed(),
                    Err(_) => return,
                },
                changed = self.publications.changed() => if changed.is_err() { return },
            }
        }
    }

    fn anchors(&self) -> Arc<str> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).world().settings().trust_anchors.clone()
    }

    fn joined(own: &Arc<Authority>, anchors: &Arc<str>) -> Arc<Authority> {
        if anchors.is_empty() { own.clone() } else { Arc::new(own.trusting(anchors.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use mesh_core::drain;
    use mesh_core::identity::TrustDomain;

    use super::*;
    use crate::ca::self_signed;
    use crate::world::{Change, MeshSettings};

    fn authority() -> Arc<Authority> {
        Arc::new(Authority::new(&self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap()).unwrap())
    }

    fn set(model: &RwLock<Model>, anchors: &str) {
        let settings = MeshSettings { trust_anchors: anchors.into(), ..MeshSettings::default() };
        model.write().unwrap().apply(Change::Settings(Arc::new(settings)));
    }

    #[test]
    fn only_certificates_of_authorities_are_trusted() {
        let root = authority().roots_pem().to_owned();
        assert_eq!(read(&format!("{root}\n{root}")).unwrap(), std::slice::from_ref(&root), "each once");
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        for (pem, part) in [
            ("", "no certificate"),
            ("nonsense", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 0"),
            (&leaf, "not one of an authority"),
            (&format!("{root}{leaf}"), "certificate 1"),
        ] {
            let error = read(pem).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn changes_of_the_authority_and_of_the_configuration_both_reach_the_bundle() {
        let (first, second, extra) = (authority(), authority(), authority().roots_pem().to_owned());
        let (own, own_receiver) = watch::channel(first.clone());
        let (publish, publications) = watch::channel(());
        let model: Arc<RwLock<Model>> = Arc::default();
        let mut anchors = Anchors { own: own_receiver, model: model.clone(), publications };
        assert!(Arc::ptr_eq(&anchors.current(), &first), "nothing is said");
        let (sender, mut told) = watch::channel(anchors.current());
        let (signal, drained) = drain::channel();
        let task = tokio::spawn(anchors.run(sender, drained));
        let mut next = async || {
            tokio::time::timeout(Duration::from_secs(10), told.changed()).await.unwrap().unwrap();
            told.borrow_and_update().clone()
        };
        set(&model, &extra);
        publish.send_replace(());
        let one = next().await;
        assert_eq!(one.bundle_pem(), format!("{}{extra}", first.roots_pem()));
        assert_eq!(one.roots_pem(), first.roots_pem(), "callers are not known by them");
        own.send_replace(second.clone());
        assert_eq!(next().await.bundle_pem(), format!("{}{extra}", second.roots_pem()));
        set(&model, "");
        publish.send_replace(());
        assert_eq!(next().await.bundle_pem(), second.roots_pem());
        drop(signal);
        let _ = own;
        task.abort();
    }
}
