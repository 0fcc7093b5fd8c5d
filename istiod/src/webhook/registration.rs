//! The API server's list of webhooks: kept pointing at us with the right root, and strict once we are known to answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use mesh_api::labels;
use mesh_core::backoff::Backoff;
use mesh_core::drain::DrainWatch;

use super::WebhookMetrics;
use crate::ca::CurrentAuthority;

/// Writes `caBundle` and `failurePolicy`. Every replica does: they write the same, and a write that comes second finds
/// nothing left to do.
pub struct Registrar {
    /// The API server.
    pub client: Client,
    /// Whose roots.
    pub authority: CurrentAuthority,
    /// Own revision: only configurations that carry it are ours.
    pub revision: String,
    /// Own namespace: only webhooks that are served from it are ours.
    pub namespace: String,
    /// Where writes are counted.
    pub metrics: Arc<WebhookMetrics>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// What is known of the configurations, by name.
#[derive(Debug, Default)]
struct Known {
    validating: BTreeMap<String, ValidatingWebhookConfiguration>,
    mutating: BTreeMap<String, MutatingWebhookConfiguration>,
    /// Whether the API server was seen to ask us and to heed the answer.
    proven: bool,
}

enum Seen {
    Validating(Event<ValidatingWebhookConfiguration>),
    Mutating(Event<MutatingWebhookConfiguration>),
    Failed(String),
}

impl Registrar {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut events = self.events();
        let mut known = Known::default();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX, 20);
        loop {
            let settled = tokio::select! {
                _ = drain.signaled() => return,
                settled = self.reconcile(&mut known) => settled,
            };
            let pause = if settled { RESYNC } else { backoff.next_delay() };
            tokio::select! {
                _ = drain.signaled() => return,
                event = events.next() => match event {
                    Some(event) => {
                        // Something changed: what failed before may work now.
                        if known.see(event) {
                            backoff.reset();
                        }
                    }
                    None => return,
                },
                changed = self.authority.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn events(&self) -> BoxStream<'static, Seen> {
        let selection = watcher::Config::default().labels(&format!("{}={}", labels::REVISION, self.revision));
        let validating = watcher(Api::<ValidatingWebhookConfiguration>::all(self.client.clone()), selection.clone());
        let validating = validating.default_backoff().map(|event| match event {
            Ok(event) => Seen::Validating(event),
            Err(error) => Seen::Failed(error.to_string()),
        });
        let mutating = watcher(Api::<MutatingWebhookConfiguration>::all(self.client.clone()), selection);
        let mutating = mutating.default_backoff().map(|event| match event {
            Ok(event) => Seen::Mutating(event),
            Err(error) => Seen::Failed(error.to_string()),
        });
        stream::select(validating, mutating).boxed()
    }

    /// Writes what differs, then looks whether we are asked. Tells whether nothing is left to be done.
    async fn reconcile(&mut self, known: &mut Known) -> bool {
        let bundle = ByteString(self.authority.borrow_and_update().roots_pem().as_bytes().to_vec());
        let mut settled = self.write(known, &bundle).await;
        let ours = known.validating.values().any(|one| !own_hooks(one, &self.namespace).is_empty());
        if settled && ours && !known.proven {
            known.proven = self.is_asked().await;
            settled = known.proven && self.write(known, &bundle).await;
        }
        settled
    }

    async fn write(&self, known: &mut Known, bundle: &ByteString) -> bool {
        let mut settled = true;
        for live in known.validating.values_mut() {
            let Some(wanted) = repaired(live, &self.namespace, bundle, known.proven) else { continue };
            let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
            let written = api.replace(&wanted.name_any(), &PostParams::default(), &wanted).await;
            settled &= self.note(&wanted.name_any(), written.map(|stored| *live = stored));
        }
        for live in known.mutating.values_mut() {
            let Some(wanted) = repaired_mutating(live, &self.namespace, bundle) else { continue };
            let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
            let written = api.replace(&wanted.name_any(), &PostParams::default(), &wanted).await;
            settled &= self.note(&wanted.name_any(), written.map(|stored| *live = stored));
        }
        settled
    }

    fn note(&self, name: &str, written: Result<(), kube::Error>) -> bool {
        self.metrics.updated(written.is_ok());
        match &written {
            Ok(()) => tracing::info!(name, "webhook configuration brought up to date"),
            // Somebody else wrote: the watch brings what they wrote.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(name, reason = status.message, "webhook configuration changed meanwhile");
            }
            Err(error) => tracing::warn!(name, %error, "webhook configuration not brought up to date"),
        }
        written.is_ok()
    }

    /// Asks the API server to pretend to store what we reject. Only our rejection proves that we are asked.
    async fn is_asked(&self) -> bool {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", "Gateway"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let mut object = DynamicObject::new(PROBE, &resource).within(&self.namespace);
        object.metadata.labels = Some([(labels::REVISION.to_owned(), self.revision.clone())].into());
        object.data = serde_json::json!({"spec": {}});
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match api.create(&params, &object).await {
            Err(kube::Error::Api(status)) if is_our_rejection(&status.message) => {
                tracing::info!("the API server asks for validation: invalid objects are rejected from now on");
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the API server does not ask for validation yet");
                false
            }
            Ok(_) => {
                tracing::debug!("the API server does not ask for validation yet: it took an invalid object");
                false
            }
        }
    }
}

impl Known {
    /// Takes in an event. Tells whether it was one.
    fn see(&mut self, event: Seen) -> bool {
        match event {
            Seen::Validating(event) => note_event(&mut self.validating, event),
            Seen::Mutating(event) => note_event(&mut self.mutating, event),
            Seen::Failed(error) => {
                tracing::warn!(error, "watch for webhook configurations failed, trying again");
                return false;
            }
        }
        true
    }
}

fn note_event<K: ResourceExt>(known: &mut BTreeMap<String, K>, event: Event<K>) {
    match event {
        Event::Init => known.clear(),
        Event::InitApply(one) | Event::Apply(one) => drop(known.insert(one.name_any(), one)),
        Event::InitDone => {}
        Event::Delete(one) => drop(known.remove(&one.name_any())),
    }
}

/// Whether the text of a rejection says that it was a validating webhook of ours.
fn is_our_rejection(message: &str) -> bool {
    message.contains("validation.istio.io\" denied the request")
}

fn is_served_by(config: &WebhookClientConfig, namespace: &str) -> bool {
    config.service.as_ref().is_some_and(|service| service.namespace == namespace)
}

/// Names of the webhooks of a configuration that are ours.
fn own_hooks<'a>(config: &'a ValidatingWebhookConfiguration, namespace: &str) -> Vec<&'a str> {
    let hooks = config.webhooks.iter().flatten();
    hooks.filter(|hook| is_served_by(&hook.client_config, namespace)).map(|hook| hook.name.as_str()).collect()
}

/// The configuration as it should be; none where it is. `failurePolicy` only ever becomes stricter.
fn repaired(
    live: &ValidatingWebhookConfiguration,
    namespace: &str,
    bundle: &ByteString,
    proven: bool,
) -> Option<ValidatingWebhookConfiguration> {
    let mut wanted = live.clone();
    for hook in wanted.webhooks.iter_mut().flatten().filter(|hook| is_served_by(&hook.client_config, namespace)) {
        hook.client_config.ca_bundle = Some(bundle.clone());
        if proven && !hook.name.starts_with(ADVICE) {
            hook.failure_policy = Some("Fail".to_owned());
        }
    }
    (wanted != *live).then_some(wanted)
}

fn repaired_mutating(
    live: &MutatingWebhookConfiguration,
    namespace: &str,
    bundle: &ByteString,
) -> Option<MutatingWebhookConfiguration> {
    let mut wanted = live.clone();
    for hook in wanted.webhooks.iter_mut().flatten().filter(|hook| is_served_by(&hook.client_config, namespace)) {
        hook.client_config.ca_bundle = Some(bundle.clone());
    }
    (wanted != *live).then_some(wanted)
}

/// Beginning of the names of webhooks that only advise: nobody waits for them.
const ADVICE: &str = "advice.";
/// Name of the object that must be rejected.
const PROBE: &str = "invalid-gateway";
/// After a first failure.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Between later ones.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Everything is looked at again at least this often.
const RESYNC: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
