//! The time, as objects write it.

use jiff::{SignedDuration, Timestamp};

/// Now.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Whole seconds since 1970.
pub(crate) fn seconds(time: Timestamp) -> i64 {
    time.as_second()
}

/// `metav1.Time` of a second since 1970.
pub(crate) fn timestamp(second: i64) -> String {
    Timestamp::from_second(second).map(rfc3339).unwrap_or_default()
}

/// `metav1.Time`: RFC 3339 in UTC with whole seconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.Time` of now.
pub(crate) fn stamp() -> String {
    rfc3339(now())
}

/// The age of a `metav1.Time` as `kubectl` prints it, such as `5m3s`; `<unknown>` without a time.
pub(crate) fn age(time: Option<&str>) -> String {
    let Some(then) = time.and_then(|text| text.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    human(now().duration_since(then))
}

/// Durations in at most two units, as coarse as they are long.
pub(crate) fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_as_kubectl_prints_them() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (183, "3m3s"),
            (600, "10m"),
            (3 * 3600 + 300, "3h5m"),
            (9 * 3600 + 300, "9h"),
            (2 * 86400 + 3600, "2d1h"),
            (30 * 86400, "30d"),
            (3 * 365 * 86400, "3y"),
        ];
        for (seconds, wanted) in cases {
            assert_eq!(human(SignedDuration::from_secs(seconds)), wanted);
        }
    }

    #[test]
    fn times_have_whole_seconds() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(age(Some("nonsense")), "<unknown>");
    }
}
