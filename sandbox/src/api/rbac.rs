//! Role-based access control: who may do what, from the Role and ClusterRole objects and their
//! bindings.
//!
//! Decisions are made from the objects as they are at the moment of the request. Members of
//! `system:masters` (the administrator, and the sandbox's own parts) may do everything.

mod access_review;
mod rule;
pub(super) mod system_roles;

use std::sync::Arc;

use serde_json::Value;

use self::rule::Rule;
use super::{
    ApiServer,
    attributes::{Attributes, ResourceSubject, Subject},
    scale::selector_text,
    selector::Selector,
    status::ApiError,
    user::User,
};
use crate::store::{Object, ObjectKey, ResourceKey};

/// The API group of roles and bindings.
const GROUP: &str = "rbac.authorization.k8s.io";

/// What access control says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// Which binding allows it; empty when none does.
    pub(crate) reason: String,
}

/// Rules that a user has through one binding.
struct Grant {
    /// Shown in reasons.
    binding: String,
    rules: Vec<Rule>,
}

impl ApiServer {
    /// Refuses a request that no role allows.
    ///
    /// # Errors
    ///
    /// 403 with the sentence of Kubernetes.
    pub(crate) fn authorize(&self, user: &User, request: &Attributes) -> Result<(), ApiError> {
        if self.decide(user, request).allowed {
            return Ok(());
        }
        let refusal = refusal(user, request);
        tracing::info!(reason = refusal.message, "access refused");
        Err(refusal)
    }

    /// Decides about a request.
    pub(crate) fn decide(&self, user: &User, request: &Attributes) -> Decision {
        if user.is_master() {
            return Decision { allowed: true, reason: String::new() };
        }
        let namespace = request.resource().and_then(|resource| resource.namespace.as_deref());
        let allowing = |grant: &Grant| grant.rules.iter().any(|rule| rule.allows(request));
        match self.grants(user, namespace).find(allowing) {
            Some(grant) => Decision { allowed: true, reason: format!("RBAC: allowed by {}", grant.binding) },
            None => Decision { allowed: false, reason: String::new() },
        }
    }

    /// Everything a user is granted in a namespace, or without one outside of namespaces.
    fn grants(&self, user: &User, namespace: Option<&str>) -> impl Iterator<Item = Grant> {
        let everywhere = self.store.list(&key("clusterrolebindings"), None).items;
        let here = namespace.map(|namespace| self.store.list(&key("rolebindings"), Some(namespace)).items);
        let bindings = everywhere.into_iter().chain(here.into_iter().flatten());
        bindings.filter(|binding| covers(binding, user)).map(|binding| self.grant(&binding))
    }

    fn grant(&self, binding: &Object) -> Grant {
        let text = |path: &str| binding.value().pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/roleRef/kind"), text("/roleRef/name"));
        let rules = match (kind, binding.namespace()) {
            ("ClusterRole", _) => {
                let role = self.store.get(&key("clusterroles"), &ObjectKey::cluster(name));
                role.map(|role| self.cluster_role_rules(&role)).unwrap_or_default()
            }
            ("Role", Some(namespace)) => {
                let role = self.store.get(&key("roles"), &ObjectKey::namespaced(namespace, name));
                role.map(|role| rule::read(role.value())).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let bound = match binding.namespace() {
            Some(namespace) => format!("RoleBinding \"{}/{namespace}\"", binding.name()),
            None => format!("ClusterRoleBinding {:?}", binding.name()),
        };
        Grant { binding: format!("{bound} of {kind} {name:?}"), rules }
    }

    /// The rules of a role, and of those that it aggregates.
    fn cluster_role_rules(&self, role: &Arc<Object>) -> Vec<Rule> {
        let mut rules = rule::read(role.value());
        let selectors = role.value().pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        for selector in selectors.into_iter().flatten() {
            let Ok(selector) = Selector::parse(Some(&selector_text(selector)), None, &[]) else { continue };
            let others = self.store.list(&key("clusterroles"), None).items;
            let others = others.iter().filter(|other| other.name() != role.name() && selector.matches(other.value()));
            rules.extend(others.flat_map(|other| rule::read(other.value())));
        }
        rules
    }
}

/// Whether a binding has a user among its subjects.
fn covers(binding: &Object, user: &User) -> bool {
    let subjects = binding.value().get("subjects").and_then(Value::as_array).into_iter().flatten();
    let mut subjects = subjects.filter(|subject| subject.is_object());
    subjects.any(|subject| {
        let text = |field: &str| subject.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text("name").unwrap_or_default();
        match text("kind") {
            Some("User") => user.name == name,
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some("ServiceAccount") => {
                // A binding's own namespace counts where a subject names none.
                let namespace = text("namespace").or(binding.namespace()).unwrap_or_default();
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account == Some((namespace, name))
            }
            _ => false,
        }
    })
}

fn refusal(user: &User, request: &Attributes) -> ApiError {
    let verb = &request.verb;
    match &request.subject {
        Subject::Path(path) => {
            ApiError::forbidden(format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name))
        }
        Subject::Resource(subject) => {
            let ResourceSubject { group, resource, namespace, name, .. } = subject;
            let what = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            let named = name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
            let place = match namespace {
                Some(namespace) => format!("in the namespace {namespace:?}"),
                None => "at the cluster scope".to_owned(),
            };
            let message = format!(
                "{what}{named} is forbidden: User {:?} cannot {verb} resource {:?} in API group {group:?} {place}",
                user.name,
                subject.qualified()
            );
            ApiError::forbidden(message).about(group, resource, name.as_deref().unwrap_or_default())
        }
    }
}

fn key(plural: &str) -> ResourceKey {
    ResourceKey::new(GROUP, plural)
}
