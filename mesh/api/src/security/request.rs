//! RequestAuthentication: which end-user tokens are accepted.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetRef, WorkloadSelector};
use crate::{duration::DurationText, status::MeshStatus};

/// Says which JSON Web Tokens waypoints and gateways accept, and what they hand on of them. Node proxies do not read it.
///
/// # Source
/// `security.istio.io/v1 RequestAuthentication`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "RequestAuthentication",
    doc = "Which end-user tokens waypoints and gateways accept.",
    namespaced,
    status = "MeshStatus",
    shortname = "ra",
    category = "istio-io",
    category = "security-istio-io",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("x-kubernetes-validations" = super::attach_once()))]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthenticationSpec {
    /// Gateways it applies to, by the labels of their pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Deprecated single form of `targetRefs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Waypoints, services or gateways it applies to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Accepted tokens; any may match. A request with an invalid token is refused, one without a token is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub jwt_rules: Vec<JwtRule>,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["issuer"], "x-kubernetes-validations" = [{
    "rule": "!has(self.jwks) || !has(self.jwksUri)",
    "message": "jwks and jwksUri exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    /// Value that the token's `iss` must have.
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: String,
    /// Values of which the token's `aud` must hold one. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1)))]
    pub audiences: Vec<String>,
    /// Where the issuer's public keys are fetched. Absent with `jwks`: found through the issuer's discovery document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('http://') || self.startsWith('https://')",
        "message": "jwksUri must be an http or https URL"
    }]))]
    pub jwks_uri: Option<String>,
    /// Older spelling of `jwksUri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "jwks_uri")]
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('http://') || self.startsWith('https://')",
        "message": "jwksUri must be an http or https URL"
    }]))]
    pub jwks_uri_old: Option<String>,
    /// The issuer's public keys themselves, a JSON Web Key Set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Headers that may hold the token. Absent: `Authorization: Bearer`, then the query parameter `access_token`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may hold the token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub from_params: Vec<String>,
    /// Cookies that may hold the token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub from_cookies: Vec<String>,
    /// Header that hands the token's payload to the service, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub output_payload_to_header: Option<String>,
    /// Headers that hand single claims to the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the service gets the token too. Absent: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_original_token: Option<bool>,
    /// Longest fetch of the keys. Absent: 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = crate::duration::at_least_1ms("timeout")))]
    pub timeout: Option<DurationText>,
    /// Claims that hold a list of words in one text, beside `scope`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub space_delimited_claims: Vec<String>,
}

impl JwtRule {
    /// Where the keys are fetched, in whichever spelling it was written.
    pub fn key_url(&self) -> Option<&str> {
        self.jwks_uri.as_deref().or(self.jwks_uri_old.as_deref())
    }
}

/// A header that may hold a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct JwtHeader {
    /// Name of the header.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Text before the token, with its blank: `Bearer `.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub prefix: Option<String>,
}

/// A header that hands a claim to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["header", "claim"]))]
#[serde(default)]
pub struct ClaimToHeader {
    /// Name of the header.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub header: String,
    /// Name of the claim; `.` goes into nested claims.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
}
