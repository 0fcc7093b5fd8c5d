//! TLS towards endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a client towards endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.mode) || self.mode != 'MUTUAL' || has(self.credentialName) || (has(self.clientCertificate) && has(self.privateKey))",
        "message": "tls mode MUTUAL needs credentialName, or clientCertificate and privateKey"
    },
    {
        "rule": "!has(self.mode) || self.mode != 'ISTIO_MUTUAL' || (!has(self.credentialName) && !has(self.clientCertificate) && !has(self.privateKey) && !has(self.caCertificates) && !has(self.caCrl))",
        "message": "tls mode ISTIO_MUTUAL takes the mesh's own certificates: give none"
    },
    {
        "rule": "!has(self.credentialName) || (!has(self.clientCertificate) && !has(self.privateKey) && !has(self.caCertificates) && !has(self.caCrl))",
        "message": "credentialName excludes clientCertificate, privateKey, caCertificates and caCrl"
    },
    {
        "rule": "!has(self.insecureSkipVerify) || !self.insecureSkipVerify || (!has(self.caCertificates) && !has(self.subjectAltNames))",
        "message": "insecureSkipVerify excludes caCertificates and subjectAltNames"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// Whether and how. Absent: DISABLE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientTlsMode>,
    /// File with the client's certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// File with the client's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// File with the authorities that are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// Secret with certificates, in the proxy's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
    /// Names of which the server certificate must carry one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub subject_alt_names: Vec<String>,
    /// Server name to ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Whether the server certificate is taken unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// File with revoked certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_crl: Option<String>,
}

/// Whether and how TLS is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// No TLS.
    #[default]
    Disable,
    /// The server shows a certificate.
    Simple,
    /// Both show certificates.
    Mutual,
    /// Both show mesh certificates. Towards captured workloads the tunnel does it.
    IstioMutual,
}
