//! Trust domains that mean the same: a principal of one of them is meant in all.

use mesh_core::identity::TrustDomain;

use crate::world::MeshSettings;

/// The mesh's trust domain and its aliases.
#[derive(Debug)]
pub(super) struct Domains<'a> {
    own: &'a TrustDomain,
    aliases: &'a [TrustDomain],
}

impl<'a> Domains<'a> {
    pub(super) fn of(settings: &'a MeshSettings) -> Self {
        Self { own: &settings.trust_domain, aliases: &settings.trust_domain_aliases }
    }

    /// Every principal that is meant by these, each once. Where the trust domain itself is a wildcard, or another mesh's,
    /// it stands as written.
    pub(super) fn expand(&self, principals: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::with_capacity(principals.len());
        for principal in principals {
            let meant = match principal.split_once('/') {
                Some((domain, path)) if self.contains(domain) => {
                    self.iter().map(|one| format!("{one}/{path}")).collect()
                }
                _ => vec![principal.clone()],
            };
            for one in meant {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        all
    }

    fn contains(&self, name: &str) -> bool {
        self.iter().any(|domain| domain.as_str() == name)
    }

    fn iter(&self) -> impl Iterator<Item = &'a TrustDomain> {
        std::iter::once(self.own).chain(self.aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_of_one_domain_is_meant_in_all() {
        let domain = |name: &str| TrustDomain::new(name).unwrap();
        let settings = MeshSettings {
            trust_domain: domain("new"),
            trust_domain_aliases: vec![domain("old"), domain("older")],
            ..MeshSettings::default()
        };
        let expand = |text: &str| Domains::of(&settings).expand(&[text.to_owned()]);
        assert_eq!(expand("old/ns/a/sa/b"), ["new/ns/a/sa/b", "old/ns/a/sa/b", "older/ns/a/sa/b"]);
        assert_eq!(expand("new/ns/a/*"), ["new/ns/a/*", "old/ns/a/*", "older/ns/a/*"]);
        for same in ["*", "*/ns/a/sa/b", "ol*", "other/ns/a/sa/b", "*/sa/b"] {
            assert_eq!(expand(same), [same], "{same}");
        }
        let twice = Domains::of(&settings).expand(&["old/x".to_owned(), "new/x".to_owned()]);
        assert_eq!(twice, ["new/x", "old/x", "older/x"]);
        let alone = MeshSettings::default();
        assert_eq!(Domains::of(&alone).expand(&["cluster.local/x".to_owned()]), ["cluster.local/x"]);
    }
}
