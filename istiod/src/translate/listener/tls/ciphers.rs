//! Cipher suites that a listener allows, by the names that users write.

use std::collections::BTreeMap;

/// What an option says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ciphers {
    /// Names of IANA; none: the usual ones.
    pub(super) served: Vec<String>,
    /// As they are written.
    pub(super) unserved: Vec<String>,
}

/// Reads the option. Those of TLS 1.3 are always there.
///
/// # Source
/// spec of the gateway controller, section 6.
pub(super) fn read(options: &BTreeMap<String, String>) -> Ciphers {
    let mut ciphers = Ciphers::default();
    let text = options.get(OPTION).map(String::as_str).unwrap_or_default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match SERVED.iter().find(|(openssl, iana)| *openssl == name || *iana == name) {
            Some((_, iana)) if !ciphers.served.iter().any(|one| one == iana) => ciphers.served.push((*iana).to_owned()),
            Some(_) => {}
            None => ciphers.unserved.push(name.to_owned()),
        }
    }
    ciphers.served.sort();
    ciphers
}

/// Option of a listener.
pub(super) const OPTION: &str = "gateway.istio.io/tls-cipher-suites";
/// Cipher suites of TLS 1.2 that are served, by the names of OpenSSL and of IANA.
const SERVED: [(&str, &str); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Ciphers {
        read(&[(OPTION.to_owned(), text.to_owned())].into())
    }

    #[test]
    fn known_suites_are_read_and_others_left_out() {
        assert_eq!(read(&BTreeMap::new()), Ciphers::default());
        let read = named("ECDHE-RSA-AES256-GCM-SHA384, AES128-SHA,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,, x");
        assert_eq!(read.served, ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
        assert_eq!(read.unserved, ["AES128-SHA", "x"]);
        assert!(named("x").served.is_empty(), "the usual ones");
    }

    #[test]
    fn what_is_served_is_what_the_library_has() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut names: Vec<_> = SERVED.iter().map(|(_, iana)| *iana).collect();
        names.sort_unstable();
        let has = provider.cipher_suites.iter().filter(|one| one.tls13().is_none());
        let mut has: Vec<_> = has.filter_map(|one| one.suite().as_str()).collect();
        has.sort_unstable();
        assert_eq!(names, has);
    }
}
