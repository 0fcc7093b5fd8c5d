//! Certificates that were taken back.

use std::time::{Duration, Instant, SystemTime};

use mesh_hbone::OpenError;
use mesh_wire::l7::Protocol;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::endpoint::{Application, Endpoint};
use crate::isolate::isolated_test;
use crate::resources::{address, port, proxy, service, workload};
use crate::world::World;

const DB: &str = "10.1.1.7:5432";

isolated_test! {
    async fn a_client_that_was_taken_back_loses_its_tunnels_within_a_second_and_gets_no_new_one() {
        let endpoint = Endpoint::start("127.0.0.2", "db", Application::Bytes("db")).await;
        let pod = workload("db-1", "127.0.0.2", "db", &[("db", 5432, 5432)]);
        let addresses = vec![service("db", "10.1.1.7", 5432, 5432), address(&pod)];
        let world = World::waypoint(proxy(), &[port("db", "10.1.1.7", 5432, Protocol::Tcp)], addresses).await;
        let revoked = Client::new("spiffe://cluster.local/ns/ns1/sa/a").await;
        let other = Client::new("spiffe://cluster.local/ns/ns1/sa/b").await;
        let mut greeting = [0; 4];
        let mut cut = revoked.open(DB).await.unwrap();
        cut.read_exact(&mut greeting).await.unwrap();
        let mut kept = other.open(DB).await.unwrap();
        kept.read_exact(&mut greeting).await.unwrap();

        world.revoke(&[revoked.leaf()]);
        let began = Instant::now();
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), cut.read_to_end(&mut rest)).await.expect("cut").ok();
        let took = began.elapsed();
        // The file is looked at twice a second; the rest is for a busy machine.
        assert!(took < Duration::from_secs(2), "it took {took:?}");
        assert!(rest.is_empty());
        let calls = endpoint.asked().len();
        let error = revoked.open(DB).await.unwrap_err();
        assert!(matches!(error, OpenError::Dial(_) | OpenError::Broken { .. }), "{error}");
        assert_eq!(endpoint.asked().len(), calls);
        kept.write_all(b"x").await.unwrap();
        assert_eq!(kept.read_u8().await.unwrap(), b'x', "others are not concerned");
        world.metric(&["istio_crl_policy_rejections_total", "reporter=\"destination\""]).await;
        let said = async |world: &World| world.log().contains("certificate was taken back");
        world.eventually("the log says why", said).await;

        world.revoke(&[]);
        world.eventually("it may call again", async |_| revoked.open(DB).await.is_ok()).await;
    }
}

/// A list of the mesh's authority, PEM. Whoever can write the file is trusted, so that any key may have signed it.
pub(crate) fn list(revoked: &[&CertificateDer<'_>]) -> String {
    let mut authority = CertificateParams::default();
    authority.distinguished_name = DistinguishedName::new();
    authority.distinguished_name.push(DnType::OrganizationName, "meltemi development root, protects nothing");
    let now = SystemTime::now();
    let entry = |cert: &&CertificateDer<'_>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(cert).unwrap();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(parsed.raw_serial()),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        }
    };
    let list = CertificateRevocationListParams {
        this_update: (now - Duration::from_secs(60)).into(),
        next_update: (now + Duration::from_secs(3600)).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&Issuer::new(authority, KeyPair::generate().unwrap())).unwrap().pem().unwrap()
}
