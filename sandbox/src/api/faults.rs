//! Faults on demand: what the API server does wrong when a test asks for it.
//!
//! Rules are looked at in order. Delays add up; the first rule with another action ends the search.
//! Requests of the sandbox's own controllers and kubelets are never touched.

mod admin;
mod rule;
mod watches;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use rand::Rng;

pub use self::rule::{Action, Ending, Fault, FaultError, Filter, Listed};
use self::watches::Watches;
pub(crate) use self::{admin::FAULTS_PATH, watches::Hold};
use super::{attributes::Attributes, status::ApiError, user::User};

/// Rules kept at once.
pub const RULES_MAX: usize = 64;

/// The faults of one API server.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Rules>,
    watches: Watches,
}

#[derive(Debug, Default)]
struct Rules {
    last_id: u64,
    active: Vec<Listed>,
}

/// What the rules mean for one request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Wait so long before anything else.
    pub(crate) delay: Duration,
    /// Then answer this.
    pub(crate) refusal: Option<ApiError>,
    /// Or let the watch that is asked for end after this time.
    pub(crate) cut: Option<(Duration, Ending)>,
}

impl Faults {
    /// Adds a rule behind those that are there, and returns its number.
    ///
    /// # Errors
    ///
    /// [`FaultError`] when the rule can never apply or there are too many.
    pub fn add(&self, fault: Fault) -> Result<u64, FaultError> {
        fault.check()?;
        let mut rules = self.rules();
        if rules.active.len() >= RULES_MAX {
            return Err(FaultError::TooMany { limit: RULES_MAX });
        }
        rules.last_id += 1;
        let id = rules.last_id;
        rules.active.push(Listed { id, fault, applied: 0 });
        Ok(id)
    }

    /// The rules, with how often each has been applied.
    pub fn list(&self) -> Vec<Listed> {
        self.rules().active.clone()
    }

    /// Removes a rule, or all; returns how many.
    pub fn clear(&self, id: Option<u64>) -> usize {
        let mut rules = self.rules();
        let before = rules.active.len();
        rules.active.retain(|rule| id.is_some_and(|id| rule.id != id));
        before - rules.active.len()
    }

    /// Ends the watches of clients that are open now and that `filter` covers; returns how many.
    pub fn drop_watches(&self, filter: &Filter, ending: Ending) -> usize {
        self.watches.end(filter, ending)
    }

    /// Number of watches that clients hold open.
    pub fn open_watches(&self) -> usize {
        self.watches.count()
    }

    /// Decides about a request, and counts it.
    pub(crate) fn judge(&self, user: &User, request: &Attributes) -> Verdict {
        let mut verdict = Verdict::default();
        let mut rules = self.rules();
        for rule in &mut rules.active {
            if !rule.applies(user, request) {
                continue;
            }
            rule.applied += 1;
            match &rule.fault.action {
                Action::Delay { ms } => verdict.delay += Duration::from_millis(*ms),
                Action::Status { code, retry_after_seconds } => {
                    verdict.refusal = Some(refusal(rule.id, *code, *retry_after_seconds));
                    break;
                }
                Action::DropWatch { after_ms, ending } => {
                    verdict.cut = Some((Duration::from_millis(*after_ms), *ending));
                    break;
                }
            }
        }
        // A rule that has been applied as often as it was asked to stays listed: its count is the
        // proof that the fault happened.
        verdict
    }

    /// Lets the rules loose on a request: waits, refuses, or tells when its watch has to end.
    ///
    /// # Errors
    ///
    /// What a rule answers instead of carrying the request out.
    pub(crate) async fn disturb(
        &self,
        user: &User,
        request: &Attributes,
    ) -> Result<Option<(Duration, Ending)>, ApiError> {
        let verdict = self.judge(user, request);
        if !verdict.delay.is_zero() {
            tokio::time::sleep(verdict.delay).await;
        }
        verdict.refusal.map_or(Ok(verdict.cut), Err)
    }

    /// Registers a watch that begins.
    pub(crate) fn watch(&self, user: &User, request: &Attributes, cut: Option<(Duration, Ending)>) -> Hold {
        self.watches.begin(user, request, cut)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn applies(&self, user: &User, request: &Attributes) -> bool {
        let used_up = self.fault.count.is_some_and(|count| self.applied >= count);
        let fits = !used_up && self.fault.filter.covers(user, request);
        let is_watch = request.verb == "watch";
        let possible = is_watch || !matches!(self.fault.action, Action::DropWatch { .. });
        fits && possible && rand::rng().random_bool(self.fault.probability)
    }
}

fn refusal(id: u64, code: u16, retry_after_seconds: Option<u32>) -> ApiError {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = match code.as_u16() {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let retry_after_seconds = retry_after_seconds.or((code == StatusCode::TOO_MANY_REQUESTS).then_some(1));
    let message = format!("fault {id} of the sandbox answers {}", code.as_u16());
    ApiError { code, reason, message, subject: None, causes: Vec::new(), retry_after_seconds }
}

#[cfg(test)]
mod tests;
