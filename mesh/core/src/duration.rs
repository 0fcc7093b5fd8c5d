//! Durations as people write them: `10s`, `250ms`, `1h30m`.

use std::time::Duration;

/// Reads a sum of whole numbers with a unit each (`h`, `m`, `s`, `ms`, `us`), largest units first by
/// custom but in any order; `0` needs no unit.
///
/// # Errors
/// [`ParseDurationError`] names the text and what was wanted.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let bad = || ParseDurationError { found: text.to_owned() };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let part = match unit {
            "h" => number.checked_mul(3600).map(Duration::from_secs),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "s" => Some(Duration::from_secs(number)),
            "ms" => Some(Duration::from_millis(number)),
            "us" => Some(Duration::from_micros(number)),
            _ => None,
        };
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(total)
}

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("duration {found:?} is not a number with a unit, such as 250ms, 10s or 1h30m")]
pub struct ParseDurationError {
    /// The text as it came.
    pub found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, millis) in
            [("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("1h30m", 5_400_000), ("250ms", 250), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_named() {
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse(text).unwrap_err().found, text);
        }
    }
}
