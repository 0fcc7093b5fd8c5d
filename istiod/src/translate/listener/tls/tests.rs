//! Certificates and authorities, and what is wrong with them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair as Key};

use super::*;
use crate::translate::fixture;
use crate::translate::listener::effective;
use crate::world::{Change, MeshSettings};

fn pem() -> (String, String) {
    let key = Key::generate().unwrap();
    let certificate = CertificateParams::new(vec!["x.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn secret(namespace: &str, name: &str, entries: &[(&str, &str)]) -> String {
    let data: Vec<_> = entries.iter().map(|(key, text)| format!("{key}: {}", STANDARD.encode(text))).collect();
    format!("---\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{{}}}\n", data.join(", "))
}

fn gateway(tls: &str, more: &str) -> String {
    format!(
        "kind: Gateway\nmetadata: {{name: edge, namespace: web, uid: u1}}\nspec:\n  gatewayClassName: istio\n  listeners:\n  \
         - {{name: https, port: 443, protocol: HTTPS, tls: {tls}}}\n{more}"
    )
}

/// The TLS of the first listener. What is not in `yaml` was looked for and does not exist.
fn judged(yaml: &str) -> Result<Option<ServerTls>, TlsProblem> {
    let mut model = fixture::model(yaml, MeshSettings::default());
    for (kind, key) in crate::translate::listener::references(model.world()).into_keys() {
        if model.world().material(kind, &key).is_none() {
            model.apply(Change::Delete(kind, key));
        }
    }
    let gateway = model.world().gateways().next().unwrap().clone();
    let listeners = effective(model.world(), &gateway);
    judge(model.world(), &gateway, &listeners[0])
}

fn reason(yaml: &str) -> (&'static str, TlsPart) {
    let problem = judged(yaml).unwrap_err();
    (problem.reason, problem.part)
}

#[test]
fn a_certificate_is_taken_from_the_named_secret() {
    let (certificate, key) = pem();
    for names in [["tls.crt", "tls.key"], ["cert", "key"]] {
        let [chain, private] = names;
        let yaml = gateway(
            "{certificateRefs: [{name: cert}]}",
            &secret("web", "cert", &[(chain, &certificate), (private, &key)]),
        );
        let tls = judged(&yaml).unwrap().unwrap();
        assert_eq!(tls.certificates.len(), 1);
        assert_eq!((tls.certificates[0].chain.as_slice(), tls.mode()), (certificate.as_bytes(), Mode::Terminate));
        assert_eq!(tls.client_certificate(), ClientCertificate::None);
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_without_it() {
    let (certificate, key) = pem();
    let (_, other_key) = pem();
    let refs = "{certificateRefs: [{name: cert}]}";
    for (yaml, told) in [
        (gateway(refs, ""), "does not exist"),
        (gateway(refs, &secret("web", "cert", &[("tls.crt", &certificate)])), "neither"),
        (
            gateway(refs, &secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", &other_key)])),
            "not that of its certificate",
        ),
        (gateway(refs, &secret("web", "cert", &[("tls.crt", "x"), ("tls.key", &key)])), "no certificate"),
        (gateway(refs, &secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", "x")])), "no private key"),
        (gateway("{certificateRefs: [{kind: ConfigMap, name: cert}]}", ""), "ConfigMap"),
        (gateway("{certificateRefs: [{name: a}, {name: b}, {name: c}]}", ""), "3 are given"),
        (gateway("{}", ""), "0 are given"),
    ] {
        let problem = judged(&yaml).unwrap_err();
        assert_eq!((problem.reason, problem.part), ("InvalidCertificateRef", TlsPart::Certificates), "{problem:?}");
        assert!(problem.message.contains(told) && !problem.message.contains("BEGIN"), "{problem:?}");
    }
    let bare = gateway("{}", "").replace(", tls: {}", "");
    assert_eq!(reason(&bare), ("UnsupportedProtocol", TlsPart::Listener));
}

#[test]
fn a_secret_elsewhere_needs_a_grant_before_anybody_looks_whether_it_exists() {
    let (certificate, key) = pem();
    let refs = "{certificateRefs: [{name: cert, namespace: certs}]}";
    assert_eq!(reason(&gateway(refs, "")), ("RefNotPermitted", TlsPart::Certificates));
    let there = secret("certs", "cert", &[("tls.crt", &certificate), ("tls.key", &key)]);
    assert_eq!(reason(&gateway(refs, &there)).0, "RefNotPermitted");
    let grant = "---\nkind: ReferenceGrant\nmetadata: {name: g, namespace: certs}\nspec:\n  \
                 from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: web}]\n  to: [{group: '', kind: Secret}]\n";
    assert!(judged(&gateway(refs, &(there + grant))).is_ok());
    assert_eq!(reason(&gateway(refs, grant)).0, "InvalidCertificateRef");
    // Without the grant nothing of it is read.
    let named =
        |yaml: &str| crate::translate::listener::references(fixture::model(yaml, MeshSettings::default()).world());
    assert!(named(&gateway(refs, "")).is_empty());
    assert_eq!(named(&gateway(refs, grant)).len(), 1);
}

#[test]
fn client_certificates_are_checked_against_the_named_authority() {
    let (certificate, key) = pem();
    let own = secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", &key)]);
    let refs = "{certificateRefs: [{name: cert}]}";
    let frontend = |validation: &str| format!("  tls: {{frontend: {{default: {{validation: {validation}}}}}}}\n");
    let named = "{caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}";
    let indented = certificate.replace('\n', "\n    ");
    let map =
        format!("---\nkind: ConfigMap\nmetadata: {{name: ca, namespace: web}}\ndata:\n  ca.crt: |\n    {indented}\n");
    let tls = judged(&gateway(refs, &(frontend(named) + &own + &map))).unwrap().unwrap();
    assert_eq!(tls.client_certificate(), ClientCertificate::Required);
    assert!(tls.client_roots.starts_with(b"-----BEGIN CERTIFICATE"));
    let fallback = named.replace("]}", "], mode: AllowInsecureFallback}");
    let tls = judged(&gateway(refs, &(frontend(&fallback) + &own + &map))).unwrap().unwrap();
    assert_eq!(tls.client_certificate(), ClientCertificate::Unverified);
    for (validation, map, expected) in [
        (named.to_owned(), String::new(), "InvalidCACertificateRef"),
        (named.to_owned(), map.replace("ca.crt", "other"), "InvalidCACertificateRef"),
        (named.replace("ConfigMap", "Service"), map.clone(), "InvalidCACertificateKind"),
        (named.replace("name: ca", "name: ca, namespace: other"), map.clone(), "RefNotPermitted"),
    ] {
        let yaml = gateway(refs, &(frontend(&validation) + &own + &map));
        assert_eq!(reason(&yaml), (expected, TlsPart::Authorities));
    }
    let per_port = "  tls: {frontend: {default: {}, perPort: [{port: 444, tls: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}]}}\n";
    let tls = judged(&gateway(refs, &(per_port.to_owned() + &own))).unwrap().unwrap();
    assert_eq!(tls.client_certificate(), ClientCertificate::None, "of another port");
}

#[test]
fn an_option_chooses_who_ends_tls_with_what() {
    let (certificate, key) = pem();
    let with_ca = secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &certificate)]);
    let option = |mode: &str| {
        format!("{{certificateRefs: [{{name: cert}}], options: {{gateway.istio.io/tls-terminate-mode: {mode}}}}}")
    };
    for (mode, client) in [("MUTUAL", ClientCertificate::Required), ("OPTIONAL_MUTUAL", ClientCertificate::Optional)] {
        let tls = judged(&gateway(&option(mode), &with_ca)).unwrap().unwrap();
        assert_eq!((tls.client_certificate(), tls.client_roots.is_empty()), (client, false));
    }
    let without = secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", &key)]);
    assert_eq!(reason(&gateway(&option("MUTUAL"), &without)), ("InvalidCACertificateRef", TlsPart::Authorities));
    let mesh = "{options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}";
    let tls = judged(&gateway(mesh, "")).unwrap().unwrap();
    assert!(tls.mesh_identity && tls.certificates.is_empty());
    assert_eq!(tls.client_certificate(), ClientCertificate::Required);
}

#[test]
fn a_listener_that_asks_for_something_unknown_or_for_both_authorities_is_not_served_without_client_certificates() {
    let (certificate, key) = pem();
    let with_ca = secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &certificate)]);
    let option = |mode: &str| {
        format!("{{certificateRefs: [{{name: cert}}], options: {{gateway.istio.io/tls-terminate-mode: {mode}}}}}")
    };
    for mode in ["Mutual", "MTLS", "mutual", "none"] {
        let problem = judged(&gateway(&option(mode), &with_ca)).unwrap_err();
        assert_eq!((problem.reason, problem.part), ("UnsupportedValue", TlsPart::Listener), "{mode}");
        assert!(problem.message.contains(mode) && problem.message.contains("OPTIONAL_MUTUAL"), "{}", problem.message);
    }
    let simple = judged(&gateway(&option("SIMPLE"), &with_ca)).unwrap().unwrap();
    assert_eq!(simple.client_certificate(), ClientCertificate::None);
    let frontend = "  tls: {frontend: {perPort: [{port: 443, tls: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}]}}\n";
    for mode in ["ISTIO_SIMPLE", "ISTIO_MUTUAL"] {
        let options = format!("{{options: {{gateway.istio.io/tls-terminate-mode: {mode}}}}}");
        let both = gateway(&options, frontend);
        assert_eq!(reason(&both), ("InvalidCACertificateRef", TlsPart::Authorities), "{mode}");
        let elsewhere = gateway(&options, &frontend.replace("443", "444"));
        assert!(judged(&elsewhere).unwrap().unwrap().mesh_identity);
    }
}

#[test]
fn what_was_not_read_yet_is_not_taken_for_missing() {
    let model = fixture::model(&gateway("{certificateRefs: [{name: cert}]}", ""), MeshSettings::default());
    let one = model.world().gateways().next().unwrap().clone();
    let listeners = effective(model.world(), &one);
    assert_eq!(judge(model.world(), &one, &listeners[0]).unwrap_err().part, TlsPart::Unread);
    let compiled = crate::translate::listener::listeners(model.world(), &one.key, model.layer7().resources());
    assert_eq!((compiled.len(), compiled[0].listener.is_none()), (1, true));
    assert_eq!(compiled[0].name, "web/edge/listener/https");
}

#[test]
fn options_without_effect_are_named() {
    let ignored = |tls: &str| {
        let model = fixture::model(&gateway(tls, ""), MeshSettings::default());
        let one = model.world().gateways().next().unwrap().clone();
        ignored_options(&effective(model.world(), &one)[0])
    };
    let with = |options: &str| ignored(&format!("{{certificateRefs: [{{name: cert}}], options: {{{options}}}}}"));
    assert_eq!(with(""), None);
    assert_eq!(with("gateway.istio.io/tls-terminate-mode: MUTUAL"), None);
    // A slip of the pen leaves clients without certificates in.
    let said = with("gateway.istio.io/tls-terminate-mod: MUTUAL, example.com/min-version: '1.3'").unwrap();
    for name in ["gateway.istio.io/tls-terminate-mod", "example.com/min-version"] {
        assert!(said.contains(&format!("{name:?} is no option that is known")), "{said}");
    }
    let said = with("gateway.istio.io/listener-protocol: auto-passthrough").unwrap();
    assert!(said.contains("\"auto-passthrough\" has no effect"), "where TLS is ended: {said}");
    let said =
        with("gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL, gateway.istio.io/tls-cipher-suites: AES128-SHA");
    assert!(said.unwrap().contains("tls-cipher-suites has no effect with certificates of the mesh"));
    let said = ignored("{mode: Passthrough, options: {gateway.istio.io/tls-terminate-mode: MUTUAL}}").unwrap();
    assert!(said.contains("tls-terminate-mode has no effect where TLS is passed on"), "{said}");
}

#[test]
fn cipher_suites_of_the_option_are_told_and_the_rest_is_named() {
    let (certificate, key) = pem();
    let secret = secret("web", "cert", &[("tls.crt", &certificate), ("tls.key", &key)]);
    let with = |value: &str| {
        let options = format!(
            "{{certificateRefs: [{{name: cert}}], options: {{gateway.istio.io/tls-cipher-suites: '{value}'}}}}"
        );
        let yaml = gateway(&options, &secret);
        let model = fixture::model(&yaml, MeshSettings::default());
        let one = model.world().gateways().next().unwrap().clone();
        let ignored = ignored_options(&effective(model.world(), &one)[0]);
        (judged(&yaml).unwrap().unwrap().cipher_suites, ignored)
    };
    let (served, ignored) = with("ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_eq!((served, ignored), (vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()], None));
    let (served, ignored) = with("AES128-SHA");
    assert!(served.is_empty() && ignored.unwrap().contains("AES128-SHA"), "as if it was not there");
}
