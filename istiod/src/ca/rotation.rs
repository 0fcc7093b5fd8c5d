//! Key material changes while the process runs: the source is looked at again and again, and what is good is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use mesh_core::drain::DrainWatch;
use mesh_core::identity::TrustDomain;
use tokio::sync::watch;

use super::Authority;
use super::material::{self, CaMaterial};
use super::self_signed;

/// Where the material comes from.
#[derive(Debug)]
pub enum Source {
    /// An operator's files.
    Plugged(PathBuf),
    /// Our own Secret.
    SelfSigned {
        /// Secrets of the namespace.
        secrets: Api<Secret>,
        /// The namespace.
        namespace: String,
        /// Organisation of the root.
        trust_domain: TrustDomain,
    },
}

/// Follows a source for as long as the process runs.
pub struct Rotation {
    /// Where the material comes from.
    pub source: Source,
    /// The material in use.
    pub current: CaMaterial,
    /// Whether the set of roots may change.
    pub multi_root: bool,
    /// Tells everybody.
    pub authority: watch::Sender<Arc<Authority>>,
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotation").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Rotation {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        loop {
            let pause = match self.source {
                Source::Plugged(_) => PLUGGED_CHECK,
                // Spread over replicas: the first that finds a root due renews it, the others read what it wrote.
                Source::SelfSigned { .. } => SELF_SIGNED_CHECK.mul_f64(rand::random_range(0.5..1.0)),
            };
            tokio::select! {
                _ = drain.signaled() => return,
                () = tokio::time::sleep(pause) => self.check().await,
            }
        }
    }

    async fn check(&mut self) {
        let read = match &self.source {
            Source::Plugged(folder) => material::plugged(folder).map_err(|error| error.to_string()),
            Source::SelfSigned { secrets, namespace, trust_domain } => {
                let refreshed =
                    self_signed::refresh(secrets, namespace, trust_domain, &self.current, SystemTime::now()).await;
                refreshed.map(Some).map_err(|error| error.to_string())
            }
        };
        let new = match read {
            Ok(Some(new)) if new != self.current => new,
            Ok(_) => return,
            Err(reason) => {
                tracing::warn!(reason, "key material of the authority cannot be read, keeping what is in use");
                return;
            }
        };
        let own_root = matches!(self.source, Source::SelfSigned { .. });
        if let Err(reason) = accept(&self.current, &new, self.multi_root || own_root) {
            tracing::error!(reason, "new key material of the authority is not used");
            return;
        }
        match Authority::new(&new) {
            Ok(authority) => {
                tracing::info!("new key material of the authority is in use");
                self.current = new;
                self.authority.send_replace(Arc::new(authority));
            }
            Err(error) => tracing::error!(%error, "new key material of the authority is not used"),
        }
    }
}

/// Whether one set of roots may follow another: never a leap that would cut off who trusts the old ones only.
///
/// # Errors
/// Why not, for the log.
pub fn accept(old: &CaMaterial, new: &CaMaterial, multi_root: bool) -> Result<(), String> {
    let (old_roots, new_roots) = (blocks(&old.root_pem), blocks(&new.root_pem));
    if old_roots == new_roots {
        return Ok(());
    }
    if !multi_root {
        return Err("the root bundle changed, and ISTIO_MULTIROOT_MESH is not set".to_owned());
    }
    let subset = |a: &[String], b: &[String]| a.iter().all(|one| b.contains(one));
    // A renewed self-made root has the key of the old one: whoever trusts either verifies leaves of both.
    let same_key = old.key_pem == new.key_pem;
    if same_key || subset(&old_roots, &new_roots) || subset(&new_roots, &old_roots) {
        return Ok(());
    }
    Err("the new root bundle neither contains the old one nor is contained in it".to_owned())
}

fn blocks(pem: &str) -> Vec<String> {
    let mut blocks: Vec<_> =
        pem.split_inclusive("-----END CERTIFICATE-----").map(|one| one.trim().to_owned()).collect();
    blocks.retain(|one| !one.is_empty());
    blocks.sort();
    blocks
}

/// Files are few and small; a change is seen within this time.
const PLUGGED_CHECK: Duration = Duration::from_secs(5);
/// Upper bound between two looks at the Secret.
const SELF_SIGNED_CHECK: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn material(key: &str, roots: &[&str]) -> CaMaterial {
        let root_pem = roots.iter().map(|root| format!("{root}\n-----END CERTIFICATE-----\n")).collect();
        CaMaterial { cert_pem: String::new(), key_pem: key.into(), chain_pem: String::new(), root_pem }
    }

    #[test]
    fn roots_change_by_growing_or_shrinking_only() {
        let old = material("k1", &["a"]);
        assert!(accept(&old, &material("k2", &["a"]), false).is_ok(), "an intermediate-only change");
        assert!(accept(&old, &material("k2", &["a", "b"]), false).unwrap_err().contains("ISTIO_MULTIROOT_MESH"));
        assert!(accept(&old, &material("k2", &["b", "a"]), true).is_ok());
        assert!(accept(&material("k1", &["a", "b"]), &material("k2", &["b"]), true).is_ok());
        assert!(accept(&old, &material("k2", &["b"]), true).unwrap_err().contains("neither"));
        assert!(accept(&old, &material("k1", &["renewed"]), true).is_ok());
    }
}
