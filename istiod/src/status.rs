//! Writes what became of a policy into its status. Leader only; equal status is not written again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use mesh_api::status::{Condition, MeshStatus, WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED};
use mesh_core::drain::DrainWatch;
use mesh_core::names::NamespacedName;
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

use crate::publish::Statuses;
use crate::source::resource;
use crate::translate::PolicyStatus;
use crate::world::Kind;

/// The writer.
pub struct StatusWriter {
    /// The API server.
    pub client: Client,
    /// What statuses should say.
    pub wanted: watch::Receiver<Statuses>,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").finish_non_exhaustive()
    }
}

impl StatusWriter {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut written = BTreeMap::new();
        loop {
            let failed = if *self.leading.borrow_and_update() {
                self.write_all(&mut written).await
            } else {
                // Another may have written meanwhile: on gaining the lead everything is looked at again.
                written.clear();
                false
            };
            let retry = if failed { RETRY } else { IDLE };
            tokio::select! {
                _ = drain.signaled() => return,
                changed = self.wanted.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(retry) => {}
            }
        }
    }

    /// Writes what differs, as long as we lead. Tells whether something is left to be tried again.
    async fn write_all(&mut self, written: &mut BTreeMap<NamespacedName, PolicyStatus>) -> bool {
        let wanted = self.wanted.borrow_and_update().clone();
        let keys: BTreeSet<_> = wanted.keys().chain(written.keys()).cloned().collect();
        let mut failed = false;
        for key in keys {
            let status = wanted.get(&key);
            if written.get(&key) == status {
                continue;
            }
            if !*self.leading.borrow() {
                return false;
            }
            match self.write(&key, status).await {
                Ok(()) => match status {
                    Some(status) => written.insert(key, status.clone()),
                    None => written.remove(&key),
                },
                // Deleted meanwhile: there is nothing to say any more.
                Err(kube::Error::Api(status)) if status.code == 404 => written.remove(&key),
                Err(error) => {
                    tracing::warn!(policy = %key, %error, "status not written");
                    failed = true;
                    None
                }
            };
        }
        failed
    }

    async fn write(&self, key: &NamespacedName, status: Option<&PolicyStatus>) -> Result<(), kube::Error> {
        let resource = resource(Kind::Authorization);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let live = api.get(&key.name).await?;
        let current = live.data.get("status").cloned().and_then(|one| serde_json::from_value::<MeshStatus>(one).ok());
        for (manager, wanted) in changed(status, &current.unwrap_or_default(), Timestamp::now()) {
            // Applying without a condition releases the one that we own.
            let patch = json!({
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": &*key.name, "namespace": &*key.namespace},
                "status": {"conditions": wanted.into_iter().collect::<Vec<_>>()},
            });
            let apply = PatchParams::apply(manager).force();
            api.patch_status(&key.name, &apply, &Patch::Apply(&patch)).await?;
        }
        Ok(())
    }
}

/// Conditions of ours that differ from what is there, with their field managers; none is one to take away: a policy has the
/// one or the other.
fn changed(
    status: Option<&PolicyStatus>,
    current: &MeshStatus,
    now: Timestamp,
) -> Vec<(&'static str, Option<Condition>)> {
    let family = |(name, manager): (&str, &'static str)| {
        let current = current.conditions.iter().find(|one| one.type_ == name);
        let status = status.filter(|status| status.verdict.condition == name);
        let wanted = status.map(|status| condition(status, current, now));
        (wanted.as_ref() != current).then_some((manager, wanted))
    };
    FAMILIES.into_iter().filter_map(family).collect()
}

/// The condition to write. The time of the last transition stays while the status does.
fn condition(status: &PolicyStatus, current: Option<&Condition>, now: Timestamp) -> Condition {
    let truth = if status.verdict.accepted { "True" } else { "False" };
    let kept = current.filter(|one| one.status == truth).and_then(|one| one.last_transition_time.clone());
    Condition {
        type_: status.verdict.condition.to_owned(),
        status: truth.to_owned(),
        reason: Some(status.verdict.reason.to_owned()),
        message: Some(status.verdict.message.clone()),
        last_transition_time: kept.or_else(|| Some(now.strftime("%FT%TZ").to_string())),
        observed_generation: Some(status.generation),
    }
}

/// Conditions and their field managers, as in the reference.
const FAMILIES: [(&str, &str); 2] =
    [(ZTUNNEL_ACCEPTED, "istio-ambient-ztunnel-policy"), (WAYPOINT_ACCEPTED, "istio-ambient-waypoint-policy")];
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Otherwise changes wake us; this only bounds the wait.
const IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::policy::Verdict;

    #[test]
    fn a_policy_that_gains_targets_changes_its_condition() {
        let status = |condition| PolicyStatus {
            generation: 1,
            verdict: Verdict { condition, accepted: true, reason: "Accepted", message: "m".into() },
        };
        let now = Timestamp::from_second(0).unwrap();
        let ztunnel = condition(&status(ZTUNNEL_ACCEPTED), None, now);
        let live = MeshStatus { conditions: vec![ztunnel], ..MeshStatus::default() };
        assert_eq!(changed(Some(&status(ZTUNNEL_ACCEPTED)), &live, now), []);
        let writes = changed(Some(&status(WAYPOINT_ACCEPTED)), &live, now);
        assert_eq!(writes.first(), Some(&("istio-ambient-ztunnel-policy", None)));
        let wanted = condition(&status(WAYPOINT_ACCEPTED), None, now);
        assert_eq!(writes.get(1), Some(&("istio-ambient-waypoint-policy", Some(wanted))));
    }

    #[test]
    fn the_transition_time_changes_with_the_status_only() {
        let status = |accepted, generation| PolicyStatus {
            generation,
            verdict: Verdict { condition: ZTUNNEL_ACCEPTED, accepted, reason: "Accepted", message: "m".into() },
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = condition(&status(true, 1), None, at(0));
        assert_eq!(first.last_transition_time.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(condition(&status(true, 1), Some(&first), at(60)), first);
        let second = condition(&status(true, 2), Some(&first), at(60));
        assert_eq!(
            (second.last_transition_time, second.observed_generation),
            (first.last_transition_time.clone(), Some(2))
        );
        let third = condition(&status(false, 2), Some(&first), at(60));
        assert_eq!(third.last_transition_time.as_deref(), Some("1970-01-01T00:01:00Z"));
    }
}
