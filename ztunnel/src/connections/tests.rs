//! The table: who ends with whom, and what a pass costs.

use std::cell::Cell;

use futures::FutureExt;
use mesh_identity::testing::{IssueOptions, TestCa};
use mesh_identity::{CrlObserver, Reporter};
use mesh_policy::Connection;
use rustls::pki_types::CertificateDer;

use super::*;

fn info(direction: Direction) -> ConnectionInfo {
    ConnectionInfo {
        direction,
        src: "10.1.0.5:4000".parse().unwrap(),
        original_dst: "10.1.0.77:8080".parse().unwrap(),
        actual_dst: "10.1.0.77:8080".parse().unwrap(),
        protocol: Protocol::Hbone,
    }
}

fn subject(account: &str) -> Subject {
    let connection = Connection {
        source_ip: "10.1.0.5".parse().unwrap(),
        identity: Some(format!("spiffe://td/ns/shop/sa/{account}").parse().unwrap()),
        destination: "10.1.0.77:8080".parse().unwrap(),
    };
    Subject { connection: Some(connection), ..Subject::default() }
}

fn denial() -> Denial {
    Denial::Policy { reason: "explicitly denied by policy shop/no-web rule 0".into() }
}

fn deny_web(subject: &Subject) -> Result<(), Denial> {
    let is_web = |connection: &Connection| connection.identity.as_ref().is_some_and(|id| id.service_account() == "web");
    if subject.connection.as_ref().is_some_and(is_web) { Err(denial()) } else { Ok(()) }
}

#[tokio::test]
async fn a_change_ends_exactly_the_connections_it_denies() {
    let pod = Arc::new(PodConnections::default());
    let web = [(); 3].map(|()| pod.register(info(Direction::Inbound), Some(subject("web"))));
    let cart = pod.register(info(Direction::Inbound), Some(subject("cart")));
    let out = pod.register(info(Direction::Outbound), None);
    assert_eq!(pod.judge(|_| Ok(())).await, 0);
    let mut waiting = Box::pin(web[0].denied());
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(pod.judge(deny_web).await, 3);
    assert_eq!(pod.judge(deny_web).await, 0, "each is ended once");
    assert_eq!(waiting.await.to_string(), "policy change: explicitly denied by policy shop/no-web rule 0");
    for connection in &web {
        assert_eq!(connection.denied().now_or_never(), Some(denial()));
    }
    assert!(cart.denied().now_or_never().is_none() && out.denied().now_or_never().is_none());
    assert_eq!(pod.list().len(), 5);
    drop((out, web));
    assert_eq!(pod.list().len(), 1);
}

#[tokio::test]
async fn who_comes_after_a_verdict_is_judged_anew() {
    let pod = Arc::new(PodConnections::default());
    let before = pod.register(info(Direction::Inbound), Some(subject("web")));
    assert_eq!(pod.judge(deny_web).await, 1);
    let after = pod.register(info(Direction::Inbound), Some(subject("web")));
    assert!(after.denied().now_or_never().is_none());
    drop(before);
    let beside = pod.register(info(Direction::Inbound), Some(subject("web")));
    assert_eq!(pod.judge(deny_web).await, 2);
    assert!(after.denied().now_or_never().is_some() && beside.denied().now_or_never().is_some());
    drop((after, beside));
    let table = pod.table(own_table());
    assert!(table.by_subject.is_empty() && table.fates.iter().next().is_none());
}

/// Ten thousand connections of a hundred kinds cost a hundred questions, and none is asked under the lock.
#[tokio::test]
async fn a_pass_asks_once_for_all_that_are_alike_and_holds_no_lock() {
    let pod = Arc::new(PodConnections::default());
    let all: Vec<_> = (0..10_000)
        .map(|n| pod.register(info(Direction::Inbound), Some(subject(&format!("client-{}", n % 100)))))
        .collect();
    let asked = Cell::new(0);
    let ended = pod.judge(|_| {
        asked.set(asked.get() + 1);
        assert!(pod.tables.iter().all(|table| table.try_lock().is_ok()), "judged under the lock");
        Err(denial())
    });
    assert_eq!(ended.await, 10_000);
    assert_eq!(asked.get(), 100);
    assert!(all.iter().all(|connection| connection.denied().now_or_never().is_some()));
}

#[tokio::test]
async fn what_arrives_during_a_pass_over_many_kinds_is_left_to_its_own_judgement() {
    let pod = Arc::new(PodConnections::default());
    let mut all: Vec<_> =
        (0..3 * PIECE).map(|n| pod.register(info(Direction::Inbound), Some(subject(&format!("client-{n}"))))).collect();
    let mut pass = Box::pin(pod.judge(|_| Err(denial())));
    assert!(futures::poll!(&mut pass).is_pending(), "others get their turn");
    all.push(pod.register(info(Direction::Inbound), Some(subject("late"))));
    assert!(pass.await >= 3 * PIECE);
    all.pop();
    assert!(all.iter().all(|connection| connection.denied().now_or_never().is_some()));
}

#[tokio::test]
async fn a_tunnel_ends_with_its_streams_and_is_no_connection() {
    let pod = Arc::new(PodConnections::default());
    let own =
        |name: &str| Arc::new(Proof { own: format!("spiffe://td/ns/shop/sa/{name}").parse().unwrap(), client: None });
    let tunnels = [pod.register_tunnel(own("cart")), pod.register_tunnel(own("cart")), pod.register_tunnel(own("old"))];
    assert!(pod.list().is_empty());
    let is_old = |subject: &Subject| {
        if subject.proof.as_ref().is_some_and(|proof| proof.own.service_account() == "old") {
            Err(denial())
        } else {
            Ok(())
        }
    };
    assert_eq!(pod.judge(is_old).await, 1);
    assert_eq!(tunnels.map(|tunnel| tunnel.denied().now_or_never().is_some()), [false, false, true]);
}

/// Lists that can be replaced, and what they count.
struct Lists {
    ca: TestCa,
    dir: tempfile::TempDir,
    crl: Crl,
}

struct Uncounted;

impl CrlObserver for Uncounted {
    fn rejected(&self, _: Reporter) {}
    fn untracked(&self, _: Reporter) {}
}

impl Lists {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let crl = Crl::open(&dir.path().join("crl.pem"), Arc::new(Uncounted)).await.unwrap();
        Self { ca: TestCa::new(), dir, crl }
    }

    /// A server's certificate and what is kept of it.
    fn server(&self) -> (CertificateDer<'static>, Arc<PeerChain>) {
        let leaf = self.ca.issue_with(&IssueOptions::default()).leaf().clone();
        let chain = self.crl.track(Reporter::Source, Some(std::slice::from_ref(&leaf))).unwrap();
        (leaf, chain)
    }

    async fn revoke(&self, leaf: &CertificateDer<'_>) {
        let mut changed = self.crl.generation();
        std::fs::write(self.dir.path().join("crl.pem"), self.ca.crl(&[leaf])).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), changed.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_connection_ends_with_either_of_the_servers_it_goes_through() {
    let lists = Lists::new().await;
    let pod = Arc::new(PodConnections::default());
    let (gateway, inner, other) = (lists.server(), lists.server(), lists.server());
    let mut across = [(); 2].map(|()| pod.register(info(Direction::Outbound), None));
    across[0].leaves_through(vec![gateway.1.clone(), inner.1.clone()], Some(&lists.crl));
    across[1].leaves_through(vec![gateway.1.clone(), other.1.clone()], Some(&lists.crl));
    let law = |subject: &Subject| match revoked(Some(&lists.crl), subject) {
        Some(revoked) => Err(Denial::Revoked { revoked }),
        None => Ok(()),
    };
    assert_eq!(pod.judge(law).await, 0);
    lists.revoke(&inner.0).await;
    assert_eq!(pod.judge(law).await, 1);
    let words = across[0].denied().now_or_never().unwrap().to_string();
    assert!(words.starts_with("certificate of the peer was revoked: serial "), "{words}");
    assert!(across[1].denied().now_or_never().is_none());
    lists.revoke(&gateway.0).await;
    assert_eq!(pod.judge(law).await, 1);

    // Revoked while it was dialled: nobody needs to judge it again.
    let mut late = pod.register(info(Direction::Outbound), None);
    late.leaves_through(vec![gateway.1], Some(&lists.crl));
    assert!(matches!(late.denied().now_or_never(), Some(Denial::Revoked { .. })));
}
