//! How many replicas each ReplicaSet of a Deployment gets next. Pure.
//!
//! The first size is the new set's (when there is one), the others are the old ones, oldest
//! first; the answer has the same order.

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::controllers::scale::Fenceposts;

/// The numbers of one ReplicaSet that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    /// `spec.replicas`.
    pub(super) wanted: i32,
    /// `status.replicas`.
    pub(super) present: i32,
    /// `status.availableReplicas`.
    pub(super) available: i32,
}

impl Size {
    pub(super) fn of(set: &ReplicaSet) -> Self {
        let status = set.status.as_ref();
        Self {
            wanted: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            present: status.map_or(0, |status| status.replicas),
            available: status.and_then(|status| status.available_replicas).unwrap_or(0),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.wanted == 0 && self.present == 0
    }

    fn unavailable(self) -> i32 {
        (self.wanted - self.available).max(0)
    }
}

/// A paused rollout: sets stay as they are but for the largest, which takes up a change of the
/// number wanted.
pub(super) fn paused(wanted: i32, sizes: &[Size]) -> Vec<i32> {
    let mut targets: Vec<i32> = sizes.iter().map(|size| size.wanted).collect();
    let total: i32 = targets.iter().sum();
    if let Some(largest) = targets.iter_mut().max() {
        *largest = (*largest + wanted - total).max(0);
    }
    targets
}

/// `Recreate`: first no old pod, then all new ones.
pub(super) fn recreate(wanted: i32, old_pods_left: bool, sizes: &[Size]) -> Vec<i32> {
    let (new, old) = match sizes.split_first() {
        Some((new, old)) => (new, old),
        None => return Vec::new(),
    };
    let waiting = old_pods_left || old.iter().any(|size| !size.is_empty());
    let mut targets = vec![if waiting { new.wanted.min(wanted) } else { wanted }];
    targets.extend(old.iter().map(|_| 0));
    targets
}

/// `RollingUpdate`: never more than `wanted + surge` pods, never fewer available ones than
/// `wanted - unavailable` by our own doing.
pub(super) fn rolling(wanted: i32, limits: Fenceposts, sizes: &[Size]) -> Vec<i32> {
    let Some((new, old)) = sizes.split_first() else {
        return Vec::new();
    };
    let total: i32 = sizes.iter().map(|size| size.wanted).sum();
    let room = (wanted + limits.surge - total).max(0);
    let new_target = if new.wanted > wanted { wanted } else { new.wanted + room.min(wanted - new.wanted) };
    let mut targets = vec![new_target];
    targets.extend(shrink_old(wanted, limits, new, old));
    targets
}

/// Takes unavailable old pods away first, then available ones, oldest set first.
fn shrink_old(wanted: i32, limits: Fenceposts, new: &Size, old: &[Size]) -> Vec<i32> {
    let available_min = (wanted - limits.unavailable).max(0);
    let pods: i32 = new.wanted + old.iter().map(|size| size.wanted).sum::<i32>();
    let mut removable = (pods - available_min - new.unavailable()).max(0);
    let mut targets: Vec<i32> = old.iter().map(|size| size.wanted).collect();
    let mut gone = 0;
    for (target, size) in targets.iter_mut().zip(old) {
        let step = size.unavailable().min(removable).min(*target);
        *target -= step;
        removable -= step;
        gone += step;
    }
    let available: i32 = new.available + old.iter().map(|size| size.available).sum::<i32>();
    let mut spare = (available - available_min).max(0).min(removable);
    for target in &mut targets {
        let step = spare.min(*target);
        *target -= step;
        spare -= step;
        gone += step;
    }
    debug_assert!(gone <= pods, "more pods removed than there were");
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(wanted: i32, available: i32) -> Size {
        Size { wanted, present: wanted, available }
    }

    const QUARTER_OF_FOUR: Fenceposts = Fenceposts { surge: 1, unavailable: 1 };
    const NO_LOSS: Fenceposts = Fenceposts { surge: 1, unavailable: 0 };

    #[test]
    fn a_rollout_walks_from_old_to_new_within_its_limits() {
        let table = [
            // (new, old) -> (new, old)
            ((0, 0), (4, 4), (1, 3)),
            ((1, 0), (3, 3), (2, 3)),
            ((2, 1), (3, 3), (2, 2)),
            ((2, 2), (2, 2), (3, 1)),
            ((4, 4), (0, 0), (4, 0)),
        ];
        for ((wanted, available), old, expected) in table {
            let sizes = [size(wanted, available), size(old.0, old.1)];
            assert_eq!(rolling(4, QUARTER_OF_FOUR, &sizes), [expected.0, expected.1], "{sizes:?}");
        }
    }

    #[test]
    fn with_nothing_unavailable_an_old_pod_goes_only_for_an_available_new_one() {
        assert_eq!(rolling(2, NO_LOSS, &[size(0, 0), size(2, 2)]), [1, 2]);
        assert_eq!(rolling(2, NO_LOSS, &[size(1, 0), size(2, 2)]), [1, 2]);
        assert_eq!(rolling(2, NO_LOSS, &[size(1, 1), size(2, 2)]), [1, 1]);
        assert_eq!(rolling(2, NO_LOSS, &[size(1, 1), size(1, 1)]), [2, 1]);
        assert_eq!(rolling(2, NO_LOSS, &[size(2, 2), size(1, 1)]), [2, 0]);
    }

    #[test]
    fn broken_old_pods_go_first_and_scaling_needs_no_rollout() {
        assert_eq!(
            rolling(2, NO_LOSS, &[size(1, 0), size(1, 0), size(1, 1)]),
            [1, 1, 1],
            "the only available pod and the surge slot are taken"
        );
        assert_eq!(rolling(3, QUARTER_OF_FOUR, &[size(1, 1), size(1, 0), size(2, 2)]), [1, 0, 1]);
        assert_eq!(rolling(5, QUARTER_OF_FOUR, &[size(2, 2)]), [5]);
        assert_eq!(rolling(1, QUARTER_OF_FOUR, &[size(4, 4)]), [1]);
        assert_eq!(rolling(0, QUARTER_OF_FOUR, &[size(4, 4), size(1, 1)]), [0, 0]);
    }

    #[test]
    fn recreate_waits_for_the_last_old_pod() {
        assert_eq!(recreate(3, true, &[size(0, 0), size(0, 0)]), [0, 0]);
        assert_eq!(recreate(3, false, &[size(0, 0), size(2, 2)]), [0, 0]);
        assert_eq!(recreate(3, false, &[size(0, 0), size(0, 0)]), [3, 0]);
    }

    #[test]
    fn a_paused_rollout_only_scales() {
        assert_eq!(paused(5, &[size(1, 1), size(3, 3)]), [1, 4]);
        assert_eq!(paused(4, &[size(1, 1), size(3, 3)]), [1, 3]);
    }
}
