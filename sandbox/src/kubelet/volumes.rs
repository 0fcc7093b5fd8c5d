//! A pod's volumes: directories that exist before its containers start, and whose content
//! follows ConfigMaps, Secrets, tokens and the pod's own metadata while they run.

mod atomic;
mod content;
mod mounts;
mod token;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::Kubelet;
use super::fields::Placement;
use super::pod_worker::PodView;
use super::record::PodRecord;
use content::Payload;
use token::Tokens;

pub(super) use mounts::mounts_of;

/// The volumes of one pod.
pub(super) struct Volumes {
    kubelet: Arc<Kubelet>,
    /// The pod's directory on the node, `/var/lib/kubelet/pods/<uid>`.
    root: PathBuf,
    tokens: Tokens,
    /// What was written last, by volume name.
    written: BTreeMap<String, Payload>,
}

impl Volumes {
    /// For a pod whose directory does not exist yet.
    pub(super) fn new(kubelet: Arc<Kubelet>, uid: &str) -> Self {
        let root = pod_root(&kubelet, uid);
        Self { kubelet, root, tokens: Tokens::default(), written: BTreeMap::new() }
    }

    /// Makes every volume, or brings its content up to date.
    ///
    /// # Errors
    /// A message for the `FailedMount` event naming the volume; worth a retry, as what is
    /// missing may appear.
    pub(super) async fn refresh(&mut self, pod: &Pod, placement: &Placement) -> Result<(), String> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        for volume in volumes.unwrap_or_default() {
            self.refresh_one(pod, placement, volume)
                .await
                .map_err(|reason| format!("MountVolume.SetUp failed for volume {:?} : {reason}", volume.name))?;
        }
        Ok(())
    }

    async fn refresh_one(&mut self, pod: &Pod, placement: &Placement, volume: &Volume) -> Result<(), String> {
        if let Some(host_path) = &volume.host_path {
            let path = self.kubelet.runtime.host_path(Path::new(&host_path.path));
            return mounts::prepare_host_path(&path, host_path.type_.as_deref().unwrap_or(""));
        }
        let path = volume_path(&self.root, volume)?;
        if volume.empty_dir.is_some() {
            return std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()));
        }
        self.tokens.renew(&self.kubelet.client, pod, volume).await?;
        let payload = content::of_volume(pod, placement, volume, &self.kubelet.cache, &self.tokens)?;
        if self.written.get(&volume.name) == Some(&payload) {
            return Ok(());
        }
        atomic::write(&path, &payload).map_err(|error| format!("{}: {error}", path.display()))?;
        self.written.insert(volume.name.clone(), payload);
        Ok(())
    }

    /// Keeps the content current until dropped.
    pub(super) async fn follow(mut self, mut view: tokio::sync::watch::Receiver<PodView>, record: PodRecord) {
        let mut config_maps = self.kubelet.cache.config_maps.generation();
        let mut secrets = self.kubelet.cache.secrets.generation();
        loop {
            let renewal = self.tokens.next_renewal().unwrap_or(IDLE);
            tokio::select! {
                _ = config_maps.changed() => {}
                _ = secrets.changed() => {}
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(renewal) => {}
            }
            tokio::time::sleep(SETTLE).await;
            let pod = Arc::clone(&view.borrow_and_update().pod);
            let placement = self.kubelet.placement(&record.state());
            if let Err(error) = self.refresh(&pod, &placement).await {
                // What was there stays: a running pod keeps its last good content.
                tracing::debug!(pod = ?pod.metadata.name, %error, "volume not refreshed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Where a pod's files are on its node.
pub(super) fn pod_root(kubelet: &Kubelet, uid: &str) -> PathBuf {
    let path = Path::new("/var/lib/kubelet/pods").join(uid);
    kubelet.runtime.host_path(&path)
}

/// The directory of a volume, named as a kubelet names it.
fn volume_path(pod_root: &Path, volume: &Volume) -> Result<PathBuf, String> {
    let plugin = if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else {
        return Err(
            "the sandbox has hostPath, emptyDir, configMap, secret, downwardAPI and projected volumes only".into()
        );
    };
    Ok(pod_root.join("volumes").join(plugin).join(&volume.name))
}

/// Changes that come together (an apply of several objects) are written once.
const SETTLE: Duration = Duration::from_millis(50);
/// Wait after a refresh that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Look at everything again even when nothing was reported.
const IDLE: Duration = Duration::from_secs(600);
