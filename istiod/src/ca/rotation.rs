//! Key material changes while the process runs: the source is watched, and what is good is used.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_api::labels;
use mesh_core::drain::DrainWatch;
use mesh_core::identity::TrustDomain;
use mesh_sys::watch::Watch;
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
    pub async fn run(self, drain: DrainWatch) {
        match &self.source {
            Source::Plugged(folder) => {
                let folder = folder.clone();
                self.follow_folder(&folder, drain).await;
            }
            Source::SelfSigned { secrets, .. } => {
                let secrets = secrets.clone();
                self.follow_secret(secrets, drain).await;
            }
        }
    }

    async fn follow_folder(mut self, folder: &Path, mut drain: DrainWatch) {
        loop {
            // Armed before the files are read: what changes meanwhile is seen on the next turn.
            let armed = Watch::new(&[folder]);
            self.check().await;
            let changed = async {
                match &armed {
                    Ok(watch) => watch.changed().await,
                    Err(error) => {
                        tracing::debug!(folder = %folder.display(), %error, "not watched, looking from time to time");
                        tokio::time::sleep(PLUGGED_CHECK).await;
                    }
                }
                // Files of one version are replaced one after the other.
                tokio::time::sleep(PLUGGED_DEBOUNCE).await;
            };
            tokio::select! {
                _ = drain.signaled() => return,
                () = changed => {}
            }
        }
    }

    /// What another replica wrote is used at once; whether the root is due is looked at every hour or less.
    async fn follow_secret(mut self, secrets: Api<Secret>, mut drain: DrainWatch) {
        let selection = watcher::Config::default().fields(&format!("metadata.name={}", labels::CA_SECRET));
        let mut events = watcher(secrets, selection).default_backoff().boxed();
        loop {
            // Spread over replicas: the first that finds a root due renews it, the others read what it wrote.
            let pause = SELF_SIGNED_CHECK.mul_f64(rand::random_range(0.5..1.0));
            tokio::select! {
                _ = drain.signaled() => return,
                event = events.next() => match event {
                    Some(Ok(Event::Apply(secret) | Event::InitApply(secret) | Event::Delete(secret)))
                        if secret.metadata.name.as_deref() == Some(labels::CA_SECRET) => self.check().await,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "watch of the authority's Secret failed, trying again"),
                    None => tokio::time::sleep(pause).await,
                },
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
        if let Err(reason) = accept(&self.current, &new, self.multi_root, own_root) {
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
pub fn accept(old: &CaMaterial, new: &CaMaterial, multi_root: bool, own_root: bool) -> Result<(), String> {
    let (old_roots, new_roots) = (blocks(&old.root_pem), blocks(&new.root_pem));
    if old_roots == new_roots {
        return Ok(());
    }
    if !(multi_root || own_root) {
        return Err("the root bundle changed, and ISTIO_MULTIROOT_MESH is not set".to_owned());
    }
    let subset = |a: &[String], b: &[String]| a.iter().all(|one| b.contains(one));
    // A renewed self-made root has the key of the old one: whoever trusts either verifies leaves of both.
    let same_key = own_root && old.key_pem == new.key_pem;
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

/// Quiet time before changed files are read.
const PLUGGED_DEBOUNCE: Duration = Duration::from_millis(100);
/// Where a folder cannot be watched, a change is seen within this time.
const PLUGGED_CHECK: Duration = Duration::from_secs(5);
/// Upper bound between two looks at the Secret.
const SELF_SIGNED_CHECK: Duration = Duration::from_secs(3600);
