//! Writes a pod's status whenever its record or its object changes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;

use super::pod_worker::PodView;
use super::record::PodRecord;
use super::status::pod_status;
use super::{Kubelet, RetryWait};
use crate::controllers::status_patch;

/// Remembers what was written last.
pub(super) struct StatusWriter {
    kubelet: Arc<Kubelet>,
    view: watch::Receiver<PodView>,
    record: PodRecord,
    written: Option<PodStatus>,
}

impl StatusWriter {
    pub(super) fn new(kubelet: Arc<Kubelet>, view: watch::Receiver<PodView>, record: PodRecord) -> Self {
        let written = view.borrow().pod.status.clone();
        Self { kubelet, view, record, written }
    }

    /// Writes until `stop` resolves, then once more.
    pub(super) async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut changes = self.record.changes();
        let mut view = self.view.clone();
        let mut retry = RetryWait::new(super::pod_worker::RETRY_FIRST, super::pod_worker::RETRY_CAP);
        loop {
            changes.borrow_and_update();
            view.borrow_and_update();
            if !self.write().await && !stop.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(retry.advance()) => continue,
                    () = stop.cancelled() => {}
                }
            }
            if stop.is_cancelled() {
                self.write().await;
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = view.changed() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Writes the status if it differs from the last one; `false` when that failed.
    async fn write(&mut self) -> bool {
        let (pod, gone) = {
            let view = self.view.borrow();
            (Arc::clone(&view.pod), view.gone)
        };
        if gone {
            return true;
        }
        let basis = self.basis(&pod);
        let status = pod_status(&basis, &self.record.state(), Timestamp::now());
        let Some(mut patch) = status_patch::status_patch(self.written.as_ref(), &status) else {
            return true;
        };
        // A pod that replaced ours under the same name must not get our status.
        if let Some(patch) = patch.as_object_mut() {
            patch.insert("metadata".to_owned(), json!({"uid": pod.metadata.uid}));
        }
        let name = pod.name_any();
        let answer = self
            .kubelet
            .pods(&pod.namespace().unwrap_or_default())
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match answer {
            Ok(_) => {
                self.written = Some(status);
                true
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::debug!(pod = %name, %error, "status not written");
                false
            }
        }
    }

    /// The pod as the watch saw it, with the conditions we wrote last (the watch may be behind).
    fn basis(&self, pod: &Pod) -> Pod {
        let mut basis = pod.clone();
        let Some(written) = self.written.as_ref().and_then(|status| status.conditions.as_ref()) else {
            return basis;
        };
        let conditions = basis.status.get_or_insert_default().conditions.get_or_insert_default();
        for own in written.iter().filter(|one| OWN.contains(&one.type_.as_str())) {
            conditions.retain(|found| found.type_ != own.type_);
            conditions.push(own.clone());
        }
        basis
    }
}

/// The conditions that a kubelet writes.
const OWN: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
