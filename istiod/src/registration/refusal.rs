//! Why a workload is not registered.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use tonic::Status;

/// Why a workload is not registered. The text goes to the workload: it names the field of the node's metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody is registered by this control plane.
    #[error("AUTO_REGISTER_GROUP: this control plane registers no workloads")]
    Off,
    /// Nobody knows who the caller is, or only the API server of another cluster does.
    #[error("AUTO_REGISTER_GROUP: only who proves an identity of this cluster can register")]
    Unproven,
    /// A field cannot be read.
    #[error("{field} {found:?}: expected {expected}")]
    Unreadable {
        /// The field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should.
        expected: &'static str,
    },
    /// The caller is of another namespace than the group.
    #[error("NAMESPACE {claimed:?}: the caller is of namespace {proved:?}")]
    OtherNamespace {
        /// Namespace of the node.
        claimed: Arc<str>,
        /// Namespace of the caller.
        proved: Arc<str>,
    },
    /// The caller is another service account than the group says.
    #[error("SERVICE_ACCOUNT {proved:?}: WorkloadGroup {group} is for service account {wanted:?}")]
    OtherAccount {
        /// Service account of the caller.
        proved: Arc<str>,
        /// The group.
        group: NamespacedName,
        /// Its service account.
        wanted: Arc<str>,
    },
    /// There is no such group.
    #[error("AUTO_REGISTER_GROUP: there is no WorkloadGroup {group}")]
    NoGroup {
        /// What was asked for.
        group: NamespacedName,
    },
    /// Another workload has the address.
    #[error("INSTANCE_IPS {address}: the address is that of another workload{}", in_network(network))]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Its network.
        network: Arc<str>,
    },
    /// There is an entry of that name that somebody wrote, or that is another workload's.
    #[error("AUTO_REGISTER_GROUP: WorkloadEntry {entry} exists and was not made for this workload")]
    ByHand {
        /// The entry.
        entry: NamespacedName,
    },
    /// The API server does not take the entry.
    #[error("the entry is refused: {reason}")]
    Rejected {
        /// What it says.
        reason: String,
    },
    /// No more workloads are registered here.
    #[error("more than {max} workloads {of}")]
    Full {
        /// How many are.
        max: usize,
        /// Of whom.
        of: &'static str,
    },
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Off => Self::failed_precondition(text),
            Refusal::Unproven | Refusal::OtherNamespace { .. } | Refusal::OtherAccount { .. } => {
                Self::permission_denied(text)
            }
            Refusal::Unreadable { .. } | Refusal::Rejected { .. } => Self::invalid_argument(text),
            Refusal::NoGroup { .. } => Self::not_found(text),
            Refusal::AddressTaken { .. } | Refusal::ByHand { .. } => Self::already_exists(text),
            Refusal::Full { .. } => Self::resource_exhausted(text),
        }
    }
}

fn in_network(network: &str) -> String {
    if network.is_empty() { String::new() } else { format!(" of network {network}") }
}
