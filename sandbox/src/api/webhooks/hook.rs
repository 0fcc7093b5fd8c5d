//! One webhook, as its configuration describes it.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, WebhookClientConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::store::ResourceKey;

/// Wait for an answer when the configuration names none.
const TIMEOUT_DEFAULT_SECONDS: u64 = 10;
/// Longest wait for an answer.
pub(super) const TIMEOUT_MAX_SECONDS: u64 = 30;
/// Webhooks of one configuration that are looked at.
pub(super) const WEBHOOKS_MAX: usize = 64;

/// Which webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Mutating,
    Validating,
}

impl Side {
    pub(super) fn resource(self) -> ResourceKey {
        let plural = match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        };
        ResourceKey::new(GROUP, plural)
    }
}

const GROUP: &str = "admissionregistration.k8s.io";

/// Whether objects of this resource rule admission itself: webhooks are never asked about them.
pub(super) fn is_configuration(resource: &ResourceKey) -> bool {
    resource.as_str().ends_with(".admissionregistration.k8s.io")
}

/// A webhook.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub(super) side: Side,
    pub(super) name: String,
    pub(super) client: WebhookClientConfig,
    pub(super) rules: Vec<RuleWithOperations>,
    pub(super) namespace_selector: Option<Value>,
    pub(super) object_selector: Option<Value>,
    /// Other versions of the same resource count too.
    pub(super) equivalent: bool,
    /// Without an answer the request is refused.
    pub(super) fail_closed: bool,
    pub(super) dry_run_is_safe: bool,
    pub(super) timeout: Duration,
}

impl Hook {
    /// Where it is, for messages.
    pub(super) fn url(&self) -> String {
        match (&self.client.url, &self.client.service) {
            (Some(url), _) => url.clone(),
            (None, Some(service)) => {
                let path = service.path.as_deref().unwrap_or_default();
                format!("https://{}.{}.svc:{}{path}", service.name, service.namespace, service.port.unwrap_or(443))
            }
            (None, None) => String::new(),
        }
    }
}

/// An entry of `webhooks`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) client_config: WebhookClientConfig,
    #[serde(default)]
    pub(super) rules: Vec<RuleWithOperations>,
    #[serde(default)]
    pub(super) namespace_selector: Option<Value>,
    #[serde(default)]
    pub(super) object_selector: Option<Value>,
    #[serde(default)]
    pub(super) match_policy: Option<String>,
    #[serde(default)]
    pub(super) match_conditions: Vec<Value>,
    #[serde(default)]
    pub(super) failure_policy: Option<String>,
    #[serde(default)]
    pub(super) side_effects: Option<String>,
    #[serde(default)]
    pub(super) timeout_seconds: Option<i64>,
    #[serde(default)]
    pub(super) admission_review_versions: Vec<String>,
    #[serde(default)]
    pub(super) reinvocation_policy: Option<String>,
}

/// The entries of a configuration that can be read; admission has refused others.
pub(super) fn entries(configuration: &Value) -> impl Iterator<Item = Result<Entry, serde_json::Error>> + use<'_> {
    let list = configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    list.take(WEBHOOKS_MAX).map(|entry| serde_json::from_value(entry.clone()))
}

/// The webhooks of a stored configuration.
pub(super) fn read(side: Side, configuration: &Value) -> Vec<Hook> {
    entries(configuration).filter_map(Result::ok).map(|entry| Hook::of(side, entry)).collect()
}

impl Hook {
    fn of(side: Side, entry: Entry) -> Self {
        let seconds = entry.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = seconds.unwrap_or(TIMEOUT_DEFAULT_SECONDS).clamp(1, TIMEOUT_MAX_SECONDS);
        Self {
            side,
            name: entry.name,
            client: entry.client_config,
            rules: entry.rules,
            namespace_selector: entry.namespace_selector,
            object_selector: entry.object_selector,
            equivalent: entry.match_policy.as_deref() != Some("Exact"),
            fail_closed: entry.failure_policy.as_deref() != Some("Ignore"),
            dry_run_is_safe: matches!(entry.side_effects.as_deref(), Some("None" | "NoneOnDryRun")),
            timeout: Duration::from_secs(seconds),
        }
    }
}
