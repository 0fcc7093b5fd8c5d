//! Filters of HTTP and gRPC routes: what is done to requests and answers on their way.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{BackendObjectReference, LocalObjectReference};

/// One thing that is done to requests or answers of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["type"],
    "x-kubernetes-validations" = [
        {
            "rule": "(self.type == 'RequestHeaderModifier') == has(self.requestHeaderModifier)",
            "message": "requestHeaderModifier must be given for type RequestHeaderModifier, and for no other"
        },
        {
            "rule": "(self.type == 'ResponseHeaderModifier') == has(self.responseHeaderModifier)",
            "message": "responseHeaderModifier must be given for type ResponseHeaderModifier, and for no other"
        },
        {
            "rule": "(self.type == 'RequestMirror') == has(self.requestMirror)",
            "message": "requestMirror must be given for type RequestMirror, and for no other"
        },
        {
            "rule": "(self.type == 'RequestRedirect') == has(self.requestRedirect)",
            "message": "requestRedirect must be given for type RequestRedirect, and for no other"
        },
        {
            "rule": "(self.type == 'URLRewrite') == has(self.urlRewrite)",
            "message": "urlRewrite must be given for type URLRewrite, and for no other"
        },
        {
            "rule": "(self.type == 'CORS') == has(self.cors)",
            "message": "cors must be given for type CORS, and for no other"
        },
        {
            "rule": "(self.type == 'ExternalAuth') == has(self.externalAuth)",
            "message": "externalAuth must be given for type ExternalAuth, and for no other"
        },
        {
            "rule": "(self.type == 'ExtensionRef') == has(self.extensionRef)",
            "message": "extensionRef must be given for type ExtensionRef, and for no other"
        }
    ]
))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteFilter {
    /// What is done.
    #[serde(rename = "type")]
    pub type_: HttpRouteFilterType,
    /// Changes headers of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderFilter>,
    /// Changes headers of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderFilter>,
    /// Sends copies of requests to another backend, whose answers are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirrorFilter>,
    /// Answers with a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirectFilter>,
    /// Changes host and path of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewriteFilter>,
    /// Answers and marks requests across origins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsFilter>,
    /// Asks a service whether requests may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<ExternalAuthFilter>,
    /// A filter of the implementation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectReference>,
}

/// What a filter of an HTTPRoute does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum HttpRouteFilterType {
    /// Changes headers of requests.
    RequestHeaderModifier,
    /// Changes headers of answers.
    ResponseHeaderModifier,
    /// Copies requests.
    RequestMirror,
    /// Answers with a redirect.
    RequestRedirect,
    /// Changes host and path of requests.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// A filter of the implementation.
    ExtensionRef,
    /// Requests across origins.
    #[serde(rename = "CORS")]
    Cors,
    /// Asks a service.
    ExternalAuth,
    /// None that this version knows: definitions of the cluster may be newer.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Changes headers: what is removed, then what is set, then what is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeaderFilter {
    /// Headers that get exactly this value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub set: Vec<HttpHeader>,
    /// Headers that get this value besides those that they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub add: Vec<HttpHeader>,
    /// Headers that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub remove: Vec<String>,
}

/// A header and a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "value"]))]
#[serde(default)]
pub struct HttpHeader {
    /// Name, whose case matters not.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// Value, taken literally.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// Sends copies of requests to another backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["backendRef"],
    "x-kubernetes-validations" = [{
        "rule": "!(has(self.percent) && has(self.fraction))",
        "message": "percent and fraction exclude each other"
    }]
))]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMirrorFilter {
    /// Where the copies go.
    pub backend_ref: BackendObjectReference,
    /// How many of a hundred requests are copied. Absent, with `fraction` absent too: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// Which fraction of requests is copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

impl RequestMirrorFilter {
    /// How many of a million requests are copied.
    pub fn per_million(&self) -> u32 {
        match (&self.fraction, self.percent) {
            (Some(fraction), _) => {
                let part = u64::from(fraction.numerator) * 1_000_000 / u64::from(fraction.denominator().max(1));
                u32::try_from(part).unwrap_or(u32::MAX).min(1_000_000)
            }
            (None, Some(percent)) => percent.min(100) * 10_000,
            (None, None) => 1_000_000,
        }
    }
}

/// A part of a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["numerator"],
    "x-kubernetes-validations" = [{
        "rule": "self.numerator <= (has(self.denominator) ? self.denominator : 100)",
        "message": "numerator must not be above denominator"
    }]
))]
#[serde(default)]
pub struct Fraction {
    /// The part.
    #[schemars(range(max = 2_147_483_647))]
    pub numerator: u32,
    /// The whole. Absent: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub denominator: Option<u32>,
}

impl Fraction {
    /// The whole, the default filled in.
    pub fn denominator(&self) -> u32 {
        self.denominator.unwrap_or(100)
    }
}

/// Answers with a redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirectFilter {
    /// Scheme of the location. Absent: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["http", "https"]))]
    pub scheme: Option<String>,
    /// Host of the location. Absent: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = PRECISE_HOST))]
    pub hostname: Option<String>,
    /// Path of the location. Absent: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathModifier>,
    /// Port of the location. Absent: that of `scheme` if given, else that of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
    /// Status of the answer. Absent: 302.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status_code: Option<u32>,
}

/// Changes host and path of requests before they are sent on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UrlRewriteFilter {
    /// Host that the backend sees. Absent: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = PRECISE_HOST))]
    pub hostname: Option<String>,
    /// Path that the backend sees. Absent: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathModifier>,
}

/// How a path is made out of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["type"],
    "x-kubernetes-validations" = [
        {
            "rule": "(self.type == 'ReplaceFullPath') == has(self.replaceFullPath)",
            "message": "replaceFullPath must be given for type ReplaceFullPath, and for no other"
        },
        {
            "rule": "(self.type == 'ReplacePrefixMatch') == has(self.replacePrefixMatch)",
            "message": "replacePrefixMatch must be given for type ReplacePrefixMatch, and for no other"
        }
    ]
))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPathModifier {
    /// What is replaced.
    #[serde(rename = "type")]
    pub type_: HttpPathModifierType,
    /// The new path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub replace_full_path: Option<String>,
    /// What stands in place of the prefix that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub replace_prefix_match: Option<String>,
}

/// What of a path is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum HttpPathModifierType {
    /// All of it.
    ReplaceFullPath,
    /// The prefix that the rule's match names.
    ReplacePrefixMatch,
    /// Nothing that this version knows: definitions of the cluster may be newer.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Which requests across origins browsers may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsFilter {
    /// Origins, `scheme://host[:port]`; the host may begin with `*.`; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = ORIGIN)),
        extend(
            "x-kubernetes-list-type" = "set",
            "x-kubernetes-validations" = [{
                "rule": "!('*' in self) || size(self) == 1",
                "message": "allowOrigins must not name others besides `*`"
            }]
        )
    )]
    pub allow_origins: Vec<String>,
    /// Whether credentials may be sent. Absent: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "cors_methods")]
    pub allow_methods: Vec<String>,
    /// Headers of requests; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = HEADER_NAME)),
        extend(
            "x-kubernetes-list-type" = "set",
            "x-kubernetes-validations" = [{
                "rule": "!('*' in self) || size(self) == 1",
                "message": "allowHeaders must not name others besides `*`"
            }]
        )
    )]
    pub allow_headers: Vec<String>,
    /// Headers of answers that scripts may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = HEADER_NAME)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub expose_headers: Vec<String>,
    /// Seconds for which browsers remember the answer to a preflight. Absent: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub max_age: Option<u32>,
}

/// Asks a service whether requests may pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["protocol", "backendRef"],
    "x-kubernetes-validations" = [
        {"rule": "self.protocol == 'GRPC' || !has(self.grpc)", "message": "grpc is only for protocol GRPC"},
        {"rule": "self.protocol == 'HTTP' || !has(self.http)", "message": "http is only for protocol HTTP"}
    ]
))]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalAuthFilter {
    /// What the service speaks.
    pub protocol: ExternalAuthProtocol,
    /// The service.
    pub backend_ref: BackendObjectReference,
    /// Settings for protocol GRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcAuthConfig>,
    /// Settings for protocol HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAuthConfig>,
    /// Whether the service gets bodies of requests. Absent: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBodyConfig>,
}

/// What a service that is asked speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ExternalAuthProtocol {
    /// The request itself, without body.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// The ext_authz protocol.
    #[serde(rename = "GRPC")]
    Grpc,
}

/// What a service that is asked by gRPC gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcAuthConfig {
    /// Headers of requests that it gets. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_headers: Vec<String>,
}

/// What a service that is asked by HTTP gets and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAuthConfig {
    /// Put before the path of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Headers of requests that it gets besides those that it always gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_headers: Vec<String>,
    /// Headers of its answer that the request gets. Empty: all but Authority, Status, Content-Length and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_response_headers: Vec<String>,
}

/// How much of a body is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardBodyConfig {
    /// Bytes at most; requests with larger bodies are refused. Absent or 0: no body is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub max_size: Option<u32>,
}

fn cors_methods(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 9,
        "items": {
            "type": "string",
            "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]
        },
        "x-kubernetes-list-type": "set",
        "x-kubernetes-validations": [{
            "rule": "!('*' in self) || size(self) == 1",
            "message": "allowMethods must not name others besides `*`"
        }]
    })
}

/// A name of a header.
pub(super) const HEADER_NAME: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
/// A host name without a wildcard.
pub(super) const PRECISE_HOST: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `*`, or `scheme://host[:port]`.
const ORIGIN: &str = r"^(\*|[A-Za-z][A-Za-z0-9+.\-]*://(\*|(\*\.)?[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*)(:([0-9]{1,5}|\*))?)$";
