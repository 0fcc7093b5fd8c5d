//! From Secrets to the clusters that are wanted. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;

/// How a cluster is reached.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `namespace/name` of the Secret.
    pub(super) secret: String,
    /// Its value: credentials.
    pub(super) kubeconfig: Arc<[u8]>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("secret", &self.secret).finish_non_exhaustive()
    }
}

/// What a Secret holds, by cluster.
type Kubeconfigs = BTreeMap<String, Arc<[u8]>>;

/// Secrets by name, and kubeconfigs by cluster in each.
pub(super) struct Secrets {
    own: Vec<String>,
    known: BTreeMap<String, Kubeconfigs>,
    /// The list that is being read.
    listing: Option<BTreeMap<String, Kubeconfigs>>,
    complete: bool,
}

impl Secrets {
    pub(super) fn new(own: Vec<String>) -> Self {
        Self { own, known: BTreeMap::new(), listing: None, complete: false }
    }

    /// Whether every Secret was read once.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes an event; tells what it is, for counting.
    pub(super) fn take(&mut self, event: Event<Secret>) -> Option<&'static str> {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                None
            }
            Event::InitApply(secret) => {
                let (name, clusters) = read(secret);
                self.listing.get_or_insert_default().insert(name, clusters);
                Some("add")
            }
            Event::InitDone => {
                self.known = self.listing.take().unwrap_or_default();
                self.complete = true;
                None
            }
            Event::Apply(secret) => {
                let (name, clusters) = read(secret);
                Some(if self.known.insert(name, clusters).is_some() { "update" } else { "add" })
            }
            Event::Delete(secret) => {
                self.known.remove(&read(secret).0);
                Some("delete")
            }
        }
    }

    /// Clusters, and what is wrong: the first Secret by name that names a cluster is used.
    pub(super) fn wanted(&self) -> (BTreeMap<Arc<str>, Wanted>, Vec<String>) {
        let mut wanted: BTreeMap<Arc<str>, Wanted> = BTreeMap::new();
        let mut problems = Vec::new();
        for (secret, clusters) in &self.known {
            for (id, kubeconfig) in clusters {
                if self.own.contains(id) {
                    problems.push(format!("Secret {secret}: cluster {id:?} is our own"));
                } else if let Some(other) = wanted.get(id.as_str()) {
                    problems.push(format!(
                        "Secret {secret}: cluster {id:?} is in Secret {} too, which is used",
                        other.secret
                    ));
                } else if wanted.len() == CLUSTERS_MAX {
                    problems.push(format!(
                        "Secret {secret}: cluster {id:?} is one too many, at most {CLUSTERS_MAX} are read"
                    ));
                } else {
                    let one = Wanted { secret: secret.clone(), kubeconfig: kubeconfig.clone() };
                    wanted.insert(id.as_str().into(), one);
                }
            }
        }
        (wanted, problems)
    }
}

fn read(secret: Secret) -> (String, Kubeconfigs) {
    let metadata = secret.metadata;
    let name = format!("{}/{}", metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
    (name, secret.data.into_iter().flatten().map(|(id, value)| (id, value.0.into())).collect())
}

/// Clusters of one mesh.
const CLUSTERS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(name: &str, clusters: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<_, _> = clusters.iter().map(|(id, value)| ((*id).to_owned(), (*value).to_owned())).collect();
        let mut secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "istio-system"}})).unwrap();
        secret.data =
            Some(data.into_iter().map(|(id, value)| (id, k8s_openapi::ByteString(value.into_bytes()))).collect());
        secret
    }

    fn ids(secrets: &Secrets) -> Vec<String> {
        secrets.wanted().0.iter().map(|(id, one)| format!("{id} {}", one.secret)).collect()
    }

    #[test]
    fn the_first_secret_that_names_a_cluster_is_used_and_our_own_is_none() {
        let mut secrets = Secrets::new(vec!["c1".into()]);
        secrets.take(Event::Init);
        secrets.take(Event::InitApply(secret("b", &[("c2", "x"), ("c3", "x")])));
        assert!(!secrets.is_complete());
        secrets.take(Event::InitDone);
        assert_eq!(ids(&secrets), ["c2 istio-system/b", "c3 istio-system/b"]);
        assert_eq!(secrets.take(Event::Apply(secret("a", &[("c1", "x"), ("c2", "y")]))), Some("add"));
        assert_eq!(ids(&secrets), ["c2 istio-system/a", "c3 istio-system/b"]);
        let problems = secrets.wanted().1;
        assert!(
            problems[0].contains("\"c1\" is our own") && problems[1].contains("istio-system/a too"),
            "{problems:?}"
        );
        assert_eq!(secrets.take(Event::Delete(secret("a", &[]))), Some("delete"));
        assert_eq!(ids(&secrets), ["c2 istio-system/b", "c3 istio-system/b"]);
    }

    #[test]
    fn a_new_list_replaces_what_was_known() {
        let mut secrets = Secrets::new(Vec::new());
        for (name, id) in [("a", "c2"), ("b", "c3")] {
            secrets.take(Event::Init);
            secrets.take(Event::InitApply(secret(name, &[(id, "x")])));
            secrets.take(Event::InitDone);
        }
        assert_eq!(ids(&secrets), ["c3 istio-system/b"]);
    }

    #[test]
    fn credentials_are_not_printed() {
        let one = Wanted { secret: "s".into(), kubeconfig: b"token".to_vec().into() };
        assert!(!format!("{one:?}").contains("token"));
    }
}
