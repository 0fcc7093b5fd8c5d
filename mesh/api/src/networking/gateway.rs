//! Gateway, the classic kind: what the proxies of an edge deployment listen to.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Port;
use crate::status::MeshStatus;

/// Ports, hosts and certificates of gateway pods that the user deploys. Not the kind of the Gateway API, which is
/// preferred.
///
/// # Source
/// `networking.istio.io/v1 Gateway`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Gateway",
    doc = "Ports, hosts and certificates of gateway pods that the user deploys.",
    namespaced,
    status = "MeshStatus",
    shortname = "gw",
    category = "istio-io",
    category = "networking-istio-io"
)]
#[serde(default)]
pub struct GatewaySpec {
    /// What the gateway listens to. Needed, but that is left to the webhook: the control plane proves by an object without
    /// servers that its webhook is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4096))]
    pub servers: Vec<Server>,
    /// Labels of the gateway's pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub selector: BTreeMap<String, String>,
}

/// One port of a gateway and the hosts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["port", "hosts"], "x-kubernetes-validations" = [{
    "rule": "!has(self.port.protocol) || !self.port.protocol.matches('^(?i)(https|tls)$') || has(self.tls)",
    "message": "tls is required for protocol HTTPS and TLS"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// The port.
    pub port: Port,
    /// Address or socket to listen on. Absent: every address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// Hosts, as `host` or `namespace/host`; `*` stands for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 512)))]
    pub hosts: Vec<String>,
    /// Certificates and mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Not honoured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_endpoint: Option<String>,
    /// Name of the server, for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.mode) || self.mode != 'ISTIO_MUTUAL' || (!has(self.serverCertificate) && !has(self.privateKey) && !has(self.caCertificates) && !has(self.credentialName) && !has(self.credentialNames) && !has(self.tlsCertificates))",
        "message": "tls mode ISTIO_MUTUAL takes the mesh's own certificates: give none"
    },
    {
        "rule": "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) + (has(self.serverCertificate) ? 1 : 0) <= 1",
        "message": "credentialName, credentialNames, tlsCertificates and serverCertificate exclude each other: give one of them"
    },
    {
        "rule": "!has(self.mode) || !(self.mode in ['SIMPLE', 'MUTUAL', 'OPTIONAL_MUTUAL']) || has(self.credentialName) || has(self.credentialNames) || has(self.tlsCertificates) || (has(self.serverCertificate) && has(self.privateKey))",
        "message": "tls mode SIMPLE, MUTUAL and OPTIONAL_MUTUAL need a certificate: give credentialName, or serverCertificate and privateKey"
    },
    {
        "rule": "!has(self.mode) || !(self.mode in ['MUTUAL', 'OPTIONAL_MUTUAL']) || has(self.credentialName) || has(self.credentialNames) || has(self.tlsCertificates) || has(self.caCertificates) || has(self.caCertCredentialName)",
        "message": "tls mode MUTUAL and OPTIONAL_MUTUAL need authorities to trust: give caCertificates or credentialName"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    /// Whether requests without TLS are redirected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<bool>,
    /// What is done with TLS. Absent: PASSTHROUGH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ServerTlsMode>,
    /// File with the certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<String>,
    /// File with the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// File with the authorities that clients are checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// File with revoked certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_crl: Option<String>,
    /// Several certificates, for example RSA and ECDSA.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2))]
    pub tls_certificates: Vec<ServerCertificate>,
    /// Secret with the certificate, in the gateway pods' namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
    /// Several Secrets, for example RSA and ECDSA.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2))]
    pub credential_names: Vec<String>,
    /// Secret with the authorities that clients are checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert_credential_name: Option<String>,
    /// Names of which a client certificate must carry one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 hashes of the keys of accepted client certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub verify_certificate_spki: Vec<String>,
    /// Hex SHA-256 hashes of accepted client certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub verify_certificate_hash: Vec<String>,
    /// Oldest version that is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_protocol_version: Option<TlsVersion>,
    /// Newest version that is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_protocol_version: Option<TlsVersion>,
    /// Ciphers that are spoken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub cipher_suites: Vec<String>,
}

/// A certificate in files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerCertificate {
    /// File with the certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<String>,
    /// File with the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// File with the authorities that clients are checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
}

/// What is done with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// It goes through, routed by server name.
    #[default]
    Passthrough,
    /// It ends here.
    Simple,
    /// It ends here, and clients show certificates.
    Mutual,
    /// It goes through to the service that the server name tells.
    AutoPassthrough,
    /// It ends here, and clients show mesh certificates.
    IstioMutual,
    /// It ends here, and clients may show certificates.
    OptionalMutual,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum TlsVersion {
    /// The proxy's default.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
