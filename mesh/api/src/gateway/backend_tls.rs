//! BackendTLSPolicy: how TLS is spoken to services.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http_filter::PRECISE_HOST;
use super::{LocalObjectReference, PolicyStatus, PolicyTargetReference};

/// Has TLS spoken to services, and says whom to trust.
///
/// # Source
/// `gateway.networking.k8s.io/v1 BackendTLSPolicy`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "BackendTLSPolicy",
    plural = "backendtlspolicies",
    doc = "How TLS is spoken to services.",
    namespaced,
    status = "PolicyStatus",
    shortname = "btlspolicy",
    category = "gateway-api",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["targetRefs", "validation"]))]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTLSPolicySpec {
    /// Services that the policy is for.
    #[schemars(
        length(min = 1, max = 16),
        extend(
            "x-kubernetes-list-type" = "atomic",
            "x-kubernetes-validations" = [
                {
                    "rule": "self.all(p, has(p.sectionName) || self.exists_one(o, o.group == p.group && o.kind == p.kind && o.name == p.name))",
                    "message": "a target that is named more than once must be named with sectionName each time"
                },
                {
                    "rule": "self.all(p, self.exists_one(o, o.group == p.group && o.kind == p.kind && o.name == p.name && (has(o.sectionName) ? o.sectionName : '') == (has(p.sectionName) ? p.sectionName : '')))",
                    "message": "a target must not be named twice with the same sectionName"
                }
            ]
        )
    )]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Whom to trust.
    pub validation: BackendTlsValidation,
    /// Settings of the implementation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub options: BTreeMap<String, String>,
}

/// Whom to trust as a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["hostname"],
    "x-kubernetes-validations" = [{
        "rule": "(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0) != (has(self.wellKnownCACertificates) && self.wellKnownCACertificates != '')",
        "message": "exactly one of caCertificateRefs and wellKnownCACertificates must be given"
    }]
))]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// Objects with the authorities that are trusted: ConfigMaps with the key `ca.crt`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// Authorities that are trusted, in place of `caCertificateRefs`: `System`.
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub well_known_ca_certificates: Option<String>,
    /// Server name that is asked for, and without `subjectAltNames` the name that the certificate must have.
    #[schemars(length(min = 1, max = 253), regex(pattern = PRECISE_HOST))]
    pub hostname: String,
    /// Names of which the certificate must have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A name in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["type"],
    "x-kubernetes-validations" = [
        {
            "rule": "(self.type == 'Hostname') == (has(self.hostname) && self.hostname != '')",
            "message": "hostname must be given for type Hostname, and for no other"
        },
        {
            "rule": "(self.type == 'URI') == (has(self.uri) && self.uri != '')",
            "message": "uri must be given for type URI, and for no other"
        }
    ]
))]
#[serde(default)]
pub struct SubjectAltName {
    /// Which sort of name.
    #[serde(rename = "type")]
    pub type_: SubjectAltNameType,
    /// The host name, also a wildcard.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = super::HOST_NAME))]
    pub hostname: Option<String>,
    /// The URI, for example a SPIFFE ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = URI))]
    pub uri: Option<String>,
}

/// A sort of names in certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum SubjectAltNameType {
    /// A DNS name.
    #[default]
    Hostname,
    /// A URI.
    #[serde(rename = "URI")]
    Uri,
}

/// An absolute URI.
const URI: &str = r"^[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]+[^#]*$";
