//! Lengths of time as users write them.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A length of time such as `10s`, `1.5h` or `1m30s`; units `h`, `m`, `s`, `ms`, `us` and `ns`. Kept as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

impl DurationText {
    /// The length of time; none where the text is not one, or is too long for the type.
    pub fn parse(&self) -> Option<Duration> {
        if self.0 == "0" {
            return Some(Duration::ZERO);
        }
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        while !rest.is_empty() || self.0.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at_checked(number_end)?;
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at_checked(unit_end)?;
            total = total.checked_add(Duration::from_nanos(nanos(number, unit)?))?;
            rest = tail;
        }
        Some(total)
    }
}

/// `number` units in nanoseconds; what is finer than a nanosecond is cut off.
fn nanos(number: &str, unit: &str) -> Option<u64> {
    let unit_nanos: u64 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut nanos = whole.parse::<u64>().ok()?.checked_mul(unit_nanos)?;
    let mut digit_nanos = unit_nanos;
    for digit in fraction.chars() {
        digit_nanos /= 10;
        nanos = nanos.checked_add(u64::from(digit.to_digit(10)?) * digit_nanos)?;
    }
    Some(nanos)
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DurationText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": LENGTH_MAX, "pattern": PATTERN})
    }
}

/// The rule of fields that must not be zero: nothing below a millisecond can be timed.
pub(crate) fn at_least_1ms(field: &str) -> Value {
    json!([{
        "rule": "duration(self) >= duration('1ms')",
        "message": format!("{field} must be at least 1ms"),
    }])
}

/// Longest text of a duration. The longest sensible one, `2562047h47m16.854775807s`, has 24 characters.
const LENGTH_MAX: u32 = 32;
const PATTERN: &str = r"^(0|([0-9]+(\.[0-9]*)?(h|m|s|ms|us|ns))+)$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, wanted_ms) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("1.5h", Some(5_400_000)),
            ("1m30s", Some(90_000)),
            ("2h45m", Some(9_900_000)),
            ("250ms", Some(250)),
            ("1.s", Some(1_000)),
            ("5000us", Some(5)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            ("99999999999999999999s", None),
            ("9999999999h", None),
        ] {
            let found = DurationText(text.to_owned()).parse();
            assert_eq!(found, wanted_ms.map(Duration::from_millis), "{text}");
        }
    }
}
