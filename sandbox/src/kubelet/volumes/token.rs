//! Service account tokens of projected volumes: issued for the pod, renewed in time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection, Volume};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

/// The tokens of one pod, by audience and life.
#[derive(Default)]
pub(super) struct Tokens {
    issued: BTreeMap<(Option<String>, i64), Issued>,
}

struct Issued {
    token: String,
    renew_at: Timestamp,
}

impl Tokens {
    /// Has every token of a volume issued, or renewed when its time has come.
    ///
    /// # Errors
    /// A message naming the account when the API refuses and there is no token yet.
    pub(super) async fn renew(&mut self, client: &Client, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for wanted in sources.filter_map(|source| source.service_account_token.as_ref()) {
            let key = key(wanted);
            let now = Timestamp::now();
            if self.issued.get(&key).is_some_and(|issued| issued.renew_at > now) {
                continue;
            }
            let issued = issue(client, pod, &key, now).await?;
            self.issued.insert(key, issued);
        }
        Ok(())
    }

    /// The token of a projection.
    pub(super) fn find(&self, wanted: &ServiceAccountTokenProjection) -> Option<&str> {
        self.issued.get(&key(wanted)).map(|issued| issued.token.as_str())
    }

    /// Time until the first token must be renewed.
    pub(super) fn next_renewal(&self) -> Option<Duration> {
        let first = self.issued.values().map(|issued| issued.renew_at).min()?;
        let wait = first.duration_since(Timestamp::now());
        Some(Duration::try_from(wait).unwrap_or_default())
    }
}

fn key(wanted: &ServiceAccountTokenProjection) -> (Option<String>, i64) {
    let audience = wanted.audience.clone().filter(|audience| !audience.is_empty());
    (audience, wanted.expiration_seconds.unwrap_or(EXPIRATION_SECONDS))
}

async fn issue(
    client: &Client,
    pod: &Pod,
    (audience, seconds): &(Option<String>, i64),
    now: Timestamp,
) -> Result<Issued, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audience.iter().cloned().collect(),
            expiration_seconds: Some(*seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
        },
        ..TokenRequest::default()
    };
    let answer: TokenRequest = Api::<ServiceAccount>::namespaced(client.clone(), &namespace)
        .create_subresource("token", account, &PostParams::default(), &request)
        .await
        .map_err(|error| format!("token of service account {namespace}/{account}: {error}"))?;
    let status =
        answer.status.ok_or_else(|| format!("token of service account {namespace}/{account}: empty answer"))?;
    Ok(Issued { token: status.token, renew_at: renewal(now, status.expiration_timestamp.0) })
}

/// After 80 % of its life, but no sooner than a second from now.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life_ms = expires.duration_since(now).as_millis().max(0);
    let wait_ms = i64::try_from(life_ms * 4 / 5).unwrap_or(i64::MAX).max(1000);
    now.checked_add(jiff::SignedDuration::from_millis(wait_ms)).unwrap_or(expires)
}

/// Life of a token whose projection does not say (API default).
const EXPIRATION_SECONDS: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renewal(at(0), at(3600)), at(2880));
        assert_eq!(renewal(at(0), at(0)), at(1), "never in a tight loop");
        assert_eq!(renewal(at(100), at(0)), at(101));
    }
}
