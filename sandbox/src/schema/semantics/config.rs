//! Config maps, secrets and endpoint slices.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{fields, list, one_of, text};
use crate::schema::{
    error::{FieldError, Path},
    metadata, names,
};

/// Most bytes of data in one config map or secret.
const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Most addresses of one endpoint.
const ADDRESSES_MAX: u64 = 100;

/// Adds what is wrong with a config map.
pub(super) fn config_map(object: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    let binary = fields(object, "binaryData");
    let bytes = keys(object, "data", errors) + keys(object, "binaryData", errors) * 3 / 4;
    for key in fields(object, "data").into_iter().flatten().map(|(key, _)| key) {
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            let data = root.field("data");
            let detail = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(data.key(key), &Value::from(key.as_str()), detail));
        }
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(root, DATA_BYTES_MAX));
    }
}

/// Adds what is wrong with a secret.
pub(super) fn secret(object: &Value, errors: &mut Vec<FieldError>) {
    const NEEDED: [(&str, &[&str]); 4] = [
        ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
        ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
        ("kubernetes.io/dockercfg", &[".dockercfg"]),
        ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ];
    let root = Path::Root;
    let path = root.field("data");
    if keys(object, "data", errors) * 3 / 4 + keys(object, "stringData", errors) > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(path, DATA_BYTES_MAX));
    }
    let needed = NEEDED.iter().filter(|(kind, _)| text(object, "type") == Some(kind)).flat_map(|(_, keys)| *keys);
    for key in needed {
        // What is written as text becomes data when it is stored.
        let is_there = |name| fields(object, name).is_some_and(|data| data.contains_key(*key));
        if !is_there("data") && !is_there("stringData") {
            errors.push(FieldError::required(path.key(key), ""));
        }
    }
}

/// Checks the keys of a map and returns the bytes in it.
fn keys(object: &Value, name: &str, errors: &mut Vec<FieldError>) -> usize {
    let root = Path::Root;
    let path = root.field(name);
    let mut bytes = 0;
    for (key, value) in fields(object, name).into_iter().flatten() {
        metadata::check(names::config_key, key, &path.key(key), errors);
        bytes += value.as_str().map_or(0, str::len);
    }
    bytes
}

/// Adds what is wrong with an endpoint slice.
pub(super) fn endpoint_slice(object: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    one_of(object, "addressType", &["FQDN", "IPv4", "IPv6"], &root, errors);
    let kind = text(object, "addressType").unwrap_or_default();
    let path = root.field("endpoints");
    for (index, endpoint) in list(object, "endpoints").iter().enumerate() {
        let path = path.index(index);
        let path = path.field("addresses");
        let addresses = list(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(path, "must contain at least 1 address"));
        } else if addresses.len() as u64 > ADDRESSES_MAX {
            errors.push(FieldError::too_many(path, addresses.len(), ADDRESSES_MAX));
        }
        for (index, address) in addresses.iter().enumerate() {
            let value = address.as_str().unwrap_or_default();
            let wrong = match kind {
                "IPv4" if value.parse::<Ipv4Addr>().is_err() => Some("must be a valid IPv4 address".to_owned()),
                "IPv6" if value.parse::<Ipv6Addr>().is_err() => Some("must be a valid IPv6 address".to_owned()),
                "FQDN" => names::subdomain(value.trim_end_matches('.')),
                _ => None,
            };
            if let Some(wrong) = wrong {
                errors.push(FieldError::invalid(path.index(index), address, &wrong));
            }
        }
    }
}
