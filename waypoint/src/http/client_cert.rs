//! What upstreams are told about the certificate that a client has shown to a listener.
//!
//! # Source
//! Waypoint specification, x-forwarded-client-cert.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::X509Name;

/// One element of `x-forwarded-client-cert`: digest, certificate, subject and names of a leaf in DER. `None`: it cannot be
/// read, or be said in a header.
pub(super) fn element(leaf: &[u8]) -> Option<HeaderValue> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let mut text = String::from("Hash=");
    for byte in digest(&SHA256, leaf).as_ref() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, ";Cert=\"{}\"", encoded_pem(leaf));
    let _ = write!(text, ";Subject=\"{}\"", quoted(&subject(certificate.subject())));
    names(&certificate, &mut text);
    HeaderValue::try_from(text).ok()
}

fn names(certificate: &X509Certificate<'_>, text: &mut String) {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return };
    let all = |wanted: fn(&GeneralName<'_>) -> Option<(&'static str, String)>| {
        names.value.general_names.iter().filter_map(wanted).collect::<Vec<_>>()
    };
    let uris = all(|name| match name {
        GeneralName::URI(uri) => Some(("URI", (*uri).to_owned())),
        _ => None,
    });
    let hosts = all(|name| match name {
        GeneralName::DNSName(host) => Some(("DNS", (*host).to_owned())),
        _ => None,
    });
    for (key, value) in uris.into_iter().chain(hosts) {
        let plain = value.bytes().all(|byte| byte.is_ascii_graphic() && !b",;=\"\\".contains(&byte));
        let _ = if plain { write!(text, ";{key}={value}") } else { write!(text, ";{key}=\"{}\"", quoted(&value)) };
    }
}

/// As a text between quotation marks. What no header can say is left out: the certificate itself says it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

/// PEM, with everything percent-encoded that has a meaning elsewhere.
fn encoded_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 8 + 100);
    text.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % PEM_LINE_CHARACTERS == 0 {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            plain => text.push(plain),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

/// # Source
/// RFC 4514: the most specific part comes first.
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        for (at, attribute) in part.iter().enumerate() {
            if at > 0 {
                text.push('+');
            }
            let key = oid2abbrev(attribute.attr_type(), oid_registry());
            let key = key.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            let _ = write!(text, "{key}={}", escaped(attribute.as_str().unwrap_or_default()));
        }
    }
    text
}

fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let at_an_end = (at == 0 && matches!(character, ' ' | '#')) || (at == last && character == ' ');
        if at_an_end || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

const PEM_LINE_CHARACTERS: usize = 64;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn an_element_tells_of_digest_certificate_subject_and_names() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, \"Inc\"");
        params.distinguished_name.push(DnType::CommonName, "web");
        params.subject_alt_names = vec![
            SanType::DnsName("web.example".try_into().unwrap()),
            SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()),
            SanType::URI("urn:a;b".try_into().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let element = element(certificate.der()).unwrap();
        let text = element.to_str().unwrap();
        let (hash, rest) = text.strip_prefix("Hash=").unwrap().split_once(";Cert=\"").unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
        let (pem, rest) = rest.split_once("\";").unwrap();
        let decoded = pem.replace("%20", " ").replace("%0A", "\n").replace("%2B", "+");
        let decoded = decoded.replace("%2F", "/").replace("%3D", "=");
        assert_eq!(decoded, mesh_identity::testing::pem(certificate.der()));
        let subject = r#"Subject="CN=web,O=Shop\\, \\\"Inc\\\"""#;
        assert_eq!(rest, format!("{subject};URI=spiffe://td/ns/a/sa/b;URI=\"urn:a;b\";DNS=web.example"));
    }

    #[test]
    fn what_is_no_certificate_is_not_told_of() {
        assert!(element(b"nonsense").is_none());
    }
}
