//! Admission webhooks: who is asked before an object is stored, and what the answers mean.
//!
//! Mutating webhooks are asked one after the other, each seeing what the one before made of the
//! object; then, once the object is known to be valid, validating ones are asked all at once.

mod call;
mod check;
mod hook;
mod matching;
mod resolve;
mod review;
#[cfg(test)]
mod tests;

use futures::future::join_all;
use serde_json::Value;

pub(crate) use self::check::check_configuration;
use self::{
    hook::{Hook, Side},
    matching::{Matched, matches},
    review::Verdict,
};
use super::{
    ApiServer, defaults,
    status::ApiError,
    user::User,
    write::{Target, WriteOptions},
};
use crate::patch;

/// What is about to happen, as webhooks are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission<'a> {
    pub(crate) at: &'a Target<'a>,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub(crate) operation: &'static str,
    pub(crate) subresource: Option<&'static str>,
    pub(crate) name: &'a str,
    /// The object as stored before.
    pub(crate) old: Option<&'a Value>,
    pub(crate) user: Option<&'a User>,
    pub(crate) dry_run: bool,
}

impl<'a> Admission<'a> {
    /// The admission of a write with these options.
    pub(crate) fn of_write(
        at: &'a Target<'a>,
        name: &'a str,
        old: Option<&'a Value>,
        subresource: Option<&'static str>,
        options: &'a WriteOptions,
    ) -> Self {
        let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
        Self { at, operation, subresource, name, old, user: options.user.as_ref(), dry_run: options.dry_run }
    }
}

impl ApiServer {
    /// Lets mutating webhooks change an object; `value` is in the version of the request. `None` when
    /// none was asked.
    pub(crate) async fn mutate(
        &self,
        admission: &Admission<'_>,
        value: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Value>, ApiError> {
        let hooks = self.hooks(Side::Mutating, admission);
        if hooks.is_empty() {
            return Ok(None);
        }
        let resource = admission.at.resource;
        let mut current = value.clone();
        if !resource.custom {
            // Webhooks see the defaults of built-in kinds, as they are stored.
            let mut stored = resource.absorb(current);
            defaults::apply(&resource.key, &mut stored);
            current = resource.present(&stored, &admission.at.version.name);
        }
        for hook in hooks {
            let Some(matched) = self.selected(&hook, admission, Some(&current)) else { continue };
            let shown = matched.present(admission, &current);
            let verdict = self.ask(&hook, admission, &matched, Some(&shown)).await?;
            warnings.extend(verdict.warnings);
            if let Some(change) = verdict.patch {
                let changed = patch::json(&shown, &change).map_err(|error| {
                    ApiError::internal(format!(
                        "Internal error occurred: webhook {:?} sent a patch that does not fit: {error}",
                        hook.name
                    ))
                })?;
                current = matched.back(admission, &changed);
            }
        }
        Ok(Some(current))
    }

    /// Asks validating webhooks about an object that is otherwise fine; `value` is the stored form,
    /// absent for a deletion.
    pub(crate) async fn validate_by_webhooks(
        &self,
        admission: &Admission<'_>,
        value: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let hooks = self.hooks(Side::Validating, admission);
        let asked = hooks.iter().filter_map(|hook| Some((hook, self.selected(hook, admission, value)?)));
        let answers = join_all(asked.map(|(hook, matched)| async move {
            let shown = value.map(|value| matched.present(admission, value));
            self.ask(hook, admission, &matched, shown.as_ref()).await
        }));
        for answer in answers.await {
            warnings.extend(answer?.warnings);
        }
        Ok(())
    }

    /// The webhooks that this resource and operation concern.
    fn hooks(&self, side: Side, admission: &Admission<'_>) -> Vec<Hook> {
        // Otherwise a broken webhook could not be repaired.
        if hook::is_configuration(&admission.at.resource.key) || admission.user.is_none() {
            return Vec::new();
        }
        let configurations = side.resource();
        if self.store.count(&configurations) == 0 {
            return Vec::new();
        }
        let configurations = self.store.list(&configurations, None).items;
        configurations.iter().flat_map(|object| hook::read(side, object.value())).collect()
    }

    fn selected(&self, hook: &Hook, admission: &Admission<'_>, value: Option<&Value>) -> Option<Matched> {
        let namespace = admission.at.namespace.and_then(|name| self.namespace_object(name));
        matches(hook, admission, value, namespace.as_deref().map(|object| object.value()))
    }

    fn namespace_object(&self, name: &str) -> Option<std::sync::Arc<crate::store::Object>> {
        self.store.get(&crate::store::ResourceKey::namespaces(), &crate::store::ObjectKey::cluster(name))
    }

    /// Asks one webhook; what it refuses, and what it does not answer unless that is to be ignored, is
    /// an error.
    async fn ask(
        &self,
        hook: &Hook,
        admission: &Admission<'_>,
        matched: &Matched,
        value: Option<&Value>,
    ) -> Result<Verdict, ApiError> {
        if admission.dry_run && !hook.dry_run_is_safe {
            let message = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(ApiError::bad_request(message));
        }
        let request = review::request(admission, matched, value);
        let called = async {
            let place = self.place_of(&hook.client).map_err(|reason| (hook.url(), reason))?;
            let answer = call::post(&place, hook.timeout, &request.body).await;
            let answer = answer.map_err(|error| (place.url.clone(), error.to_string()))?;
            review::read(&hook.name, hook.side, &request.uid, &answer).map_err(|reason| (place.url.clone(), reason))
        };
        match called.await {
            Ok(result) => result,
            Err((url, reason)) if hook.fail_closed => {
                let message = format!(
                    "Internal error occurred: failed calling webhook {:?}: failed to call webhook: Post {url:?}: {reason}",
                    hook.name
                );
                Err(ApiError::internal(message))
            }
            Err((url, reason)) => {
                tracing::warn!(webhook = hook.name, url, reason, "webhook failed, and its failure is ignored");
                Ok(Verdict::default())
            }
        }
    }
}
