//! `config_dump`: everything the proxy knows, in the shape that tools parse.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_identity::{CertInfo, CertState};
use serde_json::{Map, Value, json};

use super::Admin;
use crate::config::LocalSource;
use crate::start::VERSION;
use crate::state::LocalConfig;

pub(super) fn dump(admin: &Admin) -> Value {
    let mut out: Map<String, Value> = admin.shared.state.snapshot().dump();
    out.insert("staticConfig".to_owned(), static_config(admin.shared.config.local_config.as_ref()));
    out.insert("version".to_owned(), json!({"version": VERSION, "component": "ztunnel"}));
    out.insert("config".to_owned(), admin.shared.config.to_json());
    let certificates = admin.shared.certs.list().into_iter();
    let certificates = certificates.map(|(identity, state)| certificate(&identity.to_string(), &state));
    out.insert("certificates".to_owned(), certificates.collect());
    out.insert("workloadState".to_owned(), admin.pods.dump());
    out.into()
}

/// What the local file says. It is read again rather than kept: a parsed file is several times the size of the state that
/// came of it, and hardly ever looked at.
fn static_config(source: Option<&LocalSource>) -> Value {
    match source.map(LocalConfig::load) {
        None => json!({}),
        Some(Ok(config)) => config.to_json(),
        Some(Err(error)) => json!({"error": format!("it was read at the start, and cannot be read now: {error}")}),
    }
}

pub(super) fn certificate(identity: &str, state: &CertState) -> Value {
    let (state, chain, roots) = match state {
        CertState::Initialising => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        CertState::Available { cert, .. } => ("Available".to_owned(), cert.chain_info(), cert.root_info()),
        CertState::Unavailable { error, .. } => (format!("Unavailable: {error}"), Vec::new(), Vec::new()),
    };
    let shown = |infos: Vec<CertInfo>| infos.iter().map(info).collect::<Vec<_>>();
    json!({"identity": identity, "state": state, "certChain": shown(chain), "rootCerts": shown(roots)})
}

fn info(info: &CertInfo) -> Value {
    json!({
        "pem": STANDARD.encode(pem(&info.der)),
        "serialNumber": info.serial,
        "validFrom": rfc3339(info.valid_from),
        "expirationTime": rfc3339(info.valid_to),
    })
}

/// PEM text of a certificate; 64 columns as RFC 7468 wants.
fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

fn rfc3339(time: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}
