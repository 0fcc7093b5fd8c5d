//! Certificates that their issuer took back: lists from a file, checked at every handshake and, through
//! [`Crl::generation`], against connections that are open already.
//!
//! The file is trusted like the token and the root beside it, so signatures of lists are not checked: whoever can write
//! it can only make a peer refused that would be accepted without it. An issuer without a list has revoked nothing, and
//! a list whose successor is overdue is still used.

mod file;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::sync::watch;
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};

use crate::verify::VerifyError;

/// The lists of one file, kept fresh. Cheap to clone; clones share it. The file is watched until the last one is dropped.
#[derive(Clone)]
pub struct Crl {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    lists: ArcSwap<Lists>,
    generation: watch::Sender<u64>,
    observer: Arc<dyn CrlObserver>,
}

/// Is told what revocation does, for metrics.
pub trait CrlObserver: Send + Sync + 'static {
    /// A handshake was refused.
    fn rejected(&self, reporter: Reporter);
    /// A connection goes on that cannot be found again when its peer is revoked.
    fn untracked(&self, reporter: Reporter);
}

/// Which side of a connection this proxy is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// It dialled.
    Source,
    /// It was dialled.
    Destination,
}

impl Reporter {
    /// Value of the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// A certificate as lists name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CertId {
    /// DER of the issuer's name, without the outer tag.
    issuer: Box<[u8]>,
    /// DER of the serial number, without the tag.
    serial: Box<[u8]>,
}

/// The certificates that a peer presented, as far as lists care. A few dozen bytes for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerChain(Box<[CertId]>);

impl PeerChain {
    /// Leaf first, as presented.
    ///
    /// # Errors
    /// One of the certificates cannot be read, or there is none.
    pub fn of<'a>(presented: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Result<Self, VerifyError> {
        let unreadable = |reason: String| VerifyError::Unreadable { reason };
        let read = |der: &CertificateDer<'_>| {
            // Reads an authority's certificate just as well: what it is used for is not looked at.
            let parsed = EndEntityCert::try_from(der).map_err(|e| unreadable(e.to_string()))?;
            Ok(CertId { issuer: parsed.issuer().into(), serial: parsed.serial().into() })
        };
        let chain = presented.into_iter().map(read).collect::<Result<Box<[_]>, VerifyError>>()?;
        if chain.is_empty() {
            return Err(unreadable("there is none".to_owned()));
        }
        Ok(Self(chain))
    }
}

/// A certificate that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("serial {serial}, {}", if *depth == 0 { "the leaf".to_owned() } else { format!("issuer {depth} above the leaf") })]
pub struct Revoked {
    /// Hexadecimal.
    pub serial: String,
    /// Place in the chain; the leaf is 0.
    pub depth: usize,
}

/// The lists cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
struct BadLists {
    reason: String,
}

impl Crl {
    /// Reads the file and keeps an eye on it from the current runtime. A file that is not there has revoked nothing yet.
    /// `None` if it is there and holds no lists: then nothing is ever revoked in this process, and the log says so.
    pub async fn open(path: &Path, observer: Arc<dyn CrlObserver>) -> Option<Self> {
        let (stamp, first) = file::read(path).await;
        let lists = match first.map(|bytes| Lists::parse(&bytes)).transpose() {
            Ok(lists) => lists.unwrap_or_default(),
            Err(error) => {
                tracing::error!(path = %path.display(), %error,
                    "revocation lists cannot be used: nothing is revoked until the process is started again");
                return None;
            }
        };
        tracing::info!(path = %path.display(), lists = lists.count(), "revocation lists are in use");
        let lists = ArcSwap::from_pointee(lists);
        let inner = Inner { path: path.to_owned(), lists, generation: watch::Sender::new(0), observer };
        let crl = Self { inner: Arc::new(inner) };
        tokio::spawn(file::watch(Arc::downgrade(&crl.inner), stamp));
        Some(crl)
    }

    /// Changes whenever the lists do.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    /// The first certificate of a chain that was taken back, by the lists of this moment.
    #[must_use]
    pub fn revoked(&self, chain: &PeerChain) -> Option<Revoked> {
        self.inner.lists.load().revoked(chain)
    }

    /// Whether a peer may go on with its handshake; counts it when it may not.
    ///
    /// # Errors
    /// [`VerifyError::Revoked`]; [`VerifyError::Unreadable`] for what cannot be checked.
    pub(crate) fn admit<'a>(
        &self,
        reporter: Reporter,
        presented: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<(), VerifyError> {
        match self.revoked(&PeerChain::of(presented)?) {
            None => Ok(()),
            Some(revoked) => {
                self.inner.observer.rejected(reporter);
                Err(VerifyError::Revoked { revoked })
            }
        }
    }

    /// The chain of an established connection, to ask about later; without one the connection is counted as untracked.
    #[must_use]
    pub fn track(&self, reporter: Reporter, presented: Option<&[CertificateDer<'_>]>) -> Option<Arc<PeerChain>> {
        let chain = PeerChain::of(presented.unwrap_or_default()).ok();
        if chain.is_none() {
            self.inner.observer.untracked(reporter);
        }
        chain.map(Arc::new)
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

/// By issuer. Several of one issuer add up: an authority may split its list.
#[derive(Default)]
struct Lists(HashMap<Box<[u8]>, Vec<Arc<CertRevocationList<'static>>>>);

impl Lists {
    /// PEM with any number of lists and other things between them, or one list in DER, or nothing.
    fn parse(bytes: &[u8]) -> Result<Self, BadLists> {
        let mut lists = Self::default();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(lists);
        }
        if !contains(bytes, PEM_MARK) {
            lists
                .add(bytes)
                .map_err(|reason| BadLists { reason: format!("neither PEM nor a list in DER: {reason}") })?;
            return Ok(lists);
        }
        for (index, section) in CertificateRevocationListDer::pem_slice_iter(bytes).enumerate() {
            let bad = |reason: String| BadLists { reason: format!("list {index}: {reason}") };
            let der = section.map_err(|e: pem::Error| bad(e.to_string()))?;
            lists.add(&der).map_err(bad)?;
        }
        Ok(lists)
    }

    fn add(&mut self, der: &[u8]) -> Result<(), String> {
        let list = OwnedCertRevocationList::from_der(der).map_err(|e| e.to_string())?;
        let list = CertRevocationList::from(list);
        self.0.entry(list.issuer().into()).or_default().push(Arc::new(list));
        Ok(())
    }

    /// What either of the two has revoked.
    fn and(&self, other: &Self) -> Self {
        let mut both = Self(self.0.clone());
        for (issuer, lists) in &other.0 {
            both.0.entry(issuer.clone()).or_default().extend(lists.iter().cloned());
        }
        both
    }

    fn revoked(&self, chain: &PeerChain) -> Option<Revoked> {
        if self.0.is_empty() {
            return None;
        }
        let depth = chain.0.iter().position(|cert| {
            let lists = self.0.get(&cert.issuer).into_iter().flatten();
            // Entries were read when the list was, so that looking one up cannot fail.
            lists.into_iter().any(|list| !matches!(list.find_serial(&cert.serial), Ok(None)))
        })?;
        let serial = chain.0.get(depth).map(|cert| hex(&cert.serial)).unwrap_or_default();
        Some(Revoked { serial, depth })
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PEM_MARK: &[u8] = b"-----BEGIN ";

#[cfg(test)]
mod tests;
