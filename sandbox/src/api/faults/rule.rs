//! One fault rule: which requests, how often, and what happens to them.

use serde::{Deserialize, Serialize};

use super::super::{attributes::Attributes, user::User};

/// Longest delay, and longest time before a watch is ended, in milliseconds.
pub(super) const DELAY_MS_MAX: u64 = 10 * 60 * 1000;
/// Most names in one list of a filter.
const NAMES_MAX: usize = 64;
/// Longest name in a filter, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// A fault rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The requests it is about.
    #[serde(flatten)]
    pub filter: Filter,
    /// How likely it applies to each of them, above 0 and up to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// How often it applies at most; without limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What happens.
    pub action: Action,
}

fn always() -> f64 {
    1.0
}

/// Which requests; an empty list or a missing name covers all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Such as `list` and `watch`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
    /// The API group; empty for core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Plural names; `pods` covers its subresources too, `pods/status` only that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The caller, such as `system:serviceaccount:istio-system:istiod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// It is refused with this status and not carried out.
    Status {
        /// 400 to 599.
        code: u16,
        /// `Retry-After`; of a 429 one second unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_seconds: Option<u32>,
    },
    /// It waits.
    Delay {
        /// How long.
        ms: u64,
    },
    /// The watch it asks for ends early.
    DropWatch {
        /// After how long.
        #[serde(default)]
        after_ms: u64,
        /// How it ends.
        #[serde(default)]
        ending: Ending,
    },
}

/// How a watch ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ending {
    /// In order, as when its time is over.
    #[default]
    Close,
    /// With an error event that says 410: the client has to list again.
    Gone,
    /// In the middle, as when the server dies.
    Reset,
}

/// A rule with what has become of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its number.
    pub id: u64,
    /// The rule.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often it has been applied.
    pub applied: u64,
}

/// Why a rule was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// There are as many as there can be.
    #[error("there are {limit} fault rules already, the most there can be: clear some")]
    TooMany {
        /// How many.
        limit: usize,
    },
    /// A field has a value that makes no sense.
    #[error("{field} is {found}, expected {wanted}")]
    Field {
        /// Which one.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it can be.
        wanted: String,
    },
}

impl Fault {
    /// Whether the rule can apply.
    ///
    /// # Errors
    ///
    /// [`FaultError::Field`].
    pub(super) fn check(&self) -> Result<(), FaultError> {
        let wrong =
            |field, found: String, wanted: &str| Err(FaultError::Field { field, found, wanted: wanted.to_owned() });
        if !(self.probability > 0.0 && self.probability <= 1.0) {
            return wrong("probability", self.probability.to_string(), "more than 0 and at most 1");
        }
        if self.count == Some(0) {
            return wrong("count", "0".to_owned(), "at least 1");
        }
        match self.action {
            Action::Status { code, .. } if !(400..=599).contains(&code) => {
                wrong("status code", code.to_string(), "400 to 599")
            }
            Action::Delay { ms } | Action::DropWatch { after_ms: ms, .. } if ms > DELAY_MS_MAX => {
                wrong("delay", format!("{ms} ms"), &format!("at most {DELAY_MS_MAX} ms"))
            }
            _ => self.filter.check(),
        }
    }
}

impl Filter {
    fn check(&self) -> Result<(), FaultError> {
        let single = [&self.group, &self.namespace, &self.name, &self.user];
        let names = self.verbs.iter().chain(&self.resources).chain(single.into_iter().flatten());
        let count = self.verbs.len().max(self.resources.len());
        if count > NAMES_MAX {
            let wanted = format!("at most {NAMES_MAX} names");
            return Err(FaultError::Field { field: "filter", found: format!("{count} names"), wanted });
        }
        match names.map(String::len).find(|length| *length > NAME_BYTES_MAX) {
            Some(length) => {
                let wanted = format!("at most {NAME_BYTES_MAX} bytes");
                Err(FaultError::Field { field: "name", found: format!("{length} bytes long"), wanted })
            }
            None => Ok(()),
        }
    }

    /// Whether a request is meant.
    pub(super) fn covers(&self, user: &User, request: &Attributes) -> bool {
        let fits = |wanted: &Option<String>, found: Option<&str>| match wanted {
            Some(wanted) => found == Some(wanted.as_str()),
            None => true,
        };
        let verb = self.verbs.is_empty() || self.verbs.contains(&request.verb);
        let caller = fits(&self.user, Some(&user.name));
        let Some(subject) = request.resource() else {
            // Discovery and the like have nothing that a filter could name.
            return verb
                && caller
                && self.resources.is_empty()
                && self.group.is_none()
                && self.namespace.is_none()
                && self.name.is_none();
        };
        let resource = self.resources.is_empty()
            || self.resources.iter().any(|wanted| *wanted == subject.resource || *wanted == subject.qualified());
        verb && caller
            && resource
            && fits(&self.group, Some(&subject.group))
            && fits(&self.namespace, subject.namespace.as_deref())
            && fits(&self.name, subject.name.as_deref())
    }
}
