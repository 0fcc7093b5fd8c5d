//! Resource quantities (`500m`, `1Gi`) as numbers. Pure.

/// A quantity in thousandths of its unit, or `None` when the text is not one.
///
/// # Source
/// The grammar of `k8s.io/apimachinery` `resource.Quantity`: decimal number, then a binary
/// (`Ki` ...) or decimal (`m`, `k` ...) suffix, or an exponent.
pub(super) fn millis(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let negative = whole.starts_with('-');
    let whole: i128 = match whole.trim_start_matches(['+', '-']) {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let (times, over) = factor(suffix)?;
    let value = whole.checked_mul(scale)?.checked_add(fraction)?;
    let value = value.checked_mul(times)?.checked_mul(1000)? / scale.checked_mul(over)?;
    Some(if negative { -value } else { value })
}

/// A suffix as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => Some((1, 1)),
        "k" => Some((1000, 1)),
        "M" => Some((1_000_000, 1)),
        "G" => Some((1_000_000_000, 1)),
        "T" => Some((1_000_000_000_000, 1)),
        "P" => Some((1_000_000_000_000_000, 1)),
        "E" => Some((1_000_000_000_000_000_000, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = 10_i128.checked_pow(power.unsigned_abs().min(18))?;
            Some(if power < 0 { (1, size) } else { (size, 1) })
        }
    }
}

/// How often `divisor` goes into `value`, rounded up, as a downward-API reference wants it.
pub(super) fn divided(value: &str, divisor: Option<&str>) -> Option<String> {
    let value = millis(value)?;
    let divisor = match divisor {
        None | Some("" | "0") => 1000,
        Some(text) => millis(text).filter(|divisor| *divisor > 0)?,
    };
    Some(((value + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_in_all_notations() {
        let table = [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2e3", Some(2_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("-1", Some(-1000)),
            ("", None),
            ("Mi", None),
            ("1x", None),
        ];
        for (text, expected) in table {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn division_rounds_up() {
        assert_eq!(divided("1500m", None).as_deref(), Some("2"));
        assert_eq!(divided("1500m", Some("1m")).as_deref(), Some("1500"));
        assert_eq!(divided("64Mi", Some("1Mi")).as_deref(), Some("64"));
        assert_eq!(divided("64Mi", Some("0")).as_deref(), Some("67108864"));
        assert_eq!(divided("many", None), None);
    }
}
