//! Section 9 of the specification of certificates, row by row.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::testing::{IssueOptions, TestCa};

#[derive(Default)]
struct Counts(Mutex<Vec<(&'static str, Reporter)>>);

impl CrlObserver for Counts {
    fn rejected(&self, reporter: Reporter) {
        self.0.lock().unwrap().push(("rejected", reporter));
    }

    fn untracked(&self, reporter: Reporter) {
        self.0.lock().unwrap().push(("untracked", reporter));
    }
}

fn leaf(ca: &TestCa) -> CertificateDer<'static> {
    ca.issue_with(&IssueOptions::default()).leaf().clone()
}

fn chain(certs: &[&CertificateDer<'static>]) -> PeerChain {
    PeerChain::of(certs.iter().copied()).unwrap()
}

struct Mounted {
    dir: tempfile::TempDir,
    counts: Arc<Counts>,
}

impl Mounted {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), counts: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ca-crl.pem")
    }

    /// Replaces the file as the kubelet does: by renaming.
    fn put(&self, contents: impl AsRef<[u8]>) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, contents).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    async fn open(&self) -> Option<Crl> {
        Crl::open(&self.path(), self.counts.clone()).await
    }
}

/// Waits until the lists say so.
async fn until(crl: &Crl, chain: &PeerChain, revoked: bool) {
    let mut generation = crl.generation();
    let wait = async {
        while crl.revoked(chain).is_some() != revoked {
            generation.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the lists did not change");
}

#[test]
fn every_certificate_below_the_root_is_looked_up_by_issuer_and_serial() {
    let root = TestCa::new();
    let middle = root.intermediate("middle");
    let (one, two) = (leaf(&middle), leaf(&middle));
    let presented = chain(&[&one, middle.certificate()]);
    let both = Lists::parse(format!("{}{}", middle.crl(&[&one]), root.crl(&[])).as_bytes()).unwrap();
    assert_eq!(both.revoked(&presented).unwrap().depth, 0);
    assert_eq!(both.revoked(&chain(&[&two, middle.certificate()])), None);
    let above = Lists::parse(root.crl(&[middle.certificate()]).as_bytes()).unwrap();
    for leaf in [&one, &two] {
        let revoked = above.revoked(&chain(&[leaf, middle.certificate()])).unwrap();
        assert_eq!(revoked.depth, 1);
        assert!(revoked.to_string().ends_with("issuer 1 above the leaf"), "{revoked}");
    }
    // The same serial of another issuer is another certificate, and an issuer without a list revoked nothing.
    let elsewhere = Lists::parse(root.crl(&[&one]).as_bytes()).unwrap();
    assert_eq!(elsewhere.revoked(&presented), None);
}

#[test]
fn files_may_hold_pem_with_other_things_or_one_list_in_der_or_nothing() {
    let ca = TestCa::new();
    let one = leaf(&ca);
    let presented = chain(&[&one]);
    let der = ca.crl_der(&[&one]);
    let files: [(Vec<u8>, usize, bool); 6] = [
        (ca.crl(&[&one]).into(), 1, true),
        (format!("{}\n# words\n{}{}", ca.root_pem(), ca.crl(&[]), ca.crl(&[&one])).into(), 2, true),
        (der.to_vec(), 1, true),
        (Vec::new(), 0, false),
        (b"  \n".to_vec(), 0, false),
        (ca.root_pem().into(), 0, false),
    ];
    for (bytes, lists, revoked) in files {
        let parsed = Lists::parse(&bytes).unwrap();
        assert_eq!((parsed.count(), parsed.revoked(&presented).is_some()), (lists, revoked));
    }
    let cut = ca.crl(&[&one]);
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for bad in [&cut[..cut.len() / 2], broken, &format!("{cut}{broken}"), "nonsense"] {
        assert!(Lists::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_list_whose_successor_is_overdue_is_still_used() {
    let ca = TestCa::new();
    let one = leaf(&ca);
    let lists = Lists::parse(ca.overdue_crl(&[&one]).as_bytes()).unwrap();
    assert!(lists.revoked(&chain(&[&one])).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_comes_later_counts_and_one_that_is_broken_or_gone_changes_nothing() {
    let (ca, mounted) = (TestCa::new(), Mounted::new());
    let one = chain(&[&leaf(&ca)]);
    let revoking = leaf(&ca);
    let two = chain(&[&revoking]);
    let crl = mounted.open().await.expect("a missing file is no reason to go without");
    assert_eq!(crl.revoked(&two), None);
    mounted.put(ca.crl(&[&revoking]));
    until(&crl, &two, true).await;
    assert_eq!(crl.revoked(&one), None);

    mounted.put("-----BEGIN X509 CRL-----\n");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(crl.revoked(&two).is_some());
    std::fs::remove_file(mounted.path()).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(crl.revoked(&two).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_new_file_adds_counts_within_a_second_and_what_it_drops_only_when_it_has_settled() {
    let (ca, mounted) = (TestCa::new(), Mounted::new());
    let (one, two) = (leaf(&ca), leaf(&ca));
    mounted.put(ca.crl(&[&one]));
    let crl = mounted.open().await.unwrap();
    let (first, second) = (chain(&[&one]), chain(&[&two]));
    assert!(crl.revoked(&first).is_some());

    mounted.put(ca.crl(&[&two]));
    let began = tokio::time::Instant::now();
    until(&crl, &second, true).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(crl.revoked(&first).is_some(), "dropped before the file had settled");
    until(&crl, &first, false).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn lists_that_cannot_be_used_at_the_start_switch_the_feature_off() {
    let mounted = Mounted::new();
    mounted.put("nonsense");
    assert!(mounted.open().await.is_none());
}

#[tokio::test]
async fn refusals_and_connections_without_a_readable_chain_are_counted() {
    let (ca, mounted) = (TestCa::new(), Mounted::new());
    let (good, bad) = (leaf(&ca), leaf(&ca));
    mounted.put(ca.crl(&[&bad]));
    let crl = mounted.open().await.unwrap();
    crl.admit(Reporter::Source, [&good].into_iter()).unwrap();
    let refusal = crl.admit(Reporter::Destination, [&bad].into_iter()).unwrap_err();
    assert!(refusal.to_string().starts_with("peer certificate is revoked: serial "), "{refusal}");
    assert!(crl.track(Reporter::Source, Some(&[good])).is_some());
    assert!(crl.track(Reporter::Source, None).is_none());
    assert!(crl.track(Reporter::Destination, Some(&[CertificateDer::from(vec![1])])).is_none());
    let seen = mounted.counts.0.lock().unwrap().clone();
    let expected =
        [("rejected", Reporter::Destination), ("untracked", Reporter::Source), ("untracked", Reporter::Destination)];
    assert_eq!(seen, expected);
}
