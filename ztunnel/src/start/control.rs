//! How the control plane and the certificate authority are reached.

use std::sync::Arc;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use mesh_core::{Identity, TrustDomain};
use mesh_identity::{CaClient, CaConfig, CertError, CertManager, CertSource, FakeCa, TlsPolicy, WorkloadCert};
use mesh_wire::{discovery, meltemi};
use mesh_xds::client as xds;

use crate::config::{Config, Mode, Root, Token};
use crate::state::IdentityWatcher;

/// Who signs certificates.
pub(super) fn authority(config: &Config, tls: TlsPolicy) -> anyhow::Result<Arc<dyn CertSource>> {
    if config.fake_ca {
        tracing::warn!("FAKE_CA is on: anybody can forge the identity of any workload; never use this in production");
        let authority = FakeCa::new(config.secret_ttl, tls).context("development authority")?;
        return Ok(Arc::new(authority));
    }
    Ok(match &config.ca_address {
        Some(address) => Arc::new(CaClient::new(ca_config(config, address, tls))),
        None => Arc::new(NoAuthority),
    })
}

/// Without a proxy nobody needs a certificate.
struct NoAuthority;

impl CertSource for NoAuthority {
    fn issue(&self, _: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        let error = CertError::Unreachable { address: String::new(), reason: "CA_ADDRESS is empty".to_owned() };
        std::future::ready(Err(error)).boxed()
    }
}

/// Warms and forgets certificates as workloads come and go.
pub(super) struct Certificates {
    certs: CertManager,
    /// The only identity that may be asked for; `None`: any of this node.
    only: Option<Identity>,
    /// Whether there is a data path that could use one.
    proxies: bool,
}

impl Certificates {
    pub(super) fn new(config: &Config, certs: CertManager) -> anyhow::Result<Self> {
        let only = match &config.mode {
            Mode::Shared => None,
            Mode::Dedicated(info) => {
                let domain = TrustDomain::new(config.own.trust_domain.as_str()).context("TRUST_DOMAIN")?;
                Some(Identity::new(domain, info.namespace.as_str(), info.service_account.as_str()))
            }
        };
        Ok(Self { certs, only, proxies: config.enable_proxy })
    }

    fn concerns(&self, identity: &Identity) -> bool {
        self.proxies && self.only.as_ref().is_none_or(|only| only == identity)
    }
}

impl IdentityWatcher for Certificates {
    fn needed(&self, identity: &Identity) {
        if self.concerns(identity) {
            self.certs.prefetch(identity);
        }
    }

    fn unneeded(&self, identity: &Identity) {
        if self.concerns(identity) {
            self.certs.forget(identity);
        }
    }
}

pub(super) fn xds_config(config: &Config, address: &str) -> xds::Config {
    let root = match config.xds_root.clone() {
        Root::File(path) => xds::RootSource::File(path),
        Root::System => xds::RootSource::System,
        Root::Inline(pem) => xds::RootSource::Inline(pem),
    };
    let token = match config.token.clone() {
        Token::File(path) => xds::TokenSource::File(path),
        Token::Literal(token) => xds::TokenSource::Literal(token),
        Token::None => xds::TokenSource::None,
    };
    let mut headers = vec![
        ("clusterid".to_owned(), config.cluster_id.clone()),
        (meltemi::EXTENSIONS_HEADER.to_owned(), EXTENSIONS.join(",")),
    ];
    headers.extend(config.xds_headers.iter().cloned());
    xds::Config { address: address.to_owned(), root, alt_hostname: config.alt_xds_hostname.clone(), token, headers }
}

fn ca_config(config: &Config, address: &str, tls: TlsPolicy) -> CaConfig {
    let root = match config.ca_root.clone() {
        Root::File(path) => mesh_identity::RootSource::File(path),
        Root::System => mesh_identity::RootSource::System,
        Root::Inline(pem) => mesh_identity::RootSource::Inline(pem),
    };
    let token = match config.token.clone() {
        Token::File(path) => mesh_identity::TokenSource::File(path),
        Token::Literal(token) => mesh_identity::TokenSource::Literal(token),
        Token::None => mesh_identity::TokenSource::None,
    };
    CaConfig {
        address: address.to_owned(),
        root,
        alt_hostname: config.alt_ca_hostname.clone(),
        token,
        cluster_id: config.cluster_id.clone(),
        extra_headers: config.ca_headers.clone(),
        ttl: config.secret_ttl,
        impersonate: config.mode == Mode::Shared,
        tls,
    }
}

pub(super) fn xds_node(config: &Config) -> discovery::Node {
    let fields = config.node_metadata().into_iter().map(|(name, value)| (name, to_proto(value)));
    discovery::Node {
        id: config.node_id(),
        metadata: Some(prost_types::Struct { fields: fields.collect() }),
        ..Default::default()
    }
}

/// JSON as its protobuf twin.
fn to_proto(value: serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(to_proto).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields.into_iter().map(|(name, value)| (name, to_proto(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// What we understand of our own controller; others ignore it.
const EXTENSIONS: [&str; 2] = [meltemi::PROMISES_EXTENSION, meltemi::WAYPOINT_REQUIRED_EXTENSION];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &[(&str, &str)]) -> Config {
        let all = [("NODE_NAME", "n")].into_iter().chain(more.iter().copied());
        Config::from_env(&all.collect()).unwrap()
    }

    const DEDICATED: &[(&str, &str)] = &[("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "shop/web-1/web")];

    #[test]
    fn only_a_node_proxy_asks_on_behalf_of_others() {
        let impersonates = |config: &Config| ca_config(config, "https://ca", TlsPolicy::default()).impersonate;
        assert!(impersonates(&config(&[])));
        assert!(!impersonates(&config(DEDICATED)));
    }

    #[tokio::test]
    async fn a_dedicated_proxy_wants_its_own_certificate_only() {
        let identity = |text: &str| text.parse::<Identity>().unwrap();
        let (own, other) =
            (identity("spiffe://cluster.local/ns/shop/sa/web"), identity("spiffe://cluster.local/ns/a/sa/b"));
        let certs = || CertManager::spawn(Arc::new(NoAuthority), Arc::new(mesh_identity::SystemClock));
        let dedicated = Certificates::new(&config(DEDICATED), certs()).unwrap();
        assert!(dedicated.concerns(&own) && !dedicated.concerns(&other));
        let shared = Certificates::new(&config(&[]), certs()).unwrap();
        assert!(shared.concerns(&own) && shared.concerns(&other));
    }

    #[test]
    fn the_controller_is_told_what_we_understand() {
        let headers = xds_config(&config(&[("XDS_HEADER_x-a", "b")]), "https://x").headers;
        let text = |(name, value): &(String, String)| format!("{name}={value}");
        let headers: Vec<_> = headers.iter().map(text).collect();
        assert_eq!(headers, ["clusterid=Kubernetes", "x-meltemi-extensions=promises,waypoint-required", "x-a=b"]);
    }
}
