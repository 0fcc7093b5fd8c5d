//! The root certificate in every namespace: what data planes trust the control plane by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_api::labels;
use mesh_core::drain::DrainWatch;
use tokio::sync::watch;

use crate::ca::CurrentAuthority;
use crate::translate::Model;

/// Keeps the ConfigMaps as they should be. Leader only.
pub struct RootDistributor {
    /// The API server.
    pub client: Client,
    /// Whose roots.
    pub authority: CurrentAuthority,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
    /// Tells which namespaces are looked at.
    pub model: Arc<RwLock<Model>>,
    /// Changes after the model did: namespaces may have become visible.
    pub publications: watch::Receiver<()>,
}

impl std::fmt::Debug for RootDistributor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootDistributor").finish_non_exhaustive()
    }
}

/// What is known of the cluster.
#[derive(Debug, Default)]
struct Known {
    /// Namespaces that are not being deleted.
    namespaces: BTreeSet<String>,
    /// Bundles in the ConfigMaps, by namespace; none where the map has another shape than ours.
    maps: BTreeMap<String, Option<String>>,
    /// Namespaces in the list that is being read.
    listed: BTreeSet<String>,
    /// Namespaces of the ConfigMaps in the list that is being read.
    listed_maps: BTreeSet<String>,
    /// Whether both lists were read once.
    synced: (bool, bool),
    /// Failures in a row, by namespace.
    failures: BTreeMap<String, u32>,
    /// Namespaces that lack the map but are not looked at, as far as the model has come.
    hidden: BTreeSet<String>,
}

enum Seen {
    Namespace(Event<Namespace>),
    Map(Event<ConfigMap>),
    Failed(String),
}

impl RootDistributor {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut events = self.events();
        let mut known = Known::default();
        loop {
            let failed = self.reconcile(&mut known).await;
            let publications = &mut self.publications;
            let model = &self.model;
            tokio::select! {
                _ = drain.signaled() => return,
                event = events.next() => match event {
                    Some(event) => {
                        known.see(event);
                        // A list comes as many events: take what is there before looking at the whole.
                        for _ in 0..GATHER_MAX {
                            match tokio::time::timeout(GATHER, events.next()).await {
                                Ok(Some(event)) => known.see(event),
                                Ok(None) | Err(_) => break,
                            }
                        }
                    }
                    None => return,
                },
                changed = self.authority.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = shown(publications, model, &known.hidden), if !known.hidden.is_empty() => {}
                () = tokio::time::sleep(if failed { RETRY } else { RESYNC }) => known.failures.clear(),
            }
        }
    }

    fn events(&self) -> BoxStream<'static, Seen> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespaces = watcher(namespaces, watcher::Config::default()).default_backoff().map(|event| match event {
            Ok(event) => Seen::Namespace(event),
            Err(error) => Seen::Failed(error.to_string()),
        });
        let selection = watcher::Config::default().fields(&format!("metadata.name={}", labels::ROOT_CERT_CONFIG_MAP));
        let maps: Api<ConfigMap> = Api::all(self.client.clone());
        let maps = watcher(maps, selection).default_backoff().map(|event| match event {
            Ok(event) => Seen::Map(event),
            Err(error) => Seen::Failed(error.to_string()),
        });
        stream::select(namespaces, maps).boxed()
    }

    /// Makes every ConfigMap what it should be. Tells whether something is left to be tried again.
    async fn reconcile(&mut self, known: &mut Known) -> bool {
        let bundle = self.authority.borrow_and_update().roots_pem().to_owned();
        if !*self.leading.borrow_and_update() || known.synced != (true, true) {
            return false;
        }
        let wanted: Vec<_> = {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
            let lacking = known.lacking(&bundle).into_iter();
            let (visible, hidden): (Vec<_>, _) = lacking.partition(|namespace| model.world().visible(namespace));
            known.hidden = hidden.into_iter().collect();
            visible
        };
        let mut failed = false;
        for namespace in wanted {
            if !*self.leading.borrow() {
                return false;
            }
            let exists = known.maps.contains_key(&namespace);
            match self.write(&namespace, &bundle, exists).await {
                Ok(()) => {
                    known.failures.remove(&namespace);
                    known.maps.insert(namespace, Some(bundle.clone()));
                }
                // The namespace is going or gone: nothing to distribute to.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 403 => {
                    tracing::debug!(namespace, reason = status.message, "root certificate not distributed");
                    *known.failures.entry(namespace).or_default() += 1;
                    failed = true;
                }
                Err(error) => {
                    tracing::warn!(namespace, %error, "root certificate not distributed");
                    *known.failures.entry(namespace).or_default() += 1;
                    failed = true;
                }
            }
        }
        failed
    }

    async fn write(&self, namespace: &str, bundle: &str, exists: bool) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let wanted = config_map(bundle);
        let params = PostParams::default();
        if !exists {
            match api.create(&params, &wanted).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map(drop),
            }
        }
        match api.get_opt(labels::ROOT_CERT_CONFIG_MAP).await? {
            Some(mut live) => {
                live.metadata.labels.get_or_insert_default().extend(wanted.metadata.labels.unwrap_or_default());
                live.data = wanted.data;
                live.binary_data = None;
                api.replace(labels::ROOT_CERT_CONFIG_MAP, &params, &live).await.map(drop)
            }
            None => api.create(&params, &wanted).await.map(drop),
        }
    }
}

/// Resolves once a hidden namespace is looked at. The model may hear of it later than we do, and the selectors of the mesh
/// configuration change.
async fn shown(publications: &mut watch::Receiver<()>, model: &RwLock<Model>, hidden: &BTreeSet<String>) {
    loop {
        // Looked at first: the model may have changed since the caller looked.
        publications.mark_unchanged();
        let any = {
            let model = model.read().unwrap_or_else(PoisonError::into_inner);
            hidden.iter().any(|namespace| model.world().visible(namespace))
        };
        if any {
            return;
        }
        if publications.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Known {
    fn see(&mut self, event: Seen) {
        match event {
            Seen::Failed(error) => tracing::warn!(error, "watch for root distribution failed, trying again"),
            Seen::Namespace(Event::Init) => self.listed.clear(),
            Seen::Namespace(Event::InitApply(one) | Event::Apply(one)) => {
                let name = one.metadata.name.clone().unwrap_or_default();
                let going = one.metadata.deletion_timestamp.is_some()
                    || one.status.and_then(|status| status.phase).as_deref() == Some("Terminating");
                self.failures.remove(&name);
                if going {
                    self.namespaces.remove(&name);
                } else {
                    self.listed.insert(name.clone());
                    self.namespaces.insert(name);
                }
            }
            Seen::Namespace(Event::InitDone) => {
                self.namespaces = std::mem::take(&mut self.listed);
                self.synced.0 = true;
            }
            Seen::Namespace(Event::Delete(one)) => {
                self.namespaces.remove(&one.metadata.name.unwrap_or_default());
            }
            Seen::Map(Event::Init) => self.listed_maps.clear(),
            Seen::Map(Event::InitApply(map) | Event::Apply(map)) if is_ours(&map) => {
                let marked = map.metadata.labels.as_ref().and_then(|all| all.get(labels::ISTIO_CONFIG));
                let bundle = map.data.and_then(|mut data| data.remove(labels::ROOT_CERT_KEY));
                let bundle = bundle.filter(|_| marked.is_some_and(|value| value == "true"));
                let namespace = map.metadata.namespace.unwrap_or_default();
                self.listed_maps.insert(namespace.clone());
                self.maps.insert(namespace, bundle);
            }
            Seen::Map(Event::InitDone) => {
                let listed = std::mem::take(&mut self.listed_maps);
                self.maps.retain(|namespace, _| listed.contains(namespace));
                self.synced.1 = true;
            }
            Seen::Map(Event::Delete(map)) if is_ours(&map) => {
                self.maps.remove(&map.metadata.namespace.unwrap_or_default());
            }
            Seen::Map(_) => {}
        }
    }

    /// Namespaces whose ConfigMap is missing or says something else.
    fn lacking(&self, bundle: &str) -> Vec<String> {
        let tried = |namespace: &String| self.failures.get(namespace).is_some_and(|count| *count >= TRIES_MAX);
        let right = |namespace: &String| self.maps.get(namespace).is_some_and(|have| have.as_deref() == Some(bundle));
        let excluded = |namespace: &String| EXCLUDED.contains(&namespace.as_str());
        let lacking = self.namespaces.iter().filter(|one| !excluded(one) && !right(one) && !tried(one));
        lacking.cloned().collect()
    }
}

/// A server without field selectors tells of other maps too.
fn is_ours(map: &ConfigMap) -> bool {
    map.metadata.name.as_deref() == Some(labels::ROOT_CERT_CONFIG_MAP)
}

fn config_map(bundle: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(labels::ROOT_CERT_CONFIG_MAP.to_owned()),
            labels: Some([(labels::ISTIO_CONFIG.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(labels::ROOT_CERT_KEY.to_owned(), bundle.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// Namespaces that never get the ConfigMap.
const EXCLUDED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
/// Tries of one namespace until the next change or [`RESYNC`].
const TRIES_MAX: u32 = 5;
/// Pause that ends a burst of events.
const GATHER: Duration = Duration::from_millis(20);
/// Events that are taken at once.
const GATHER_MAX: usize = 10_000;
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Everything is looked at again at least this often.
const RESYNC: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
    }

    fn map(namespace: &str, bundle: &str) -> ConfigMap {
        let mut map = config_map(bundle);
        map.metadata.namespace = Some(namespace.into());
        map
    }

    #[tokio::test]
    async fn a_namespace_that_becomes_visible_wakes_the_distributor() {
        use crate::world::{Change, Labels, MeshSettings, Object, Selector};
        let selector = Selector { match_labels: [("mesh".to_owned(), "on".to_owned())].into(), ..Selector::default() };
        let settings = MeshSettings { discovery_selectors: vec![selector], ..MeshSettings::default() };
        let model: Arc<RwLock<Model>> = Arc::default();
        model.write().unwrap().apply(Change::Settings(Arc::new(settings)));
        let (published, mut publications) = watch::channel(());
        let hidden = BTreeSet::from(["shop".to_owned()]);
        let waiting = tokio::spawn({
            let model = model.clone();
            async move { shown(&mut publications, &model, &hidden).await }
        });
        for (label, ends) in [("off", false), ("on", true)] {
            let labels: Labels = [("mesh", label)].into_iter().collect();
            let namespace = crate::world::Namespace { name: "shop".into(), labels, distribution: None };
            model.write().unwrap().apply(Change::Upsert(Object::Namespace(namespace)));
            published.send_replace(());
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(waiting.is_finished(), ends, "{label}");
        }
    }

    #[test]
    fn row_18_every_namespace_but_the_excluded_lacks_the_map_until_it_is_there() {
        let mut known = Known::default();
        known.see(Seen::Namespace(Event::Init));
        for name in ["kube-system", "kube-public", "kube-node-lease", "shop", "data"] {
            known.see(Seen::Namespace(Event::InitApply(namespace(name))));
        }
        known.see(Seen::Namespace(Event::InitDone));
        known.see(Seen::Map(Event::InitDone));
        assert_eq!(known.lacking("root"), ["data", "kube-system", "shop"]);
        known.see(Seen::Map(Event::Apply(map("shop", "root"))));
        known.see(Seen::Map(Event::Apply(map("data", "edited"))));
        assert_eq!(known.lacking("root"), ["data", "kube-system"], "an edited map is restored");
        known.see(Seen::Map(Event::Delete(map("shop", "root"))));
        assert!(known.lacking("root").contains(&"shop".to_owned()), "a deleted map is made again");
        assert_eq!(known.lacking("new root").len(), 3, "a changed root goes everywhere");
    }

    #[test]
    fn terminating_namespaces_and_hopeless_ones_are_left_alone() {
        let mut known = Known::default();
        let mut going = namespace("going");
        known.see(Seen::Namespace(Event::Apply(going.clone())));
        assert_eq!(known.lacking("root"), ["going"]);
        going.status = Some(k8s_openapi::api::core::v1::NamespaceStatus {
            phase: Some("Terminating".into()),
            ..Default::default()
        });
        known.see(Seen::Namespace(Event::Apply(going)));
        assert!(known.lacking("root").is_empty());
        known.see(Seen::Namespace(Event::Apply(namespace("hopeless"))));
        known.failures.insert("hopeless".into(), TRIES_MAX);
        assert!(known.lacking("root").is_empty());
        known.see(Seen::Namespace(Event::Apply(namespace("hopeless"))));
        assert_eq!(known.lacking("root"), ["hopeless"], "a change is a new chance");
    }
}
