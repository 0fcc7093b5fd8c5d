//! Names of namespaced objects.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// `namespace/name`: the key of services (name = hostname) and policies on the wire.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// Never holds a slash.
    pub namespace: Arc<str>,
    /// Never holds a slash.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// Puts a name together from its parts.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NamespacedName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !name.contains('/') => Ok(Self::new(namespace, name)),
            _ => Err(ParseNameError { found: text.to_owned() }),
        }
    }
}

/// The text is not `<namespace>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name {found:?} is not of the form <namespace>/<name>")]
pub struct ParseNameError {
    /// The text as it came.
    pub found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_slash_is_wanted() {
        let name: NamespacedName = "shop/cart.shop.svc.cluster.local".parse().unwrap();
        assert_eq!((&*name.namespace, &*name.name), ("shop", "cart.shop.svc.cluster.local"));
        assert!("cart".parse::<NamespacedName>().is_err());
        assert!("a/b/c".parse::<NamespacedName>().is_err());
    }
}
