//! What routes of every kind have in common: status, and sessions that stick to an endpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference;
use super::{DOMAIN_PATH, ParentReference};
use crate::{duration::DurationText, status::Condition};

/// What the controllers say of a route: one entry a parent and controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["parents"]))]
#[serde(default)]
pub struct RouteStatus {
    /// Whether and how the route is attached to each parent.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub parents: Vec<RouteParentStatus>,
}

/// What a controller says of a route at one parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["parentRef", "controllerName", "conditions"]))]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The parent as the route names it.
    pub parent_ref: ParentReference,
    /// Which controller says so, `domain/path`.
    #[schemars(length(min = 1, max = 253), regex(pattern = DOMAIN_PATH))]
    pub controller_name: String,
    /// One entry a condition type: `Accepted`, `ResolvedRefs` and more.
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// What the controllers say of a policy: one entry an object that it reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["ancestors"]))]
#[serde(default)]
pub struct PolicyStatus {
    /// Objects that the policy has an effect on.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// What a controller says of a policy at one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["ancestorRef", "controllerName", "conditions"]))]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyAncestorStatus {
    /// The object.
    pub ancestor_ref: ParentReference,
    /// Which controller says so, `domain/path`.
    #[schemars(length(min = 1, max = 253), regex(pattern = DOMAIN_PATH))]
    pub controller_name: String,
    /// One entry a condition type: `Accepted`, `ResolvedRefs` and more.
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Sends the requests of a session to the endpoint that answered its first one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.cookieConfig) || !has(self.cookieConfig.lifetimeType) || self.cookieConfig.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
        "message": "a Permanent cookie must have an absoluteTimeout"
    },
    {
        "rule": "!has(self.cookieConfig) || !has(self.type) || self.type != 'Header'",
        "message": "cookieConfig is only for type Cookie"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPersistence {
    /// Name of the cookie or header. Absent: the implementation chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub session_name: Option<String>,
    /// How long a session lasts at most. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reference::duration")]
    pub absolute_timeout: Option<DurationText>,
    /// How long a session lasts without requests. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reference::duration")]
    pub idle_timeout: Option<DurationText>,
    /// Where the session's name is kept. Absent: `Cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    pub type_: Option<SessionPersistenceType>,
    /// Settings of the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// Where a session's name is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum SessionPersistenceType {
    /// In a cookie.
    #[default]
    Cookie,
    /// In a header that the client repeats.
    Header,
}

/// Settings of the cookie of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieConfig {
    /// Whether the cookie outlives the client. Absent: `Session`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_type: Option<CookieLifetime>,
}

/// How long a client keeps a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum CookieLifetime {
    /// As long as the session's absolute timeout.
    Permanent,
    /// Until the client ends.
    #[default]
    Session,
}
