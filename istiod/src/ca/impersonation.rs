//! Whether a node proxy may have a certificate for a pod of its node. Pure.

use std::sync::Arc;

use mesh_core::identity::{Identity, TrustDomain};
use mesh_core::names::NamespacedName;

use crate::auth::Caller;
use crate::world::World;

/// What is known of the caller's own pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPod {
    /// Its UID.
    pub uid: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Its node.
    pub node: Arc<str>,
}

/// Where pods are looked up: the world, or a live answer of the API server.
pub trait Pods {
    /// A pod that has not ended.
    fn caller(&self, pod: &NamespacedName) -> Option<CallerPod>;
    /// Whether a pod of this account that has not ended is on the node.
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool;
}

/// Why an impersonation is refused. For the log: the caller is told nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No account may impersonate.
    #[error("impersonation is disabled: CA_TRUSTED_NODE_ACCOUNTS is empty")]
    Disabled,
    /// The caller is not a node proxy.
    #[error("{caller} is not a trusted node account")]
    Untrusted {
        /// Namespace and account.
        caller: String,
    },
    /// The caller is a node proxy of another cluster: which pods are on its node is not known here.
    #[error("the caller is of cluster {cluster:?}, whose own control plane signs for its pods")]
    OtherCluster {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// The value is no identity.
    #[error("impersonated identity {found:?} is not a SPIFFE identity: {reason}")]
    Malformed {
        /// What was asked for.
        found: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// The identity belongs to another mesh.
    #[error("impersonated identity {found} is not of trust domain {own}")]
    ForeignTrustDomain {
        /// What was asked for.
        found: Identity,
        /// Ours.
        own: TrustDomain,
    },
    /// The token is not bound to a pod.
    #[error("the token of {caller} is not bound to a pod")]
    Unbound {
        /// Namespace and account.
        caller: String,
    },
    /// The caller's pod is not known.
    #[error("pod {pod} of the caller does not exist")]
    UnknownPod {
        /// Its name.
        pod: NamespacedName,
    },
    /// The caller's pod was replaced by another of the same name.
    #[error("pod {pod} has UID {found}, the token was made for UID {expected}")]
    OtherPod {
        /// Its name.
        pod: NamespacedName,
        /// UID of the pod now.
        found: Arc<str>,
        /// UID in the token.
        expected: Arc<str>,
    },
    /// The caller's pod runs as someone else.
    #[error("pod {pod} runs as {found}, the token is of {expected}")]
    OtherAccount {
        /// Its name.
        pod: NamespacedName,
        /// Account of the pod.
        found: Arc<str>,
        /// Account in the token.
        expected: Arc<str>,
    },
    /// No pod of that identity is on the caller's node.
    #[error("no pod of {identity} runs on node {node} of the caller")]
    NotOnNode {
        /// What was asked for.
        identity: Identity,
        /// The node.
        node: Arc<str>,
    },
}

impl Refusal {
    /// Whether a more recent view of the cluster could change the answer.
    pub fn may_be_stale(&self) -> bool {
        matches!(self, Self::UnknownPod { .. } | Self::OtherPod { .. } | Self::NotOnNode { .. })
    }
}

/// An impersonation whose caller and identity are in order; what remains is to look at pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is asked for.
    pub identity: Identity,
    /// The caller's pod.
    pub pod: NamespacedName,
    /// UID that the token was made for.
    pub uid: Arc<str>,
    /// Account of the caller.
    pub service_account: Arc<str>,
}

/// Checks everything that needs no pods.
///
/// # Errors
/// See [`Refusal`].
///
/// # Source
/// spec of the authority, section 5, checks 1 to 3.
pub fn claim(
    caller: &Caller,
    requested: &str,
    trusted: &[NamespacedName],
    trust_domain: &TrustDomain,
) -> Result<Claim, Refusal> {
    if trusted.is_empty() {
        return Err(Refusal::Disabled);
    }
    let account = NamespacedName::new(caller.namespace.clone(), caller.service_account.clone());
    if !trusted.contains(&account) {
        return Err(Refusal::Untrusted { caller: account.to_string() });
    }
    if let Some(cluster) = &caller.cluster {
        return Err(Refusal::OtherCluster { cluster: cluster.clone() });
    }
    let identity: Identity = requested.parse().map_err(|error| Refusal::Malformed {
        found: requested.chars().take(SHOWN_MAX).collect(),
        reason: format!("{error}"),
    })?;
    if identity.trust_domain() != trust_domain {
        return Err(Refusal::ForeignTrustDomain { found: identity, own: trust_domain.clone() });
    }
    let Some(pod) = &caller.pod else {
        return Err(Refusal::Unbound { caller: account.to_string() });
    };
    Ok(Claim {
        identity,
        pod: NamespacedName::new(caller.namespace.clone(), pod.name.clone()),
        uid: pod.uid.clone(),
        service_account: caller.service_account.clone(),
    })
}

/// Checks a claim against the pods of the cluster. Returns the node that the caller runs on.
///
/// # Errors
/// See [`Refusal`].
///
/// # Source
/// spec of the authority, section 5, checks 4 to 6.
pub fn verify(claim: &Claim, pods: &dyn Pods) -> Result<(), Refusal> {
    let Claim { identity, pod, uid, service_account } = claim;
    let found = pods.caller(pod).ok_or_else(|| Refusal::UnknownPod { pod: pod.clone() })?;
    if found.uid != *uid {
        return Err(Refusal::OtherPod { pod: pod.clone(), found: found.uid, expected: uid.clone() });
    }
    if found.service_account != *service_account {
        let expected = service_account.clone();
        return Err(Refusal::OtherAccount { pod: pod.clone(), found: found.service_account, expected });
    }
    if found.node.is_empty() || !pods.runs_on(&found.node, identity.namespace(), identity.service_account()) {
        return Err(Refusal::NotOnNode { identity: identity.clone(), node: found.node });
    }
    Ok(())
}

impl Pods for World {
    fn caller(&self, pod: &NamespacedName) -> Option<CallerPod> {
        let pod = self.pod(pod)?;
        let (uid, service_account, node) = (pod.uid.clone(), pod.service_account.clone(), pod.node.clone());
        Some(CallerPod { uid, service_account, node })
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let pods = self.pods_on(node).filter(|key| *key.namespace == *namespace);
        pods.filter_map(|key| self.pod(key)).any(|pod| *pod.service_account == *service_account)
    }
}

/// Characters of a malformed value that are shown.
const SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::BoundPod;

    /// Node proxy `istio-system/zt` (UID `u`) on node n1, one pod of x/y there.
    struct Cluster {
        uid: &'static str,
        account: &'static str,
    }

    impl Pods for Cluster {
        fn caller(&self, pod: &NamespacedName) -> Option<CallerPod> {
            (pod.to_string() == "istio-system/zt").then(|| CallerPod {
                uid: self.uid.into(),
                service_account: self.account.into(),
                node: "n1".into(),
            })
        }

        fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
            (node, namespace, service_account) == ("n1", "x", "y")
        }
    }

    const CLUSTER: Cluster = Cluster { uid: "u", account: "ztunnel" };
    const XY: &str = "spiffe://cluster.local/ns/x/sa/y";

    fn caller(account: &str, pod: Option<&str>) -> Caller {
        let pod = pod.map(|name| BoundPod { name: name.into(), uid: "u".into() });
        let (cluster, trust_domain) = (None, None);
        Caller { namespace: "istio-system".into(), service_account: account.into(), pod, cluster, trust_domain }
    }

    fn check(caller: &Caller, requested: &str, cluster: &Cluster) -> Result<(), String> {
        let trusted = [NamespacedName::new("istio-system", "ztunnel")];
        let claim =
            claim(caller, requested, &trusted, &TrustDomain::default()).map_err(|refusal| refusal.to_string())?;
        verify(&claim, cluster).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_pod_of_the_callers_node_may_be_impersonated() {
        assert_eq!(check(&caller("ztunnel", Some("zt")), XY, &CLUSTER), Ok(()));
    }

    #[test]
    fn every_refusal_says_why() {
        let ztunnel = caller("ztunnel", Some("zt"));
        let refused = |caller: &Caller, requested: &str, cluster: &Cluster, part: &str| {
            let error = check(caller, requested, cluster).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused(&caller("other", Some("zt")), XY, &CLUSTER, "istio-system/other is not a trusted node account");
        refused(&ztunnel, "http://x", &CLUSTER, "\"http://x\" is not a SPIFFE identity");
        refused(&ztunnel, "spiffe://evil/ns/x/sa/y", &CLUSTER, "not of trust domain cluster.local");
        refused(&caller("ztunnel", Some("gone")), XY, &CLUSTER, "pod istio-system/gone of the caller does not exist");
        refused(&ztunnel, XY, &Cluster { account: "else", ..CLUSTER }, "runs as else");
    }

    #[test]
    fn ca_row_3_no_pod_of_the_identity_on_the_node() {
        let error = check(&caller("ztunnel", Some("zt")), "spiffe://cluster.local/ns/x/sa/z", &CLUSTER).unwrap_err();
        assert_eq!(error, "no pod of spiffe://cluster.local/ns/x/sa/z runs on node n1 of the caller");
    }

    #[test]
    fn another_cluster_vouches_for_nobody_of_ours() {
        let own = caller("ztunnel", Some("zt-uid"));
        let trusted = [NamespacedName::new("istio-system", "ztunnel")];
        let requested = "spiffe://cluster.local/ns/x/sa/y";
        assert!(claim(&own, requested, &trusted, &TrustDomain::default()).is_ok());
        let other = Caller { cluster: Some("c2".into()), ..own };
        let refused = claim(&other, requested, &trusted, &TrustDomain::default()).unwrap_err();
        assert_eq!(refused, Refusal::OtherCluster { cluster: "c2".into() });
    }

    #[test]
    fn ca_row_4_a_token_that_is_not_bound_to_a_pod() {
        let error = check(&caller("ztunnel", None), XY, &CLUSTER).unwrap_err();
        assert!(error.contains("not bound to a pod"), "{error}");
    }

    #[test]
    fn ca_row_5_a_replaced_pod_of_the_same_name() {
        let error = check(&caller("ztunnel", Some("zt")), XY, &Cluster { uid: "new", ..CLUSTER }).unwrap_err();
        assert!(error.contains("has UID new, the token was made for UID u"), "{error}");
    }

    #[test]
    fn without_trusted_accounts_nobody_impersonates() {
        let refusal = claim(&caller("ztunnel", Some("zt")), XY, &[], &TrustDomain::default()).unwrap_err();
        assert_eq!(refusal, Refusal::Disabled);
    }
}
