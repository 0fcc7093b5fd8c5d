//! Which routes are kept out by others: when that changes, those are judged again, and no others.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::names::NamespacedName;

use super::attach::kept_out;
use crate::world::{Dirty, Kind, ParentKind, World};

/// Routes that are kept out, with the listener, by what it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Contests(BTreeMap<(ParentKind, NamespacedName), BTreeSet<KeptOut>>);

/// A route and the listener that keeps it out.
type KeptOut = (Kind, NamespacedName, String);

impl Contests {
    /// Looks again at the parents where something has changed, and adds the routes that are kept out now and were not, or
    /// the other way round.
    pub(in crate::translate) fn flush(&mut self, world: &World, dirty: &mut Dirty) {
        for parent in std::mem::take(&mut dirty.contested) {
            let (kind, key) = &parent;
            let new = kept_out(world, *kind, key);
            let old = self.0.remove(&parent).unwrap_or_default();
            for (kind, key, _) in old.symmetric_difference(&new) {
                world.reach_status_of_route(*kind, key, dirty);
            }
            if !new.is_empty() {
                self.0.insert(parent, new);
            }
        }
    }
}
