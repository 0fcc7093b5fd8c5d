//! Percentages and limits of rolling updates. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A share of `total`: an absolute number as it is, a percentage rounded up or down.
/// Unreadable text counts as `None`, which takes `default`.
pub(super) fn share(value: Option<&IntOrString>, default: &str, total: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => (*number).max(0),
        Some(IntOrString::String(text)) => {
            percentage(text, total, up).unwrap_or_else(|| percentage(default, total, up).unwrap_or(0))
        }
        None => percentage(default, total, up).unwrap_or(0),
    }
}

fn percentage(text: &str, total: i32, up: bool) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return Some(number.max(0));
    }
    let percent: i64 = text.strip_suffix('%')?.trim().parse().ok()?;
    let product = percent.max(0) * i64::from(total);
    let quotient = if up { (product + 99) / 100 } else { product / 100 };
    i32::try_from(quotient).ok()
}

/// What a rolling update may do: `surge` more pods than wanted, `unavailable` fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fenceposts {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

/// Resolves `maxSurge` (rounded up) and `maxUnavailable` (rounded down); both zero would never
/// get on, so then one pod may be unavailable.
pub(super) fn fenceposts(
    max_surge: Option<&IntOrString>,
    max_unavailable: Option<&IntOrString>,
    defaults: (&str, &str),
    total: i32,
) -> Fenceposts {
    let surge = share(max_surge, defaults.0, total, true);
    let unavailable = share(max_unavailable, defaults.1, total, false);
    if surge == 0 && unavailable == 0 {
        return Fenceposts { surge, unavailable: 1 };
    }
    Fenceposts { surge, unavailable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailable() {
        let quarter = IntOrString::String("25%".into());
        let table = [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 1), (10, 3, 2), (0, 0, 1)];
        for (total, surge, unavailable) in table {
            assert_eq!(
                fenceposts(Some(&quarter), Some(&quarter), ("25%", "25%"), total),
                Fenceposts { surge, unavailable },
                "{total} replicas"
            );
        }
    }

    #[test]
    fn numbers_defaults_and_nonsense() {
        let number = IntOrString::Int(3);
        let nonsense = IntOrString::String("many".into());
        assert_eq!(share(Some(&number), "25%", 10, true), 3);
        assert_eq!(share(Some(&IntOrString::Int(-1)), "25%", 10, true), 0);
        assert_eq!(share(None, "25%", 10, true), 3);
        assert_eq!(share(Some(&nonsense), "25%", 10, false), 2);
        assert_eq!(share(Some(&IntOrString::String("2".into())), "1", 10, false), 2);
    }
}
