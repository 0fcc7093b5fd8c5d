//! Points in time as text, in UTC.

use std::fmt::Write;
use std::time::Duration;

/// How a point in time is written: a small part of `strftime`.
#[derive(Clone, Debug)]
pub(super) struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Since the epoch.
    Seconds,
    /// Digits of the fraction of a second.
    Fraction(usize),
}

impl Default for Format {
    /// `2026-11-21T14:52:22.123Z`
    fn default() -> Self {
        Self::compile("%Y-%m-%dT%H:%M:%S.%3fZ").unwrap_or(Self { parts: vec![Part::Seconds] })
    }
}

impl Format {
    /// `None` for what is not known.
    pub(super) fn compile(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                if c.is_control() {
                    return None;
                }
                literal.push(c);
                continue;
            }
            let mut expanded = match chars.next()? {
                'Y' => vec![Part::Year],
                'm' => vec![Part::Month],
                'd' => vec![Part::Day],
                'H' => vec![Part::Hour],
                'M' => vec![Part::Minute],
                'S' => vec![Part::Second],
                's' => vec![Part::Seconds],
                'f' => vec![Part::Fraction(9)],
                'F' => Self::compile("%Y-%m-%d")?.parts,
                'T' => Self::compile("%H:%M:%S")?.parts,
                '%' => vec![Part::Text("%".to_owned())],
                digit @ '1'..='9' if chars.next() == Some('f') => {
                    vec![Part::Fraction(usize::try_from(digit.to_digit(10)?).ok()?)]
                }
                _ => return None,
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.append(&mut expanded);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Some(Self { parts })
    }

    /// A point in time since the Unix epoch.
    pub(super) fn of(&self, since_epoch: Duration) -> String {
        let seconds = since_epoch.as_secs();
        let (year, month, day) = civil(seconds / SECONDS_OF_DAY);
        let second = seconds % SECONDS_OF_DAY;
        let mut out = String::with_capacity(32);
        for part in &self.parts {
            // Writing to a string never fails.
            let _ = match part {
                Part::Text(text) => write!(out, "{text}"),
                Part::Year => write!(out, "{year:04}"),
                Part::Month => write!(out, "{month:02}"),
                Part::Day => write!(out, "{day:02}"),
                Part::Hour => write!(out, "{:02}", second / 3600),
                Part::Minute => write!(out, "{:02}", second / 60 % 60),
                Part::Second => write!(out, "{:02}", second % 60),
                Part::Seconds => write!(out, "{seconds}"),
                Part::Fraction(digits) => {
                    let nanos = format!("{:09}", since_epoch.subsec_nanos());
                    write!(out, "{}", nanos.get(..*digits).unwrap_or(&nanos))
                }
            };
        }
        out
    }
}

/// Year, month and day of a day since 1970-01-01, counted in eras of 400 years that begin on a 1 March.
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

const SECONDS_OF_DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_written_as_asked() {
        let at = Duration::new(1_795_272_742, 123_456_789);
        for (format, expected) in [
            ("%Y-%m-%dT%H:%M:%S.%3fZ", "2026-11-21T14:52:22.123Z"),
            ("%s", "1795272742"),
            ("%F %T.%f%%", "2026-11-21 14:52:22.123456789%"),
            ("%s.%6f", "1795272742.123456"),
        ] {
            assert_eq!(Format::compile(format).unwrap().of(at), expected);
        }
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(Format::compile("%F").unwrap().of(Duration::from_secs(seconds)), expected);
        }
        assert!(Format::compile("%Q").is_none());
        assert!(Format::compile("%").is_none());
        assert!(Format::compile("%3x").is_none());
    }
}
