//! Roots as a ClusterTrustBundle: one object for the whole cluster instead of a ConfigMap in every namespace.

#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_core::drain::DrainWatch;
use serde_json::json;
use tokio::sync::watch;

use crate::ca::CurrentAuthority;

/// Name of the object.
pub const NAME: &str = "istio.io:istiod-ca:root-cert";
/// Signer that the object belongs to.
pub const SIGNER: &str = "istio.io/istiod-ca";

/// Keeps the object as it should be. Leader only.
pub struct TrustBundle {
    /// The API server.
    pub client: Client,
    /// The kind, in a version that the API server has.
    pub kind: ApiResource,
    /// Whose roots.
    pub authority: CurrentAuthority,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustBundle").finish_non_exhaustive()
    }
}

/// The kind in the newest version that the API server has, or none if it has none of them.
///
/// # Errors
/// The API server could not be asked. Worth a retry.
pub async fn find(client: &Client) -> Result<Option<ApiResource>, kube::Error> {
    for version in VERSIONS {
        let resources = match client.list_api_group_resources(&format!("{GROUP}/{version}")).await {
            Ok(resources) => resources,
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        if resources.resources.iter().any(|one| one.name == PLURAL) {
            let kind = GroupVersionKind::gvk(GROUP, version, "ClusterTrustBundle");
            return Ok(Some(ApiResource::from_gvk_with_plural(&kind, PLURAL)));
        }
    }
    Ok(None)
}

impl TrustBundle {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut events = self.events();
        loop {
            let failed = match self.reconcile().await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, bundle = NAME, "trust bundle not written, trying again");
                    true
                }
            };
            tokio::select! {
                _ = drain.signaled() => return,
                event = events.next() => if event.is_none() { return },
                changed = self.authority.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(if failed { RETRY } else { RESYNC }) => {}
            }
        }
    }

    /// Something happened to the object.
    fn events(&self) -> BoxStream<'static, ()> {
        let selection = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let events = watcher(self.api(), selection).default_backoff();
        let ours = |event: Result<Event<DynamicObject>, watcher::Error>| async {
            match event.ok()? {
                Event::Apply(one) | Event::Delete(one) => (one.metadata.name.as_deref() == Some(NAME)).then_some(()),
                Event::Init | Event::InitApply(_) | Event::InitDone => None,
            }
        };
        events.filter_map(ours).boxed()
    }

    async fn reconcile(&mut self) -> Result<(), kube::Error> {
        let roots = self.authority.borrow_and_update().bundle_pem();
        if !*self.leading.borrow_and_update() {
            return Ok(());
        }
        let spec = json!({"signerName": SIGNER, "trustBundle": roots});
        let (api, params) = (self.api(), PostParams::default());
        match api.get_opt(NAME).await? {
            Some(live) if live.data.get("spec") == Some(&spec) => Ok(()),
            Some(mut live) => {
                live.data = json!({"spec": spec});
                api.replace(NAME, &params, &live).await.map(drop)
            }
            None => {
                let mut bundle = DynamicObject::new(NAME, &self.kind);
                bundle.data = json!({"spec": spec});
                match api.create(&params, &bundle).await {
                    // Another writer was faster; its object is looked at when the watch tells of it.
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                    other => other.map(drop),
                }
            }
        }
    }

    fn api(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &self.kind)
    }
}

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "clustertrustbundles";
/// Newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// The object is looked at again at least this often.
const RESYNC: Duration = Duration::from_secs(600);
