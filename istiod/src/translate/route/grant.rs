//! ReferenceGrants: who may refer to objects of other namespaces.

use mesh_api::gateway::{GROUP, GrantFrom};

use crate::world::{Kind, World};

/// What is referred to.
#[derive(Clone, Copy, Debug)]
pub struct Referred<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// Whether an object of the Gateway API, of this kind and namespace, may refer to that.
///
/// # Source
/// spec of the gateway controller, section 10.
pub fn permits(world: &World, kind: Kind, namespace: &str, to: Referred<'_>) -> bool {
    if *namespace == *to.namespace {
        return true;
    }
    let from = GrantFrom { group: GROUP.to_owned(), kind: kind.name().to_owned(), namespace: namespace.to_owned() };
    let group = if to.group == "core" { "" } else { to.group };
    world.visible(to.namespace)
        && world.grants_in(to.namespace).any(|grant| grant.spec.allows(&from, group, to.kind, to.name))
}
