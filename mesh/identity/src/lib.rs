//! Who a workload is and how it proves it: SPIFFE names in certificates, rustls configurations that check them,
//! and the certificates themselves, kept fresh from a certificate authority.
//!
//! Decisions (`verify`, `schedule`) are plain functions over values; `manager` and `ca` are thin shells around them.

pub mod ca;
pub mod chain;
pub mod clock;
pub mod crl;
pub mod error;
pub mod fake;
pub mod key;
pub mod manager;
mod schedule;
pub mod spiffe;
pub mod testing;
pub mod tls;
mod verifier;
pub mod verify;
pub mod workload;

pub use ca::{CaClient, CaConfig, RootSource, TokenSource};
pub use clock::{Clock, SystemClock};
pub use crl::{Crl, CrlObserver, PeerChain, Reporter, Revoked};
pub use error::CertError;
pub use fake::{FakeCa, FakeCaError};
pub use key::PrivateKey;
pub use manager::{CertManager, CertSource};
pub use schedule::CertState;
pub use spiffe::{identities_of, peer_identity};
pub use tls::{KeyExchange, TlsPolicy};
pub use verify::VerifyError;
pub use workload::{CertInfo, WorkloadCert};
