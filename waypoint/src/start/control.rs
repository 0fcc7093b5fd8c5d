//! How the control plane and the certificate authority are reached.

use std::sync::Arc;

use anyhow::Context as _;
use mesh_identity::{CaClient, CaConfig, CertSource, FakeCa, TlsPolicy};
use mesh_wire::{discovery, meltemi};
use mesh_xds::client as xds;
use prost_types::value::Kind;

use crate::config::{Config, Root, Token};

/// Who signs certificates.
pub(super) fn authority(config: &Config, tls: TlsPolicy) -> anyhow::Result<Arc<dyn CertSource>> {
    if config.fake_ca {
        tracing::warn!("FAKE_CA is on: anybody can forge the identity of any workload; never use this in production");
        let authority = FakeCa::new(config.secret_ttl, tls).context("development authority")?;
        return Ok(Arc::new(authority));
    }
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
    Ok(Arc::new(CaClient::new(CaConfig {
        address: config.ca_address.clone(),
        root,
        alt_hostname: None,
        token,
        cluster_id: config.cluster_id.clone(),
        extra_headers: Vec::new(),
        ttl: config.secret_ttl,
        impersonate: false,
        tls,
    })))
}

pub(super) fn xds_config(config: &Config) -> xds::Config {
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
    let headers = vec![
        ("clusterid".to_owned(), config.cluster_id.clone()),
        (meltemi::EXTENSIONS_HEADER.to_owned(), meltemi::PROMISES_EXTENSION.to_owned()),
    ];
    xds::Config { address: config.xds_address.clone(), root, alt_hostname: None, token, headers }
}

pub(super) fn xds_node(config: &Config) -> discovery::Node {
    let value = |text| prost_types::Value { kind: Some(Kind::StringValue(text)) };
    let fields = config.node_metadata().into_iter().map(|(name, text)| (name, value(text)));
    discovery::Node {
        id: config.node_id(),
        metadata: Some(prost_types::Struct { fields: fields.collect() }),
        ..Default::default()
    }
}
