//! The part of the mesh configuration that waypoints and gateways are told.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::duration::DurationText;
use mesh_wire::l7::settings::Normalization;
use serde::Deserialize;
use serde_json::Value;

use super::idle::{self, Idle};
use super::mesh::{Fields, MeshConfigError};
use crate::world::{AccessLog, L7Settings};

/// Takes its fields out, and tells what of `defaultConfig` nobody reads.
///
/// # Errors
/// A value cannot be used.
pub(super) fn settings(mesh: &mut Fields) -> Result<(L7Settings, Vec<Idle>), MeshConfigError> {
    let plain = L7Settings::default();
    let (proxy, mut idle) = proxy(mesh)?;
    let access_log = access_log(mesh, &mut idle)?;
    let path: PathNormalization = mesh.take("pathNormalization")?;
    let upgrade: String = mesh.take("h2UpgradePolicy")?;
    let headers = proxy.proxy_headers.unwrap_or_default();
    let topology = proxy.gateway_topology.unwrap_or_default();
    let drain = proxy.termination_drain_duration.map(|text| time("defaultConfig.terminationDrainDuration", &text));
    let server = headers.server.unwrap_or_default();
    let server = match (server.disabled, server.value) {
        (true, _) => "".into(),
        (false, Some(value)) if !value.is_empty() => value.into(),
        (false, _) => plain.server_header.clone(),
    };
    let settings = L7Settings {
        normalization: path.read()?,
        connect_timeout: duration(mesh, "connectTimeout", plain.connect_timeout)?,
        detection_timeout: duration(mesh, "protocolDetectionTimeout", plain.detection_timeout)?,
        hbone_idle_timeout: duration(mesh, "hboneIdleTimeout", plain.hbone_idle_timeout)?,
        default_retry: mesh.take("defaultHttpRetryPolicy")?,
        default_policy: mesh.take("defaultTrafficPolicy")?,
        locality: mesh.take("localityLbSetting")?,
        h2_upgrade: upgrade == "UPGRADE",
        tcp_keepalive: mesh.take("tcpKeepalive")?,
        virtual_services_export_to: mesh.take("defaultVirtualServiceExportTo")?,
        rules_export_to: mesh.take("defaultDestinationRuleExportTo")?,
        server_header: server,
        trusted_proxies: topology.num_trusted_proxies,
        proxy_protocol: topology.proxy_protocol.is_some(),
        http10: proxy.proxy_metadata.get(HTTP10).is_some_and(|text| text == "1" || text == "true"),
        drain: drain.transpose()?.unwrap_or(plain.drain),
        no_debug_headers: headers.envoy_debug_headers.unwrap_or_default().disabled,
        no_attempt_count: headers.attempt_count.unwrap_or_default().disabled,
        no_request_id: headers.request_id.unwrap_or_default().disabled,
        forward_host: headers.x_forwarded_host.unwrap_or_default().enabled,
        forward_port: headers.x_forwarded_port.unwrap_or_default().enabled,
        mesh_grants: mesh.take("requireReferenceGrantsInMesh")?,
        proxy_metadata: proxy.proxy_metadata,
        access_log,
        log_json: log_json(mesh)?,
    };
    Ok((settings, idle))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PathNormalization {
    normalization: String,
}

impl PathNormalization {
    fn read(&self) -> Result<Normalization, MeshConfigError> {
        Ok(match self.normalization.as_str() {
            "" | "DEFAULT" | "BASE" => Normalization::Base,
            "NONE" => Normalization::None,
            "MERGE_SLASHES" => Normalization::MergeSlashes,
            "DECODE_AND_MERGE_SLASHES" => Normalization::DecodeAndMergeSlashes,
            other => {
                let reason = format!(
                    "pathNormalization.normalization: {other:?} is unknown, expected DEFAULT, BASE, NONE, MERGE_SLASHES \
                     or DECODE_AND_MERGE_SLASHES"
                );
                return Err(MeshConfigError { reason });
            }
        })
    }
}

/// `defaultConfig`, as far as it is read here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Proxy {
    gateway_topology: Option<Topology>,
    proxy_headers: Option<Headers>,
    termination_drain_duration: Option<DurationText>,
    proxy_metadata: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Topology {
    num_trusted_proxies: u32,
    proxy_protocol: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Headers {
    server: Option<Server>,
    attempt_count: Option<Switch>,
    request_id: Option<Switch>,
    envoy_debug_headers: Option<Switch>,
    x_forwarded_host: Option<Switch>,
    x_forwarded_port: Option<Switch>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Server {
    disabled: bool,
    value: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Switch {
    disabled: bool,
    enabled: bool,
}

/// Reads `defaultConfig`, and tells which of its fields have no effect.
fn proxy(mesh: &mut Fields) -> Result<(Proxy, Vec<Idle>), MeshConfigError> {
    let written: BTreeMap<String, Value> = mesh.take("defaultConfig")?;
    let unread = written.keys().filter(|field| !READ.contains(&field.as_str()));
    let idle = unread.map(|field| idle::proxy(field)).collect();
    let read = serde_path_to_error::deserialize(Value::Object(written.into_iter().collect()));
    let proxy =
        read.map_err(|error| MeshConfigError { reason: format!("defaultConfig.{}: {}", error.path(), error.inner()) })?;
    Ok((proxy, idle))
}

/// Where lines go cannot be chosen: proxies write them to standard output, from where the cluster collects them.
fn access_log(mesh: &mut Fields, idle: &mut Vec<Idle>) -> Result<Option<AccessLog>, MeshConfigError> {
    let file: Option<String> = mesh.take("accessLogFile")?;
    Ok(match file.as_deref() {
        None => None,
        Some("") => Some(AccessLog::Nothing),
        Some("/dev/stdout") => Some(AccessLog::All),
        Some(_) => {
            idle.push(idle::log_file());
            Some(AccessLog::All)
        }
    })
}

fn log_json(mesh: &mut Fields) -> Result<Option<bool>, MeshConfigError> {
    let encoding: Option<String> = mesh.take("accessLogEncoding")?;
    match encoding.as_deref() {
        None | Some("") => Ok(None),
        Some("TEXT") => Ok(Some(false)),
        Some("JSON") => Ok(Some(true)),
        Some(other) => {
            Err(MeshConfigError { reason: format!("accessLogEncoding: {other:?} is unknown, expected TEXT or JSON") })
        }
    }
}

fn duration(mesh: &mut Fields, field: &str, usual: Duration) -> Result<Duration, MeshConfigError> {
    let text: DurationText = mesh.take(field)?;
    if text.0.is_empty() { Ok(usual) } else { time(field, &text) }
}

fn time(field: &str, text: &DurationText) -> Result<Duration, MeshConfigError> {
    let reason = || format!("{field}: {:?} is no duration, expected something like 10s", text.0);
    text.parse().ok_or_else(|| MeshConfigError { reason: reason() })
}

/// Fields of `defaultConfig` that have an effect, here or where pods are made.
const READ: [&str; 6] =
    ["gatewayTopology", "proxyHeaders", "terminationDrainDuration", "proxyMetadata", "discoveryAddress", "meshId"];
/// Metadata that makes proxies serve HTTP/1.0.
const HTTP10: &str = "ISTIO_META_HTTP10";
