//! Certificates, for people: whose, from whom, until when. Never a key.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_identity::{CertInfo, CertState};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// A certificate in DER.
pub(super) fn of_der(der: &[u8]) -> Value {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
        return json!({"names": [], "state": "unreadable"});
    };
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let state = match () {
        () if now < from => "not yet valid",
        () if now >= until => "expired",
        () => "valid",
    };
    json!({
        "names": names(&certificate),
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "serialNumber": certificate.serial.to_string(),
        "validFrom": time(from),
        "expirationTime": time(until),
        "state": state,
    })
}

/// The first certificate of a chain in PEM; null without one.
pub(super) fn of_pem(chain: &[u8]) -> Value {
    CertificateDer::pem_slice_iter(chain).flatten().next().map_or(Value::Null, |der| of_der(&der))
}

/// How many certificates a bundle has.
pub(super) fn count(bundle: &[u8]) -> usize {
    CertificateDer::pem_slice_iter(bundle).flatten().count()
}

/// A certificate of the proxy's own, in the shape of the node proxy's dump.
pub(super) fn own(identity: &str, state: &CertState) -> Value {
    let (state, chain, roots) = match state {
        CertState::Initialising => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        CertState::Available { cert, .. } => ("Available".to_owned(), cert.chain_info(), cert.root_info()),
        CertState::Unavailable { error, .. } => (format!("Unavailable: {error}"), Vec::new(), Vec::new()),
    };
    let shown = |infos: Vec<CertInfo>| infos.iter().map(info).collect::<Vec<_>>();
    json!({"identity": identity, "state": state, "certChain": shown(chain), "rootCerts": shown(roots)})
}

fn info(info: &CertInfo) -> Value {
    let seconds = |time: SystemTime| {
        i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
    };
    json!({
        "serialNumber": info.serial,
        "validFrom": time(seconds(info.valid_from)),
        "expirationTime": time(seconds(info.valid_to)),
    })
}

/// Alternative names; the common name where there are none.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let general = alternative.iter().flat_map(|names| &names.value.general_names);
    let named: Vec<String> = general
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => mesh_core::addr::ip_from_bytes(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .take(NAMES_MAX)
        .collect();
    if !named.is_empty() {
        return named;
    }
    certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
}

/// RFC 3339, seconds.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

/// Names of one certificate that are shown.
const NAMES_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use mesh_identity::testing::{IssueOptions, TestCa};

    use super::*;

    #[test]
    fn a_certificate_is_told_by_its_names_and_its_end() {
        let names = vec!["shop.example.com".to_owned(), "*.shop.example.com".to_owned()];
        let options = IssueOptions { uris: vec![], dns_names: names, ..IssueOptions::default() };
        let issued = TestCa::new().issue_with(&options);
        let shown = of_der(issued.leaf());
        assert_eq!(shown["names"], json!(["shop.example.com", "*.shop.example.com"]));
        assert_eq!(shown["state"], "valid");
        let until: jiff::Timestamp = shown["expirationTime"].as_str().unwrap().parse().unwrap();
        assert!(until > jiff::Timestamp::now());
        assert!(!shown["serialNumber"].as_str().unwrap().is_empty());
        assert_eq!(of_pem(mesh_identity::testing::pem(issued.leaf()).as_bytes())["names"], shown["names"]);
    }

    #[test]
    fn what_is_no_certificate_is_told_and_no_panic() {
        assert_eq!(of_der(b"nonsense")["state"], "unreadable");
        assert_eq!(of_pem(b"nonsense"), Value::Null);
        assert_eq!(count(b""), 0);
    }
}
